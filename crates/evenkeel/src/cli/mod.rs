//! The command line: parse, then one file per command.

mod access;
mod args;
pub mod backup;
mod certificate;
mod check;
mod compare;
mod datastore;
mod diff;
mod drift;
mod explain;
mod follow;
mod ghosts;
mod images;
mod install;
mod keeper;
mod kubeconfig;
mod kubectl;
mod leave;
mod output;
mod recover;
mod replace;
mod restore;
mod rotate;
mod secrets;
mod status;
mod stop;
mod token;
mod wrong;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use ::keeper::Settings;
use anyhow::{Result, anyhow, bail};
use clap::{CommandFactory, FromArgMatches, Parser};
use tracing::warn;

pub use args::{AgentArgs, Cli, Command, DatastoreArgs, NodeArgs, ServerArgs};
pub use backup::BackupFlags;

use crate::config::{self, Flags, Merged, Values};
use crate::layout::{DATA, Layout};
use crate::wire;

/// Commands that take their words as they are: neither environment nor files add to them.
const OWN_WORDS: [&str; 6] =
    ["kubectl", "names", "scratch", "keeper-watch", wire::keeper::rehearse::COMMAND, wire::facts::PROBE_COMMAND];

/// Parses the command line, together with the environment and the files where the command runs the program.
pub fn parse() -> Result<(Cli, Vec<String>)> {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let merged = merged(words, &environment, None)?;
    let matches = Cli::command().get_matches_from(&merged.args);
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))?;
    Ok((cli, merged.warnings))
}

/// What a server or an agent would run with if it were started with these words, and the cluster file said this of it.
pub fn started(words: &[String], settings: &Settings) -> Result<Command> {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let given = config::given(words, &environment);
    if let Some((key, _)) = settings.iter().find(|(key, _)| given.contains(key.trim_end_matches('+'))) {
        bail!("{key} is given on this machine's command line or in its environment, which win: take it away there");
    }
    let words = std::iter::once("evenkeel".to_owned()).chain(words.iter().cloned()).collect();
    let merged = merged(words, &environment, Some(settings))?;
    let parsed = Cli::try_parse_from(&merged.args);
    let cli = parsed.map_err(|error| anyhow!("{}", error.to_string().lines().next().unwrap_or_default().to_owned()))?;
    Ok(cli.command)
}

/// `settings`: what the cluster file says, where that is not what was noted on this machine.
fn merged(words: Vec<String>, environment: &BTreeMap<String, String>, settings: Option<&Settings>) -> Result<Merged> {
    let name = words.get(1).map(String::as_str).unwrap_or_default();
    let command = Cli::command();
    let Some(sub) = command.find_subcommand(name).filter(|sub| !OWN_WORDS.contains(&sub.get_name())) else {
        return Ok(Merged { args: words, warnings: Vec::new() });
    };
    let mut flags = Flags { own: flags_of(sub), others: all_flags(&command) };
    let user = &words[2..];
    let path = flag(user, "config", "-c").or_else(|| flag_in(environment)).unwrap_or_else(|| config::CONFIG.to_owned());
    let mut files = match config::read_files(path.as_ref()) {
        // That the file is not usable is one of the things it tells.
        Err(_) if name == "wrong" => BTreeMap::new(),
        read => read?,
    };
    let runs = matches!(name, "server" | "agent" | "check-config");
    if !runs {
        // Other commands share a few settings with the program; what they do not have is not their business. Two words
        // mean something else there.
        flags.own.remove("server");
    }
    let merge = |mut files: Values| {
        if !runs {
            files.retain(|key, _| flags.own.contains_key(key) && key != "server" && key != "token");
        }
        config::merge(&words[..2], user, environment, &files, &flags)
    };
    let merged = merge(files.clone())?;
    let settings = match settings {
        Some(settings) => Ok(settings.clone()),
        None => noted(&merged.args),
    };
    let settings = match settings {
        // Whoever only asks may not be allowed to read it.
        Err(_) if !runs => return Ok(merged),
        settings => settings?,
    };
    if settings.is_empty() {
        return Ok(merged);
    }
    config::overlay(&mut files, &settings)?;
    Ok(merge(files)?)
}

/// What the cluster file says of this machine, as it is noted in the data folder that these words name.
fn noted(args: &[String]) -> Result<Settings> {
    let data = flag(args, "data-dir", "-d").unwrap_or_else(|| DATA.to_owned());
    wire::keeper::Home::new(&Layout::new(data)).settings_in_force()
}

