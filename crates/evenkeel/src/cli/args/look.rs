//! Flags of what only looks.

use clap::Args;

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
