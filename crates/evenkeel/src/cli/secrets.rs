//! `evenkeel secrets-encrypt`: another key for Secrets at rest, for a cluster that goes on meanwhile.

use std::process::ExitCode;

use anyhow::Result;

use super::args::{SecretsArgs, SecretsCommand};
use super::attention;
use super::follow::{self, Asked, look, look_on, refuse};
use super::keeper::agreed;
use super::output::table;
use crate::layout::Layout;
use crate::pki::Phase;
use crate::wire::rotation::encryption::{PATH, Shown};

/// What waits for a person.
const UNDECIDED: u8 = 4;

const PLAN: &str = "\
1. A new key; every server learns to decrypt with it. One that is off is waited for: it could not read its state after.
2. Every server encrypts with it.
3. Every Secret is written anew: those who watch Secrets see each change once, in nothing but its version.
4. The key before goes from every server. Bundles of before hold the keys that they need.
Nothing is restarted. It goes on by itself whatever server is started again meanwhile.";

pub async fn run(args: &SecretsArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    match &args.command {
        SecretsCommand::Status { json } => {
            print(&look(&layout, PATH).await?, *json)?;
            Ok(ExitCode::SUCCESS)
        }
        SecretsCommand::Cancel => match ask(&layout, "cancel").await? {
            Asked::Done(shown) => print(&shown, false).map(|()| ExitCode::SUCCESS),
            Asked::Refused(why) => Ok(refuse(&why)),
        },
        SecretsCommand::Rotate { dry_run, yes, json } => rotate(&layout, *dry_run, *yes, *json).await,
    }
}

async fn rotate(layout: &Layout, dry_run: bool, yes: bool, json: bool) -> Result<ExitCode> {
    let before: Shown = look(layout, PATH).await?;
    if !before.is_open() {
        if !json {
            println!("{}\n{PLAN}", head(&before));
        }
        if dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !agreed(yes)? {
            return Ok(ExitCode::from(UNDECIDED));
        }
        if let Asked::Refused(why) = ask(layout, "rotate").await? {
            return Ok(refuse(&why));
        }
    }
    if dry_run {
        print(&before, json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = look_on((layout, PATH), json, progress, |shown: &Shown| !shown.is_open()).await?;
    print(&shown, json)?;
    Ok(if shown.withdrawn { attention() } else { ExitCode::SUCCESS })
}

async fn ask(layout: &Layout, word: &str) -> Result<Asked<Shown>> {
    follow::ask(layout, PATH, word).await
}

fn head(shown: &Shown) -> String {
    let key = shown.key.map_or("no key".to_owned(), |key| format!("key number {key}"));
    format!("Cluster {}: {} servers; Secrets at rest are under {key}.", shown.cluster, shown.servers.len())
}

fn progress(shown: &Shown) -> String {
    let what = match shown.phase {
        None => "never changed",
        Some(Phase::Distribute) => "servers learn to decrypt with it",
        Some(Phase::Issue) if shown.waiting.is_empty() => "all encrypt with it; every Secret is written anew",
        Some(Phase::Issue) => "servers begin to encrypt with it",
        Some(Phase::Finish) => "every Secret is under it; the key before goes",
        Some(Phase::Done) if shown.withdrawn => "taken back",
        Some(Phase::Done) => "done",
    };
    match shown.waiting.is_empty() {
        true => what.to_owned(),
        false => format!("{what}; waiting for {}", shown.waiting.join(", ")),
    }
}

fn print(shown: &Shown, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(shown)?);
        return Ok(());
    }
    println!("{}", head(shown));
    let Some(next) = shown.next else {
        println!("It is the cluster's first; evenkeel secrets-encrypt rotate draws another one.");
        return Ok(());
    };
    let since = shown.since.map(|at| at.strftime("%Y-%m-%d %H:%MZ").to_string()).unwrap_or_default();
    let by = shown.by.as_deref().unwrap_or_default();
    println!(
        "Key number {next}, asked for by {by}: {}, since {since}; {} values written anew.",
        progress(shown),
        shown.rewritten
    );
    if shown.is_open() {
        let row = |server: &crate::wire::rotation::ShownMachine| {
            let has = match server.reached {
                None => "the key before",
                Some(Phase::Distribute) => "both, encrypts with the one before",
                Some(Phase::Issue) => "both, encrypts with the new one",
                Some(Phase::Finish | Phase::Done) => "the new one",
            };
            let state = if server.live { "there" } else { "silent" };
            [&server.name, has, state].map(str::to_owned).to_vec()
        };
        print!("\n{}", table(&["SERVER", "HAS", "STATE"], &shown.servers.iter().map(row).collect::<Vec<_>>()));
        if shown.waiting.iter().any(|name| shown.servers.iter().any(|server| server.name == *name && !server.live)) {
            println!("\nStart the servers that are silent. One that is lost for good: evenkeel node remove NAME");
            if shown.phase == Some(Phase::Distribute) {
                println!("Or take it back: evenkeel secrets-encrypt cancel");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::progress;
    use crate::pki::Phase;
    use crate::wire::rotation::encryption::Shown;

    #[test]
    fn it_is_said_who_is_waited_for_and_what_comes_of_it() {
        let shown = |phase, waiting: &[&str]| Shown {
            cluster: String::new(),
            key: Some(1),
            opens: vec![1],
            next: Some(2),
            phase: Some(phase),
            since: None,
            by: None,
            rewritten: 0,
            withdrawn: false,
            servers: Vec::new(),
            waiting: waiting.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(progress(&shown(Phase::Distribute, &["b"])), "servers learn to decrypt with it; waiting for b");
        assert!(progress(&shown(Phase::Issue, &["b"])).starts_with("servers begin to encrypt"));
        assert!(progress(&shown(Phase::Issue, &[])).ends_with("written anew"));
    }
}
