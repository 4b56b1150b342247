//! Flags of what keeps the cluster's state: backups, restores, and where the state is.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Common, DatastoreArgs};
use crate::cli::backup::S3Flags;

#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    /// Write the bundle into this file, instead of where the server keeps its backups
    #[arg(long, short = 'f', value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Seal the keys in that file to this recipient as well; may be given several times
    #[arg(long, value_name = "RECIPIENT", value_delimiter = ',', requires = "file")]
    pub recipient: Vec<String>,
    /// Seal them with the passphrase in this file as well
    #[arg(long, value_name = "PATH", requires = "file")]
    pub passphrase_file: Option<PathBuf>,
    /// Say what would be kept and where, and write nothing
    #[arg(long, conflicts_with = "new_recipient")]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "new_recipient")]
    pub json: bool,
    /// Make a recipient and its secret key, print both, and do nothing else
    #[arg(long)]
    pub new_recipient: bool,
}

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// What `etcd-snapshot save` is in k3s: the same as without a word
    #[command(hide = true)]
    Save,
    /// List the backups in every target, and whether each was proven
    #[command(alias = "ls")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Restore a backup where it can touch nothing, and check it
    Prove(ProveArgs),
    /// Write out what an application kept by its hook, as it gave it
    Extract(ExtractArgs),
    /// The recovery kit, which opens every backup
    Kit(KitArgs),
}

#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Name out of the list, or a file [default: the newest]
    #[arg(value_name = "BUNDLE")]
    pub bundle: Option<String>,
    /// File with the secret that opens a bundle in a file [default: this cluster's own]
    #[arg(long, value_name = "PATH")]
    pub secret_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// The bundle it lies beside: a file, or https://ENDPOINT/BUCKET/PREFIX/NAME of an S3-compatible store
    #[arg(value_name = "BUNDLE")]
    pub bundle: String,
    /// The application
    #[arg(value_name = "NAMESPACE/NAME")]
    pub app: String,
    /// File with a secret key that opens the bundle: a recipient's, or the recovery kit
    #[arg(long, value_name = "PATH", conflicts_with = "passphrase_file")]
    pub secret_file: Option<PathBuf>,
    /// File with the passphrase
    #[arg(long, value_name = "PATH")]
    pub passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub s3: S3Flags,
}

#[derive(Debug, Args)]
pub struct KitArgs {
    /// Draw another kit; backups made before open with the one before
    #[arg(long)]
    pub rotate: bool,
    /// Check that a copy of the kit opens the backups of this cluster
    #[arg(long, value_name = "PATH", conflicts_with = "rotate")]
    pub check: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ScratchArgs {
    #[arg(long)]
    pub bundle: PathBuf,
    #[arg(long)]
    pub secret_file: PathBuf,
    #[arg(long)]
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub common: Common,
    /// Bundle to restore: a file, or https://ENDPOINT/BUCKET/PREFIX/NAME of an S3-compatible store
    #[arg(value_name = "BUNDLE", required_unless_present_any = ["file", "prune"])]
    pub bundle: Option<String>,
    /// The same, by a flag
    #[arg(long, short = 'f', value_name = "PATH", conflicts_with = "bundle")]
    pub file: Option<String>,
    /// File with a secret key that opens it: a recipient's, or the recovery kit
    #[arg(long, value_name = "PATH", conflicts_with = "passphrase_file")]
    pub secret_file: Option<PathBuf>,
    /// File with the passphrase
    #[arg(long, value_name = "PATH")]
    pub passphrase_file: Option<PathBuf>,
    /// Only print what the bundle says of itself
    #[arg(long)]
    pub show: bool,
    /// Check the bundle, its keys and the folder, say what a restore would bring back, and write nothing
    #[arg(long, conflicts_with = "prune")]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "prune")]
    pub json: bool,
    /// On the restored, running server: list nodes that did not come back, and remove them after asking
    #[arg(long, conflicts_with_all = ["bundle", "file"])]
    pub prune: bool,
    /// Do not ask
    #[arg(long, requires = "prune")]
    pub yes: bool,
    #[command(flatten)]
    pub s3: S3Flags,
    #[command(flatten)]
    pub datastore: DatastoreArgs,
}

#[derive(Debug, Args)]
pub struct DatastoreCommandArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: DatastoreCommand,
}

#[derive(Debug, Subcommand)]
pub enum DatastoreCommand {
    /// Say where the state is
    Show,
    /// Move the state from its file into an etcd of this server's own: pods go on, the API is away for some seconds
    Convert,
}
