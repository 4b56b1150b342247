//! Flags of what looks after this machine: its images and containers, its unit, its end.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Common;

#[derive(Debug, Args)]
pub struct ImagesArgs {
    #[command(flatten)]
    pub common: Common,
    /// Use this CRI socket
    #[arg(long, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    #[command(subcommand)]
    pub command: ImagesCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// List images
    Ls,
    /// Pull images
    Pull {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Import image tarballs
    Import {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Remove images
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    pub common: Common,
    /// Use this CRI socket
    #[arg(long, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    /// Also those that have ended
    #[arg(long, short = 'a')]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub common: Common,
    /// Stop pods and containerd too, and remove their network
    #[arg(long)]
    pub pods: bool,
}

#[derive(Debug, Args)]
pub struct KubectlArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    pub common: Common,
    /// server or agent
    #[arg(long, default_value = "server")]
    pub role: String,
    /// Print the unit instead of installing it
    #[arg(long)]
    pub print: bool,
    /// Folder of unit files
    #[arg(long, default_value = "/etc/systemd/system", value_name = "PATH", hide = true)]
    pub unit_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    pub common: Common,
    /// Remove the data folder: all state, all keys, all local volumes
    #[arg(long)]
    pub data: bool,
    #[arg(long, default_value = "/etc/systemd/system", value_name = "PATH", hide = true)]
    pub unit_dir: PathBuf,
}

// === impl Common ===
