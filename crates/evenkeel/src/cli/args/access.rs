//! Flags of what lets people and machines in: kubeconfigs, tokens, certificates.

use clap::{Args, Subcommand};
use jiff::SignedDuration;

use super::Common;
use super::values::span_or_ever;

#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    #[command(flatten)]
    pub common: Common,
    /// Address of the API server to write into it: for a laptop
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Name of the cluster, the user and the context
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it once
    Create {
        /// How long it lasts, as 24h or 30m; 0 for ever
        #[arg(long, default_value = "24h", value_name = "SPAN", value_parser = span_or_ever)]
        ttl: SignedDuration,
        /// agent or server
        #[arg(long, default_value = "agent")]
        role: String,
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List tokens, without their secrets
    List,
    /// Delete a token by its id
    Delete { id: String },
}

#[derive(Debug, Args)]
pub struct CertificateArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: CertificateCommand,
}

#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// List certificates with their ends and renewals
    Check,
    /// Give the cluster new authorities, step by step, while everything runs
    RotateCa(RotateArgs),
}

#[derive(Debug, Args)]
pub struct RotateArgs {
    #[command(subcommand)]
    pub command: Option<RotateCommand>,
    /// End it: from then on only the new authorities hold
    #[arg(long)]
    pub finish: bool,
    /// With it, or later: tokens of service accounts that the key before signed hold no longer either, in pods too
    #[arg(long, requires = "finish")]
    pub end_tokens: bool,
    /// Say what would be done, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum RotateCommand {
    /// How far it is, and who has not come along
    Status,
    /// Wait before the next step
    Pause,
    /// Go on
    Resume,
}

#[derive(Debug, Args)]
pub struct SecretsArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: SecretsCommand,
}

#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// Which key Secrets are under, and how far a change of it is
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back what `rotate` began, as long as no server encrypts with the new key
    Cancel,
    /// Draw another key, write every Secret anew under it, and let the one before go
    #[command(alias = "rotate-keys")]
    Rotate {
        /// Say what would be done, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
