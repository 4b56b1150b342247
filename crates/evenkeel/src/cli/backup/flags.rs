//! The server's flags about backups. k3s users find the names of its snapshots as aliases.

use std::path::PathBuf;

use clap::Args;
use jiff::SignedDuration;
use keeper::backup::Schedule;

#[derive(Clone, Debug, Args)]
pub struct BackupFlags {
    /// How often a backup is made: 6h, a cron line in UTC, or off
    #[arg(long, default_value = "6h", value_name = "SCHEDULE", alias = "etcd-snapshot-schedule-cron")]
    pub backup_schedule: Schedule,
    /// How often the newest backup is restored for a proof: 7d, a cron line in UTC, or off
    #[arg(long, default_value = "7d", value_name = "SCHEDULE")]
    pub backup_prove_schedule: Schedule,
    /// Newest backups that each target keeps; the last proven one stays in any case
    #[arg(long, default_value_t = 12, value_name = "COUNT", alias = "etcd-snapshot-retention")]
    pub backup_retention: usize,
    /// Keep those beyond them too until they are so old, as 30d
    #[arg(long, value_name = "SPAN", value_parser = crate::cli::args::span)]
    pub backup_retention_age: Option<SignedDuration>,
    /// Folder for backups, best on a second disk [default: DATA-DIR/backups]
    #[arg(long, value_name = "PATH", alias = "etcd-snapshot-dir")]
    pub backup_dir: Option<PathBuf>,
    /// Seal the keys in backups to this recipient as well; may be given several times
    #[arg(long, value_name = "RECIPIENT", value_delimiter = ',')]
    pub backup_recipient: Vec<String>,
    /// Keep backups in an S3-compatible store too: https://ENDPOINT/BUCKET/PREFIX
    #[arg(long, value_name = "URL")]
    pub backup_s3: Option<String>,
    #[command(flatten)]
    pub s3: S3Flags,
}

/// How an S3-compatible store is reached.
#[derive(Clone, Debug, Args)]
pub struct S3Flags {
    /// File with aws_access_key_id, aws_secret_access_key and region [default: the AWS_... environment]
    #[arg(long, value_name = "PATH")]
    pub backup_s3_credentials: Option<PathBuf>,
    /// CA of the store [default: the system's]
    #[arg(long, value_name = "PATH")]
    pub backup_s3_ca: Option<PathBuf>,
}
