//! Flags of what changes the cluster as a whole: its program, and who belongs to it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::SignedDuration;

use super::Common;
use super::values::{seconds, span};

/// Flags of every command that asks the cluster.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    #[command(flatten)]
    pub common: Common,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Kubeconfig to use instead of this machine's own
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}

/// Flags of every command that changes what the cluster is.
#[derive(Clone, Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub keeper: AskArgs,
    /// Show the plan, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// How long each changed node is watched before the next, as 10s, 3m, 1h [default: 10m for the first, then 3m]
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    pub bake: Option<u32>,
    /// Arm and return: the run goes on by itself
    #[arg(long)]
    pub no_watch: bool,
    /// Go on in spite of a finding that stands in the way, by its code
    #[arg(long, value_name = "CODE")]
    pub waive: Vec<String>,
    /// Do not wait for a maintenance window, and why
    #[arg(long, value_name = "REASON")]
    pub now: Option<String>,
}

/// Flags of what is asked of an open run.
#[derive(Clone, Debug, Args)]
pub struct WishArgs {
    #[command(flatten)]
    pub keeper: AskArgs,
    /// Say what would be asked of which run, and ask nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Where programs come from.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// Folder or https address of releases, each VERSION/manifest.json and VERSION/evenkeel
    #[arg(long, value_name = "PATH|URL")]
    pub release_source: Option<String>,
    /// Signed manifest of a program that is named by its path
    #[arg(long, value_name = "PATH")]
    pub manifest: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    pub change: ChangeArgs,
    /// The program that all nodes are to run: a file, or a version of the release source
    #[arg(long, value_name = "PATH|VERSION")]
    pub to: String,
    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub change: ChangeArgs,
    /// The cluster file
    #[arg(value_name = "FILE", required_unless_present = "show")]
    pub file: Option<PathBuf>,
    /// Print the cluster file of what is declared now, to begin with
    #[arg(long)]
    pub show: bool,
    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Debug, Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    pub keeper: AskArgs,
    #[command(subcommand)]
    pub command: ReleaseCommand,
}

#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// The keys whose owners may make programs for this cluster
    Keys,
    /// Have the cluster run only programs that are signed with this key, or with another one it trusts
    Trust {
        /// Ed25519 public key, in base64
        file: PathBuf,
        /// What the key is called here [default: the file's name]
        #[arg(long)]
        name: Option<String>,
    },
    /// Trust a key no more
    Distrust { name: String },
}

#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub keeper: AskArgs,
    /// Plan the way to this program, instead of showing the newest run
    #[arg(long, value_name = "PATH|VERSION", group = "goal")]
    pub to: Option<String>,
    /// Plan the way to what this cluster file says
    #[arg(long, short = 'f', value_name = "FILE", group = "goal")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// How long each changed node is watched before the next, as 10s, 3m, 1h
    #[arg(long, value_name = "SPAN", value_parser = seconds, requires = "goal")]
    pub bake: Option<u32>,
}

#[derive(Clone, Debug, Args)]
pub struct JournalArgs {
    #[command(flatten)]
    pub keeper: AskArgs,
    /// Read this machine's own copy: nothing needs to run
    #[arg(long)]
    pub from_disk: bool,
    /// A run other than the newest; only with --from-disk
    #[arg(long, value_name = "NAME", requires = "from_disk")]
    pub run: Option<String>,
}

#[derive(Debug, Args)]
pub struct KeeperWatchArgs {
    #[arg(long, short = 'd', value_name = "PATH")]
    pub data_dir: PathBuf,
    /// Already nobody's child
    #[arg(long)]
    pub detached: bool,
    /// Of the program that is looked at
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub struct KeeperRehearseArgs {
    /// Of the program that would be started
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: RecoverCommand,
}

#[derive(Debug, Subcommand)]
pub enum RecoverCommand {
    /// Most servers are gone for good: have this one go on alone, with what it has. Without a code it only says what would be
    Quorum {
        /// The code that the first call printed
        #[arg(long, value_name = "CODE")]
        confirm: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Servers that were given up and have not joined anew: list their nodes, and with the printed code remove them
    Ghosts {
        /// The code that the first call printed
        #[arg(long, value_name = "CODE")]
        confirm: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct ReplaceArgs {
    #[command(flatten)]
    pub common: Common,
    /// The node whose machine is replaced
    pub node: String,
    /// The old machine is off for certain: its name once more, where it cannot be seen from here
    #[arg(long, value_name = "NODE")]
    pub fenced: Option<String>,
    /// How long to wait for the new machine; the same command again goes on
    #[arg(long, default_value = "30m", value_name = "SPAN", value_parser = span)]
    pub timeout: SignedDuration,
    /// Print the command for the new machine and do not wait for it
    #[arg(long)]
    pub no_wait: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the scorecard as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LeaveArgs {
    #[command(flatten)]
    pub common: Common,
    /// How long to wait for pods to end
    #[arg(long, default_value = "10m", value_name = "SPAN", value_parser = span)]
    pub timeout: SignedDuration,
    /// Ask no cluster: this machine was removed from one, or the cluster is gone
    #[arg(long)]
    pub local: bool,
}

#[derive(Debug, Args)]
pub struct NodeCommandArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Take a node out of the cluster: its pods end, its machine is let in no more
    Remove {
        name: String,
        /// How long to wait for pods to end
        #[arg(long, default_value = "10m", value_name = "SPAN", value_parser = span)]
        timeout: SignedDuration,
        /// Do not wait for its pods
        #[arg(long)]
        now: bool,
    },
}
