//! `evenkeel backup` itself: a bundle where the server keeps its own, or in a file.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;

use super::{list, passphrase};
use crate::cli::args::BackupArgs;
use crate::cli::output::bytes;
use crate::layout::Layout;
use crate::pki::{self, Access};
use crate::wire::backup::bundle::Manifest;
use crate::wire::backup::make::{Openers, make};
use crate::wire::backup::{BACKUP_PATH, Status};
use crate::wire::{SystemClock, admin, keyring};

/// The running server makes one and stores it where it stores all.
pub async fn to_the_targets(layout: &Layout, json: bool) -> Result<()> {
    let asked = "ask the running server; without one, name a file with --file";
    let answer = admin::ask(layout, http::Method::POST, BACKUP_PATH).await.context(asked)?;
    let Some(body) = answer.done()? else {
        eprintln!("the backup takes a while and goes on; see: evenkeel backup list");
        if json {
            println!("{}", json!({"goesOn": true}));
        }
        return Ok(());
    };
    let status: Status = serde_json::from_slice(&body).context("read the server's answer")?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
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

/// Where it would store one.
pub async fn where_to(layout: &Layout, json: bool) -> Result<()> {
    let listings = list::listings(layout).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&listings)?);
        return Ok(());
    }
    for listing in &listings {
        match &listing.error {
            Some(error) => println!("{}: cannot be read: {error}", listing.target),
            None => println!("{}: would be kept there, beside {} bundles", listing.target, listing.bundles.len()),
        }
    }
    Ok(())
}

/// A bundle in a file, of the running server or of a folder that none serves.
pub async fn into_file(layout: &Layout, args: &BackupArgs, path: &Path) -> Result<()> {
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
    if !args.dry_run {
        pki::write(path, &made.bytes, Access::Secret)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&made.manifest)?);
    } else {
        tell(&made.manifest, path, args.dry_run);
    }
    Ok(())
}

fn tell(manifest: &Manifest, path: &Path, dry_run: bool) {
    let did = if dry_run { "would write" } else { "wrote" };
    println!("{did} {}: {} objects at revision {}", path.display(), manifest.objects, manifest.revision);
    println!("the keys in it open with: {}", manifest.opens_with.join("; "));
    println!("not in it: {}", manifest.not_included.join("; "));
    for volume in &manifest.volumes {
        println!("not in it: {}", volume.sentence());
    }
    for missing in &manifest.missing {
        println!("missing on this machine, and so in the bundle: {missing}");
    }
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
