//! Flags of what only looks: what drifted, what differs, how things are done here, who can get in.

use clap::{Args, Subcommand};

use super::AskArgs;

#[derive(Clone, Debug, Args)]
pub struct DriftArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    /// Also what is not managed and came after the node joined: units, cron, packages, rules of others; and what is over
    #[arg(long)]
    pub all: bool,
    /// Only this node
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    #[arg(value_name = "NODE")]
    pub one: String,
    #[arg(value_name = "NODE")]
    pub other: String,
}

#[derive(Clone, Debug, Args)]
pub struct AccessArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    #[command(subcommand)]
    pub command: Option<AccessCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum AccessCommand {
    /// Take a way in away: token/ID, machine/NODE or binding/NAME, as the list names it
    Revoke {
        #[arg(value_name = "KIND/NAME")]
        what: String,
        /// Say what would be taken away, and take nothing
        #[arg(long)]
        dry_run: bool,
    },
}
