//! `evenkeel certificate rotate-ca`: new authorities for a cluster that goes on meanwhile. The servers do it; whoever
//! sits here begins it, looks on, and ends it.

use std::process::ExitCode;

use anyhow::Result;

use super::args::{RotateArgs, RotateCommand};
use super::attention;
use super::follow::{self, Asked, look_on, refuse};
use super::keeper::agreed;
use super::output::table;
use crate::layout::Layout;
use crate::pki::{Phase, Role};
use crate::wire::rotation::{PATH, Shown, ShownMachine};

/// What waits for a person.
const UNDECIDED: u8 = 4;

const PLAN: &str = "\
1. New authorities, signed by the old ones, and a new key of service-account tokens; every machine trusts both.
2. Every machine gets certificates of the new ones, which say that the old ones vouch for them.
3. After `evenkeel certificate rotate-ca --finish`, and not before: the old ones hold no longer.
No pod and no server is restarted. It can be paused between steps and goes on by itself whatever server is lost.";

pub async fn run(args: &RotateArgs, layout: &Layout) -> Result<ExitCode> {
    match (&args.command, args.finish) {
        (Some(RotateCommand::Status), _) => {
            let shown = look(layout).await?;
            print(&shown, args.json)?;
            Ok(code(&shown))
        }
        (Some(RotateCommand::Pause), _) => wish(layout, "pause", args.json).await,
        (Some(RotateCommand::Resume), _) => wish(layout, "resume", args.json).await,
        (None, false) => start(args, layout).await,
        (None, true) => finish(args, layout).await,
    }
}

/// For people.
pub fn sentence(phase: Phase) -> &'static str {
    match phase {
        Phase::Distribute => "machines learn to trust them",
        Phase::Issue => "they sign; the old authorities hold until --finish",
        Phase::Finish => "the old authorities end",
        Phase::Done => "done",
    }
}

async fn start(args: &RotateArgs, layout: &Layout) -> Result<ExitCode> {
    let before = look(layout).await?;
    if !before.is_open() {
        if !args.json {
            println!("{}\n{PLAN}", head(&before));
        }
        if args.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !agreed(args.yes)? {
            return Ok(ExitCode::from(UNDECIDED));
        }
        if let Asked::Refused(why) = ask(layout, "start").await? {
            return Ok(refuse(&why));
        }
    }
    wait(layout, args.json, |shown| shown.decide || shown.paused || !shown.is_open()).await
}

async fn finish(args: &RotateArgs, layout: &Layout) -> Result<ExitCode> {
    let before = look(layout).await?;
    if !args.json {
        println!("{}\n{}", head(&before), consequences(&before, args.end_tokens));
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !agreed(args.yes)? {
        return Ok(ExitCode::from(UNDECIDED));
    }
    // What is over already can have its tokens ended still.
    let finish = (before.is_open() || !args.end_tokens).then_some("finish");
    for word in finish.into_iter().chain(args.end_tokens.then_some("tokens")) {
        if let Asked::Refused(why) = ask(layout, word).await? {
            return Ok(refuse(&why));
        }
    }
    wait(layout, args.json, |shown| !shown.is_open() || shown.paused).await
}

async fn wish(layout: &Layout, word: &str, json: bool) -> Result<ExitCode> {
    match ask(layout, word).await? {
        Asked::Done(shown) => print(&shown, json).map(|()| ExitCode::SUCCESS),
        Asked::Refused(why) => Ok(refuse(&why)),
    }
}

async fn look(layout: &Layout) -> Result<Shown> {
    follow::look(layout, PATH).await
}

async fn ask(layout: &Layout, word: &str) -> Result<Asked<Shown>> {
    follow::ask(layout, PATH, word).await
}

async fn wait(layout: &Layout, json: bool, reached: impl Fn(&Shown) -> bool) -> Result<ExitCode> {
    let shown = look_on((layout, PATH), json, progress, reached).await?;
    print(&shown, json)?;
    Ok(if shown.paused { attention() } else { ExitCode::SUCCESS })
}

fn head(shown: &Shown) -> String {
    let servers = shown.machines.iter().filter(|machine| machine.role == Role::Server).count();
    format!("Cluster {}: {servers} servers, {} machines in all.", shown.cluster, shown.machines.len())
}

fn progress(shown: &Shown) -> String {
    let what = shown.phase.map(sentence).unwrap_or_default();
    match shown.waiting.is_empty() {
        true => what.to_owned(),
        false => format!("{what}; waiting for {}", shown.waiting.join(", ")),
    }
}

fn consequences(shown: &Shown, end_tokens: bool) -> String {
    let mut lines = vec![
        "From then on the old authorities hold no longer. Out are:".to_owned(),
        "- kubeconfigs and certificates that people got before; `evenkeel kubeconfig` prints one that holds".to_owned(),
        "- join tokens of before the new authorities signed".to_owned(),
    ];
    if end_tokens {
        lines.push("- tokens of service accounts of before: pods are refused until theirs is renewed".to_owned());
    } else {
        let sentence = "Tokens of service accounts of before hold until they expire: their key signs no more and is kept for \
                        that long, a year at most. Was it stolen? --end-tokens";
        lines.push(sentence.to_owned());
    }
    let out = shown.locked_out.join(", ");
    lines.push(match out.is_empty() {
        true => "No machine is out: all have come along.".to_owned(),
        false => format!("- machines that have not come along, until they join anew: {out}"),
    });
    lines.join("\n")
}

fn print(shown: &Shown, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(shown)?);
        return Ok(());
    }
    println!("{}", head(shown));
    let Some(number) = shown.number else {
        println!("The authorities are the cluster's first.");
        return Ok(());
    };
    let paused = if shown.paused { " (paused)" } else { "" };
    let since = shown.since.map(|at| at.strftime("%Y-%m-%d %H:%MZ").to_string()).unwrap_or_default();
    println!("Authorities number {}: {}{paused}, since {since}.", number + 1, progress(shown));
    if let Some(until) = shown.tokens_until {
        println!(
            "Tokens that the key before signed hold until {}, and no longer than each says.",
            until.strftime("%F %H:%MZ")
        );
    }
    if shown.is_open() {
        let rows: Vec<Vec<String>> = shown.machines.iter().map(row).collect();
        print!("\n{}", table(&["MACHINE", "ROLE", "TRUSTS", "STATE"], &rows));
    }
    if shown.decide && !shown.paused {
        println!("\nNext, once everybody has a new kubeconfig: evenkeel certificate rotate-ca --finish");
    }
    Ok(())
}

fn row(machine: &ShownMachine) -> Vec<String> {
    let trusts = match machine.reached {
        None => "the old",
        Some(Phase::Distribute) => "both",
        Some(Phase::Issue) => "both, shows the new",
        Some(Phase::Finish | Phase::Done) => "the new",
    };
    let state = if machine.live { "there" } else { "silent" };
    [&machine.name, machine.role.as_str(), trusts, state].map(str::to_owned).to_vec()
}

fn code(shown: &Shown) -> ExitCode {
    match (shown.paused, shown.decide) {
        (true, _) => attention(),
        (_, true) => ExitCode::from(UNDECIDED),
        (false, false) => ExitCode::SUCCESS,
    }
}
