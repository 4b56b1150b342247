//! Every command and flag, in one place. A flag's name is also its key in the configuration file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod access;
mod change;
mod keeping;
mod look;
mod machine;
mod run;
mod values;

pub use access::{
    CertificateArgs, CertificateCommand, KubeconfigArgs, RotateArgs, RotateCommand, SecretsArgs, SecretsCommand,
    TokenArgs, TokenCommand,
};
pub use change::{
    ApplyArgs, AskArgs, ChangeArgs, JournalArgs, KeeperRehearseArgs, KeeperWatchArgs, LeaveArgs, NodeCommand,
    NodeCommandArgs, PlanArgs, RecoverArgs, RecoverCommand, ReleaseArgs, ReleaseCommand, ReplaceArgs, SourceArgs,
    UpgradeArgs, WishArgs,
};
pub use keeping::{
    BackupArgs, BackupCommand, DatastoreCommand, DatastoreCommandArgs, ExtractArgs, KitArgs, ProveArgs, RestoreArgs,
    ScratchArgs,
};
pub use look::{AccessArgs, AccessCommand, CompareArgs, DriftArgs};
pub use machine::{ImagesArgs, ImagesCommand, InstallArgs, KubectlArgs, PsArgs, StopArgs, UninstallArgs};
pub use run::{AgentArgs, DatastoreArgs, NamesArgs, NodeArgs, ServerArgs};
pub use values::span;

use crate::config::CONFIG;
use crate::layout::{DATA, Layout};

/// Kubernetes for small teams on bare metal.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about, args_override_self = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine: API, control plane and node
    Server(ServerArgs),
    /// Run a node that joins a server
    Agent(AgentArgs),
    /// What runs, what is wrong, and what to do about it
    Status(AskArgs),
    /// The cause of what is wrong, and one next command
    Wrong(WrongArgs),
    /// What was changed by hand: where, since when, who was logged in
    Drift(DriftArgs),
    /// What is declared against what runs, node by node
    Diff(AskArgs),
    /// Where configuration lives, how changes roll out, how nodes come back
    Explain(AskArgs),
    /// Who and what can get in; take ways in away
    Access(AccessArgs),
    /// In what two nodes differ
    Compare(CompareArgs),
    /// Look for what would keep a server or node from working on this machine
    CheckConfig(ServerArgs),
    /// Make a backup of this cluster's state and keys now; list and prove those there are
    #[command(alias = "etcd-snapshot")]
    Backup(BackupArgs),
    /// Restore a bundle into an empty data folder
    Restore(RestoreArgs),
    /// Go on after servers were lost for good
    Recover(RecoverArgs),
    /// Put a new machine in the place of a lost node, step by step, with a scorecard
    Replace(ReplaceArgs),
    /// Where this server's state is; move it into an etcd that more servers can join
    Datastore(DatastoreCommandArgs),
    /// Have every node be what the cluster file says, one at a time
    Apply(ApplyArgs),
    /// Bring all nodes to another program, one at a time
    Upgrade(UpgradeArgs),
    /// Whose programs this cluster runs
    Release(ReleaseArgs),
    /// Bring all nodes back to what ran before
    Back(ChangeArgs),
    /// Let what is stored take its new form; after that there is no way back but a restore
    Finalise(ChangeArgs),
    /// Have the open run wait where no node is half done
    Pause(WishArgs),
    /// Have the open run go on; what failed is tried again
    Resume(WishArgs),
    /// Look on until the open run is over or needs somebody
    Watch(AskArgs),
    /// What a run does, in order
    Plan(PlanArgs),
    /// What was intended and what came of it
    Journal(JournalArgs),
    /// Look on while another program is on trial: started by the node
    #[command(hide = true)]
    KeeperWatch(KeeperWatchArgs),
    /// Say whether this program would start with other settings: started by the node
    #[command(hide = true)]
    KeeperRehearse(KeeperRehearseArgs),
    /// Print a kubeconfig
    Kubeconfig(KubeconfigArgs),
    /// Tokens for machines that join
    Token(TokenArgs),
    /// Take this machine out of its cluster
    Leave(LeaveArgs),
    /// The cluster's nodes
    Node(NodeCommandArgs),
    /// The cluster's certificates
    Certificate(CertificateArgs),
    /// The key that encrypts Secrets at rest
    SecretsEncrypt(SecretsArgs),
    /// Container images on this machine
    Images(ImagesArgs),
    /// Containers on this machine
    Ps(PsArgs),
    /// Stop the program on this machine, and with --pods everything it started
    Stop(StopArgs),
    /// Serve the cluster's names: started and adopted by the node
    #[command(hide = true)]
    Names(NamesArgs),
    /// Restore a bundle into a scratch control plane and report: started for a proof
    #[command(hide = true)]
    Scratch(ScratchArgs),
    /// Try a few small writes in a folder and say how they went: started by `wrong`
    #[command(hide = true)]
    DiskProbe { folder: PathBuf },
    /// Run the kubectl of this machine against this cluster
    #[command(disable_help_flag = true)]
    Kubectl(KubectlArgs),
    /// Print the version
    Version(VersionArgs),
    /// Print a completion script
    Completion { shell: clap_complete::Shell },
    /// Install a systemd unit for this program
    Install(InstallArgs),
    /// Stop and remove what `install` made; --data removes the data folder as well
    Uninstall(UninstallArgs),
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Folder of all state
    #[arg(long, short = 'd', global = true, default_value = DATA, value_name = "PATH")]
    pub data_dir: PathBuf,
    /// Configuration file; PATH.d/*.yaml is read after it
    #[arg(long, short = 'c', global = true, default_value = CONFIG, value_name = "PATH")]
    pub config: PathBuf,
    /// Log more
    #[arg(long, global = true)]
    pub debug: bool,
}

#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WrongArgs {
    #[command(flatten)]
    pub common: Common,
    /// Five lines, for a phone
    #[arg(long, conflicts_with = "json")]
    pub short: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Kubeconfig to use instead of this machine's own
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}

impl Common {
    pub fn layout(&self) -> Layout {
        Layout::new(&self.data_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
