//! `evenkeel backup prove`: the server proves one of its bundles, or this process one that lies in a file.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base::Clock;
use jiff::{SignedDuration, Timestamp};
use keeper::backup::{Evidence, Outcome};

use crate::cli::args::{ProveArgs, ScratchArgs};
use crate::layout::Layout;
use crate::pki::Opener;
use crate::wire::backup::prove::Proof;
use crate::wire::backup::{PROVE_PATH, Records, scratch as plane};
use crate::wire::{SystemClock, admin};

/// The longest that a proof is waited for, and how often it is looked for.
const WAIT_MAX: SignedDuration = SignedDuration::from_mins(15);
const LOOK: std::time::Duration = std::time::Duration::from_secs(2);

pub async fn run(layout: &Layout, args: &ProveArgs) -> Result<()> {
    let file = args.bundle.as_deref().map(Path::new).filter(|path| path.is_file());
    let evidence = match file {
        Some(path) => of_file(layout, args, path).await?,
        None => by_the_server(layout, args).await?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&evidence)?);
    } else {
        print!("{}", text(&evidence));
    }
    ensure!(evidence.passed, "the bundle is not proven: {}", evidence.failed().join(", "));
    Ok(())
}

async fn of_file(layout: &Layout, args: &ProveArgs, path: &Path) -> Result<Evidence> {
    let secret = args.secret_file.clone().unwrap_or_else(|| layout.proof_key());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let scratch = std::env::temp_dir().join(format!("evenkeel-scratch-{}", std::process::id()));
    let by = std::env::var("USER").unwrap_or_else(|_| "the command line".to_owned());
    let path = path.canonicalize().with_context(|| format!("open {}", path.display()))?;
    Proof { bundle: &path, name, secret: &secret, scratch, by }.run().await
}

async fn by_the_server(layout: &Layout, args: &ProveArgs) -> Result<Evidence> {
    ensure!(args.secret_file.is_none(), "--secret-file is for a bundle in a file");
    let started = SystemClock.now();
    let path = match &args.bundle {
        Some(name) => format!("{PROVE_PATH}?bundle={name}"),
        None => PROVE_PATH.to_owned(),
    };
    let answer = admin::ask(layout, http::Method::POST, &path).await.context("ask the running server")?;
    match answer.done()? {
        Some(body) => serde_json::from_slice(&body).context("read the server's answer"),
        None => wait(layout, started).await,
    }
}

/// What takes longer than a request is found among the evidence.
async fn wait(layout: &Layout, started: Timestamp) -> Result<Evidence> {
    let records = Records::new(admin::own_client(layout)?);
    while SystemClock.now().duration_since(started) < WAIT_MAX {
        if let Some(evidence) = records.evidence().await?.into_iter().rev().find(|one| started <= one.at) {
            return Ok(evidence);
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("no evidence within {} min; see the server's log", WAIT_MAX.as_mins())
}

fn text(evidence: &Evidence) -> String {
    let mut text = format!("{}\n", evidence.bundle);
    for check in &evidence.checks {
        let mark = match check.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        text.push_str(&format!("  {mark:<8}{:<12} {} ({} ms)\n", check.name, check.said, check.millis));
    }
    for what in &evidence.not_covered {
        text.push_str(&format!("  not covered: {what}\n"));
    }
    let outcome = if evidence.passed { "proven" } else { "NOT proven" };
    text + &format!("{outcome} in {:.1} s\n", evidence.millis as f64 / 1000.0)
}

/// The scratch process itself: `main` has left the network for it already.
pub async fn scratch(args: ScratchArgs) -> Result<()> {
    let text =
        std::fs::read_to_string(&args.secret_file).with_context(|| format!("read {}", args.secret_file.display()))?;
    let report = plane::run(&args.bundle, &Opener::secret(&text)?, &args.folder).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
