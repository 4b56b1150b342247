//! `evenkeel recover`: a cluster goes on without servers that are lost for good. Each verb says first what it would do, and
//! does it when the code that it printed comes back.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::Clock;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::args::{RecoverArgs, RecoverCommand};
use super::output::age;
use super::{ghosts, refused};
use crate::layout::Layout;
use crate::pki::Kubeconfig;
use crate::wire::recover::{self, Assessment, Found, Note, consent};
use crate::wire::{SystemClock, admin};

/// A server that drains without a quorum, copies a large state and starts again.
const DONE_TIMEOUT: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(500);

pub async fn run(args: RecoverArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    match args.command {
        RecoverCommand::Quorum { confirm, json } => quorum(&layout, confirm.as_deref(), json).await,
        RecoverCommand::Ghosts { confirm } => ghosts::given_up(&layout, confirm.as_deref()).await,
    }
}

async fn quorum(layout: &Layout, confirm: Option<&str>, json: bool) -> Result<ExitCode> {
    if let Some(Note::Asked { .. }) = Note::read(layout)? {
        println!("it was confirmed already; going on");
        return done(layout).await;
    }
    let settings = recover::settings(layout)?;
    let found = match recover::assess(&settings).await? {
        Assessment::Alive { answering, members } => {
            println!("refused: {}", alive(&answering, members));
            return Ok(refused());
        }
        Assessment::Lost(found) => found,
    };
    let now = SystemClock.now();
    let revision = found.revision.to_string();
    let subject = ["quorum", &found.cluster, &found.node, &revision];
    let Some(code) = confirm else {
        let command = format!(
            "evenkeel recover quorum --data-dir {} --confirm {}",
            layout.data.display(),
            consent::code(&subject, now)
        );
        print!("{}", if json { as_json(&found, &command) } else { proposal(&found, &command, now) });
        return Ok(super::attention());
    };
    if !consent::holds(code, &subject, now) {
        println!(
            "refused: this code was not shown for this state in the last minutes; run `evenkeel recover quorum` again"
        );
        return Ok(refused());
    }
    Note::ask().write(layout)?;
    done(layout).await
}

/// Does it here where no server runs; the one that runs does it itself.
async fn done(layout: &Layout) -> Result<ExitCode> {
    let Some(Note::Asked { aside, .. }) = Note::read(layout)? else { bail!("nothing was asked for") };
    let kept = layout.server().join("db").join(aside);
    if let Ok(_lock) = store::DataLock::acquire(&layout.server()) {
        let settings = recover::settings(layout)?;
        recover::take_up(&settings).await?;
        failed(layout)?;
        println!("this server's state is the cluster's now; what it was is kept in {}", kept.display());
        println!("start the server as ever: systemctl start evenkeel");
        return Ok(ExitCode::SUCCESS);
    }
    println!("the server starts again with what it has; pods go on");
    let deadline = Instant::now() + DONE_TIMEOUT;
    while Instant::now() < deadline {
        failed(layout)?;
        if Note::read(layout)?.is_none() && serves(layout).await {
            println!("the API is up; what the data was before is kept in {}", kept.display());
            println!(
                "the others join anew: on each `evenkeel leave --local`, then `evenkeel server --server URL --token TOKEN`"
            );
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("the server is not up after {} s; see its log, and run this again", DONE_TIMEOUT.as_secs())
}

fn failed(layout: &Layout) -> Result<()> {
    match Note::read(layout)? {
        Some(Note::Failed { why }) => bail!("nothing was recovered and everything is as before: {why}"),
        _ => Ok(()),
    }
}

async fn serves(layout: &Layout) -> bool {
    let asked = async {
        let config = Kubeconfig::load(&layout.kubeconfig())?;
        admin::client(&config)?.raw("/readyz").await.context("ask for /readyz")
    };
    asked.await.is_ok()
}

fn alive(answering: &[IpAddr], members: usize) -> String {
    if answering.is_empty() {
        return format!("this cluster of {members} servers has a quorum; nothing is to be recovered");
    }
    format!(
        "{} of the {members} servers answer beside this one ({}); most are there, and agree by themselves as soon as they \
         reach each other. What keeps them: the network between them, or their logs (journalctl -u evenkeel)",
        answering.len(),
        texts(answering).join(", ")
    )
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(IpAddr::to_string).collect()
}

fn proposal(found: &Found, command: &str, now: Timestamp) -> String {
    let mut text = format!(
        "cluster {}, server {}: 1 of {} servers is left, margin gone; no write is possible\n",
        found.cluster, found.node, found.members
    );
    let (silent, list) = (found.members - 1 - found.answering.len(), found.given_up.join(", "));
    let _ = writeln!(
        text,
        "rehearsed on a copy: it would go on with {} objects, revision {}",
        found.objects, found.revision
    );
    let old = match found.newest {
        Some(at) => format!(
            "the newest write in it is of {at}, {} ago; what was written after that is lost",
            age(now.duration_since(at).as_secs())
        ),
        None => "nothing in it tells how old it is; what the others have and this one has not is lost".to_owned(),
    };
    let _ = writeln!(text, "{old}");
    let _ = writeln!(text, "given up: {list}; {silent} of them silent. They join anew, with empty or forgotten disks");
    if !found.answering.is_empty() {
        let _ = writeln!(text, "still answering: {}; stop those first", texts(&found.answering).join(", "));
    }
    let _ = writeln!(
        text,
        "do NOT if they run and only the network between you and them is cut: then they have the newer state and go on"
    );
    let _ = writeln!(text, "this data is kept aside first; pods go on; the API is away for about a minute at most");
    let _ = writeln!(text, "to do it, within {} minutes:\n  {command}", consent::HOLDS_SECONDS / 60);
    text
}

fn as_json(found: &Found, command: &str) -> String {
    let found = json!({
        "cluster": found.cluster, "node": found.node, "members": found.members, "answering": found.answering,
        "revision": found.revision, "objects": found.objects, "newest": found.newest.map(|at| at.to_string()),
        "givenUp": found.given_up, "next": command,
    });
    format!("{found:#}\n")
}

#[cfg(test)]
mod tests {
    use super::{alive, proposal};
    use crate::wire::recover::Found;
    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn the_proposal_says_whom_it_gives_up_how_old_it_is_and_the_one_command() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        let mut found = Found {
            cluster: "abc".to_owned(),
            node: "a".to_owned(),
            revision: 17,
            objects: 5,
            newest: Some(now - SignedDuration::from_secs(90)),
            given_up: vec!["b".to_owned(), "c".to_owned()],
            answering: Vec::new(),
            members: 3,
        };
        let text = proposal(&found, "evenkeel recover quorum --confirm 1", now);
        for part in ["1 of 3 servers", "5 objects, revision 17", "90s ago", "given up: b, c; 2 of them", "--confirm 1"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        found.answering.push("10.0.0.2".parse().unwrap());
        assert!(proposal(&found, "", now).contains("still answering: 10.0.0.2"));
        assert!(alive(&found.answering, 3).contains("1 of the 3 servers answer beside this one (10.0.0.2)"));
    }
}