/// Whether a server or an agent would start with this file.
pub fn check_file(role: &str, path: &Path) -> Result<()> {
    let words = ["evenkeel".to_owned(), role.to_owned(), format!("--config={}", path.display())];
    merged(words.to_vec(), &BTreeMap::new(), Some(&Settings::default())).map(drop)
}

/// The long flags of a command with their aliases, and whether each takes a value.
fn flags_of(command: &clap::Command) -> BTreeMap<String, bool> {
    let mut flags = BTreeMap::new();
    for arg in command.get_arguments() {
        let names = arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default());
        flags.extend(names.map(|name| (name.to_owned(), arg.get_action().takes_values())));
    }
    flags
}

fn all_flags(command: &clap::Command) -> BTreeSet<String> {
    let below = command.get_subcommands().flat_map(all_flags);
    flags_of(command).into_keys().chain(below).collect()
}

fn flag(words: &[String], name: &str, short: &str) -> Option<String> {
    let long = format!("--{name}");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == long || word == short {
            return words.next().cloned();
        }
        if let Some(value) = word.strip_prefix(&long).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}

fn flag_in(environment: &BTreeMap<String, String>) -> Option<String> {
    ["EVENKEEL_CONFIG", "EVENKEEL_CONFIG_FILE", "K3S_CONFIG_FILE"]
        .iter()
        .find_map(|name| environment.get(*name).cloned())
}

/// Runs a parsed command to its end. An error is exit code 1; commands that judge have a code for "needs attention".
pub async fn run(cli: Cli, warnings: Vec<String>) -> Result<ExitCode> {
    for warning in warnings {
        warn!("{warning}");
    }
    match cli.command {
        Command::Status(args) => return status::run(args).await,
        Command::Wrong(args) => return wrong::run(args).await,
        Command::Drift(args) => return drift::run(args).await,
        Command::Diff(args) => return diff::run(args).await,
        Command::Explain(args) => return explain::run(args).await,
        Command::Access(args) => return access::run(args).await,
        Command::Compare(args) => return compare::run(args).await,
        Command::Certificate(args) => return certificate::run(&args).await,
        Command::SecretsEncrypt(args) => return secrets::run(&args).await,
        Command::CheckConfig(args) => return Ok(check::run(&args)),
        Command::Apply(args) => return keeper::apply(args).await,
        Command::Upgrade(args) => return keeper::upgrade(args).await,
        Command::Release(args) => return keeper::release(args).await,
        Command::Back(args) => return keeper::back(args).await,
        Command::Finalise(args) => return keeper::finalise(args).await,
        Command::Pause(args) => return keeper::pause(args).await,
        Command::Resume(args) => return keeper::resume(args).await,
        Command::Watch(args) => return keeper::watch(args).await,
        Command::Plan(args) => return keeper::plan(args).await,
        Command::Journal(args) => return keeper::journal(args).await,
        Command::KeeperWatch(args) => {
            wire::keeper::watch::run(Layout::new(args.data_dir), args.detached, args.args).await
        }
        Command::KeeperRehearse(args) => wire::keeper::rehearse::answer(&args.args),
        Command::Recover(args) => return recover::run(args).await,
        Command::Replace(args) => return replace::run(args).await,
        Command::Server(args) => wire::server::run(args).await,
        Command::Agent(args) => wire::agent::run(args).await,
        Command::Backup(args) => backup::run(args).await,
        Command::Scratch(args) => backup::scratch(args).await,
        Command::DiskProbe { folder } => {
            wire::facts::tell_disk(&folder);
            Ok(())
        }
        Command::Restore(args) => restore::run(args).await,
        Command::Datastore(args) => datastore::run(args).await,
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Token(args) => token::run(&args).await,
        Command::Leave(args) => leave::run(args).await,
        Command::Node(args) => leave::node(args).await,
        Command::Images(args) => images::run(args).await,
        Command::Ps(args) => images::ps(args).await,
        Command::Stop(args) => stop::run(args).await,
        Command::Names(args) => wire::names::run(&args.settings).await,
        Command::Kubectl(args) => kubectl::run(&args),
        Command::Version(args) if args.json => {
            println!("{}", serde_json::to_string(&wire::keeper::About::own())?);
            Ok(())
        }
        Command::Version(_) => {
            println!("evenkeel {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), crate::KUBERNETES_VERSION);
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "evenkeel", &mut std::io::stdout());
            Ok(())
        }
        Command::Install(args) => install::install(&args),
        Command::Uninstall(args) => install::uninstall(args).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

/// What was asked for is refused, and nothing was changed.
fn refused() -> ExitCode {
    ExitCode::from(3)
}

/// Nothing failed, and yet somebody should look.
fn attention() -> ExitCode {
    ExitCode::from(2)
}
