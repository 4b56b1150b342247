//! `evenkeel backup`: make a bundle, list what there is, prove one, and the recovery kit.

mod extract;
mod flags;
mod kit;
mod list;
mod prove;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::args::{BackupArgs, BackupCommand};
use super::output::bytes;
use crate::layout::Layout;
use crate::pki::{self, Access, Opener};
use crate::wire::backup::contents::Volume;
use crate::wire::backup::make::{Openers, make};
use crate::wire::backup::{BACKUP_PATH, Status};
use crate::wire::{SystemClock, admin, keyring};

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
        Some(file) => into_file(&layout, &args, file).await,
        None => to_the_targets(&layout).await,
    }
}

/// The running server makes one and stores it where it stores all.
async fn to_the_targets(layout: &Layout) -> Result<()> {
    let asked = "ask the running server; without one, name a file with --file";
    let answer = admin::ask(layout, http::Method::POST, BACKUP_PATH).await.context(asked)?;
    let Some(body) = answer.done()? else {
        println!("the backup takes a while and goes on; see: evenkeel backup list");
        return Ok(());
    };
    let status: Status = serde_json::from_slice(&body).context("read the server's answer")?;
    if let Some(last) = &status.last_bundle {
        println!("made {}: {} objects at revision {}", last.name, last.size.objects, last.revision);
    }
    for target in &status.targets {
        println!("{}: {}", target.name, target.error.as_deref().unwrap_or("kept and read back"));
    }
    for app in &status.apps {
        println!(
            "{}: {}",
            app.name,
            app.error.clone().unwrap_or_else(|| format!("{} kept beside it", bytes(app.bytes)))
        );
    }
    for finding in &status.findings {
        println!("{}: {}; {}", finding.code, finding.sentence, finding.advice);
    }
    Ok(())
}

async fn into_file(layout: &Layout, args: &BackupArgs, path: &Path) -> Result<()> {
    let mut openers = Openers::recipients(&args.recipient)?;
    if let Some(file) = &args.passphrase_file {
        openers.add(passphrase(file)?, "a passphrase".to_owned());
    }
    let snapshot = match store::DataLock::acquire(&layout.server()) {
        Ok(lock) => offline(layout, &lock).await?,
        Err(store::LockError::Held { .. }) => admin::snapshot(layout).await.context("ask the running server")?,
        Err(error) => return Err(error.into()),
    };
    let made = make(layout, &openers.with_standing(layout)?, &snapshot)?;
    pki::write(path, &made.bytes, Access::Secret)?;
    let manifest = &made.manifest;
    println!("wrote {}: {} objects at revision {}", path.display(), manifest.objects, manifest.revision);
    println!("the keys in it open with: {}", manifest.opens_with.join("; "));
    println!("not in it: {}", manifest.not_included.join("; "));
    for volume in &manifest.volumes {
        println!("not in it: {}", Volume::sentence(volume));
    }
    for missing in &manifest.missing {
        println!("missing on this machine, and so in the bundle: {missing}");
    }
    Ok(())
}

pub fn passphrase(file: &Path) -> Result<Opener> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!text.is_empty(), "{} is empty", file.display());
    Ok(Opener::Passphrase(text.to_owned()))
}

async fn offline(layout: &Layout, _lock: &store::DataLock) -> Result<Vec<u8>> {
    let database = layout.database();
    anyhow::ensure!(
        database.exists(),
        "there is no state in a file below {}; where it is in an etcd, the server must run",
        layout.data.display()
    );
    let engine = store::sqlite::open(&database).context("open the state")?;
    let store = store::Store::open(engine, keyring(layout)?, Arc::new(SystemClock)).await.context("read the state")?;
    let mut bytes = Vec::new();
    store.export(&mut bytes)?;
    Ok(bytes)
}
