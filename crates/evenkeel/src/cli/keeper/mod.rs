//! What people ask of the keeper. Nothing here changes the cluster but by arming a run or asking something of one; the
//! servers do the rest, whether somebody looks on or not.
//!
//! Exit codes: 0 fine, 1 failed, 2 somebody should look, 3 refused by a guard rail, 4 needs a person's decision.

mod cluster_file;
mod releases;
mod remote;
mod show;
mod source;
mod watching;

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use keeper::{Attention, Digest, Goal, Journal, Manifest, Standing};
use serde_json::json;

use self::cluster_file::ClusterFile;
pub use self::releases::release;
use self::remote::{Asked, Remote};
use super::args::{ApplyArgs, AskArgs, ChangeArgs, JournalArgs, PlanArgs, SourceArgs, UpgradeArgs, WishArgs};
use crate::wire::keeper::Journals;
use crate::wire::keeper::api::{Proposal, Shown};
use crate::wire::keeper::records::Wish;

const REFUSED: u8 = 3;
const UNDECIDED: u8 = 4;

pub async fn upgrade(args: UpgradeArgs) -> Result<ExitCode> {
    let remote = Remote::of(&args.change.keeper)?;
    match upgraded(&remote, &args.to, &args.source).await? {
        Asked::Done(goal) => change(&remote, &args.change, goal).await,
        Asked::Refused(why) => Ok(refused(&why)),
    }
}

/// Has every node be what the cluster file says.
pub async fn apply(args: ApplyArgs) -> Result<ExitCode> {
    let remote = Remote::of(&args.change.keeper)?;
    let Some(file) = args.file.as_ref().filter(|_| !args.show) else {
        let current = remote.status().await?.generation;
        let current = current.context("the keeper has not looked at this cluster yet; try again in a moment")?;
        print!("{}", cluster_file::show(&current));
        return Ok(ExitCode::SUCCESS);
    };
    match declared(&remote, file, &args.source).await? {
        Asked::Done(goal) => change(&remote, &args.change, goal).await,
        Asked::Refused(why) => Ok(refused(&why)),
    }
}

/// What a cluster file wishes for, with its program on a server, if it names one.
async fn declared(remote: &Remote, file: &Path, source: &SourceArgs) -> Result<Asked<Goal>> {
    let ClusterFile { declared, version } = cluster_file::read(file)?;
    let Some(version) = version else {
        return Ok(Asked::Done(Goal::Apply { declared, program: None, manifest: None }));
    };
    Ok(match sent(remote, &version, source).await? {
        Asked::Done((program, manifest)) => Asked::Done(Goal::Apply { declared, program: Some(program), manifest }),
        Asked::Refused(why) => Asked::Refused(why),
    })
}

async fn upgraded(remote: &Remote, to: &str, source: &SourceArgs) -> Result<Asked<Goal>> {
    Ok(match sent(remote, to, source).await? {
        Asked::Done((program, manifest)) => Asked::Done(Goal::Upgrade { program, manifest }),
        Asked::Refused(why) => Asked::Refused(why),
    })
}

/// Has the program lie on a server.
async fn sent(remote: &Remote, to: &str, source: &SourceArgs) -> Result<Asked<(Digest, Option<Manifest>)>> {
    let program = source::program(to, source.manifest.as_deref(), source.release_source.as_deref()).await?;
    Ok(match remote.send(program.content).await.with_context(|| format!("send {to}"))? {
        Asked::Done(digest) => Asked::Done((digest, program.manifest)),
        Asked::Refused(why) => Asked::Refused(why),
    })
}

/// While a run is open it is turned round; else what it did is undone by another one.
pub async fn back(args: ChangeArgs) -> Result<ExitCode> {
    let remote = Remote::of(&args.keeper)?;
    let status = remote.status_soon().await?;
    let open = status.run.as_ref().filter(|run| !run.standing.is_over());
    let Some(run) = open else { return change(&remote, &args, Goal::Back).await };
    println!("{}", show::head(&status.head));
    println!("{} goes back: every node that it changed runs again what it ran before.", run.name);
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !agreed(args.yes)? {
        return Ok(ExitCode::from(UNDECIDED));
    }
    let asked = remote.ask(Attention::Back { why: "asked for".to_owned() }).await?;
    if let Asked::Refused(why) = asked {
        return Ok(refused(&why));
    }
    if args.no_watch {
        return Ok(ExitCode::SUCCESS);
    }
    watching::until_over(&remote, args.keeper.json, watching::Wanted::Returned).await
}

pub async fn finalise(args: ChangeArgs) -> Result<ExitCode> {
    let remote = Remote::of(&args.keeper)?;
    change(&remote, &args, Goal::Finalise).await
}

pub async fn pause(args: WishArgs) -> Result<ExitCode> {
    asked(&args, Attention::Pause { why: "asked for".to_owned() }, "is asked to pause before the next node").await
}

pub async fn resume(args: WishArgs) -> Result<ExitCode> {
    asked(&args, Attention::Resume, "is asked to go on").await
}

