//! `evenkeel backup`: make a bundle, list what there is, prove one, and the recovery kit.

mod extract;
mod flags;
mod kit;
mod list;
mod make;
mod prove;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::args::{BackupArgs, BackupCommand};
use crate::pki::{self, Opener};

pub use flags::{BackupFlags, S3Flags};
pub use prove::scratch;

pub async fn run(args: BackupArgs) -> Result<()> {
    let layout = args.common.layout();
    match &args.command {
        Some(BackupCommand::List { json }) => return list::run(&layout, *json).await,
        Some(BackupCommand::Prove(asked)) => return prove::run(&layout, asked).await,
        Some(BackupCommand::Extract(asked)) => return extract::run(asked).await,
        Some(BackupCommand::Kit(asked)) => return kit::run(&layout, asked),
        Some(BackupCommand::Save) | None => {}
    }
    if args.new_recipient {
        let (public, secret) = pki::recipient()?;
        println!(
            "recipient: {public}\nsecret:    {secret}\n\nKeep the secret off this cluster; without it no bundle opens."
        );
        return Ok(());
    }
    match &args.file {
        Some(file) => make::into_file(&layout, &args, file).await,
        None if args.dry_run => make::where_to(&layout, args.json).await,
        None => make::to_the_targets(&layout, args.json).await,
    }
}

pub fn passphrase(file: &Path) -> Result<Opener> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!text.is_empty(), "{} is empty", file.display());
    Ok(Opener::Passphrase(text.to_owned()))
}