async fn asked(args: &WishArgs, wish: Attention, what: &str) -> Result<ExitCode> {
    let remote = Remote::of(&args.keeper)?;
    let status = remote.status_soon().await?;
    let open = status.run.as_ref().filter(|run| !run.standing.is_over());
    let Some(name) = open.map(|run| run.name.clone()) else { return Ok(refused("no run is open")) };
    if !args.dry_run
        && let Asked::Refused(why) = remote.ask(wish).await?
    {
        return Ok(refused(&why));
    }
    if args.keeper.json {
        println!("{}", json!({"head": status.head, "run": name, "asked": what, "dryRun": args.dry_run}));
    } else {
        let would = if args.dry_run { "nothing was asked; without --dry-run it " } else { "" };
        println!("{}\n{name}: {would}{what}; see: evenkeel watch", show::head(&status.head));
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn watch(args: AskArgs) -> Result<ExitCode> {
    watching::until_over(&Remote::of(&args)?, args.json, watching::Wanted::Either).await
}

pub async fn plan(args: PlanArgs) -> Result<ExitCode> {
    let remote = Remote::of(&args.keeper)?;
    let goal = match (&args.to, &args.file) {
        (Some(to), _) => Some(upgraded(&remote, to, &args.source).await?),
        (None, Some(file)) => Some(declared(&remote, file, &args.source).await?),
        (None, None) => None,
    };
    if let Some(goal) = goal {
        let goal = match goal {
            Asked::Done(goal) => goal,
            Asked::Refused(why) => return Ok(refused(&why)),
        };
        return match remote.plan(&proposal(goal, args.bake)).await? {
            Asked::Done(shown) => print(&shown, args.keeper.json),
            Asked::Refused(why) => Ok(refused(&why)),
        };
    }
    let status = remote.status().await?;
    if args.keeper.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", show::status(&status));
    Ok(ExitCode::SUCCESS)
}

pub async fn journal(args: JournalArgs) -> Result<ExitCode> {
    let text = if args.from_disk { from_disk(&args)? } else { from_server(&args.keeper).await? };
    if args.keeper.json {
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", show::journal(&text)?);
    Ok(ExitCode::SUCCESS)
}

async fn from_server(args: &AskArgs) -> Result<String> {
    let status = Remote::of(args)?.status().await?;
    eprintln!("{}", show::head(&status.head));
    let run = status.run.context("there was no run yet")?;
    Ok(run.journal.iter().map(keeper::Entry::line).collect())
}

/// The copy on this machine's disk, once it was found to be whole.
fn from_disk(args: &JournalArgs) -> Result<String> {
    let journals = Journals::new(&args.keeper.common.layout());
    let newest = journals.runs().pop();
    let run = args.run.clone().or(newest).context("no journal lies on this machine")?;
    let text = journals.read(&run)?;
    let number = run.strip_prefix("run-").and_then(|number| number.parse().ok());
    let whole = Journal::parse(&run, number.context("a run is called run-7")?, &text).context("read the journal")?;
    eprintln!("{run}, from this machine's disk");
    Ok(whole.render())
}

/// Shows the plan, asks, arms, looks on.
async fn change(remote: &Remote, args: &ChangeArgs, goal: Goal) -> Result<ExitCode> {
    let (waived, now) = (args.waive.clone(), args.now.clone());
    let mut wanted = Proposal { waived, now, ..proposal(goal, args.bake) };
    let shown = match remote.plan(&wanted).await? {
        Asked::Done(shown) => shown,
        Asked::Refused(why) => return Ok(refused(&why)),
    };
    if args.dry_run || !args.keeper.json {
        let code = print(&shown, args.keeper.json)?;
        if args.dry_run || code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    if shown.plan.steps.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !agreed(args.yes)? {
        return Ok(ExitCode::from(UNDECIDED));
    }
    wanted.shown = Some(shown.name);
    if let Asked::Refused(why) = remote.arm(&wanted).await? {
        return Ok(refused(&why));
    }
    if args.no_watch {
        println!("armed run-{}; see: evenkeel watch", shown.plan.to);
        return Ok(ExitCode::SUCCESS);
    }
    watching::until_over(remote, args.keeper.json, watching::Wanted::Finished).await
}

/// 3 where a finding blocks.
fn print(shown: &Shown, json: bool) -> Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(shown)?);
    } else {
        print!("{}", show::plan(shown));
    }
    let blocked = shown.findings.iter().any(|finding| finding.blocks);
    Ok(if blocked { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

fn proposal(goal: Goal, bake_seconds: Option<u32>) -> Proposal {
    Proposal { goal, bake_seconds, by: who(), shown: None, waived: Vec::new(), now: None }
}

/// Who sits here, for those who ask later.
pub(super) fn who() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "somebody".to_owned());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}")
}

fn wish(wish: Attention) -> Wish {
    Wish { wish, by: who() }
}

/// Whether the person here wants what was shown.
pub(super) fn agreed(yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to be asked; say --yes");
    }
    eprint!("Do it? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn refused(why: &str) -> ExitCode {
    eprintln!("refused: {why}");
    ExitCode::from(REFUSED)
}

/// The code of how a run stands.
fn code(standing: &Standing) -> ExitCode {
    match standing {
        Standing::Finished | Standing::Returned | Standing::Running { .. } | Standing::Returning { .. } => {
            ExitCode::SUCCESS
        }
        Standing::Paused => super::attention(),
        Standing::Stuck { .. } => ExitCode::from(UNDECIDED),
    }
}
