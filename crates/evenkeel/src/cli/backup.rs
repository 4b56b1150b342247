//! `evenkeel backup`: from the running server where there is one, else from the data folder itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base::Clock;

use super::args::BackupArgs;
use super::bundle::{self, FORMAT, KEYS, MANIFEST, Manifest, SNAPSHOT};
use crate::layout::Layout;
use crate::pki::{self, Access, Opener, hash_of_ca, seal_to, sha256_hex};
use crate::wire::{SystemClock, admin, keyring};

pub async fn run(args: BackupArgs) -> Result<()> {
    if args.new_recipient {
        let (public, secret) = pki::recipient()?;
        println!(
            "recipient: {public}\nsecret:    {secret}\n\nKeep the secret off this cluster; without it no bundle opens."
        );
        return Ok(());
    }
    let layout = args.common.layout();
    let opener = opener(&args)?;
    let path = args.file.as_deref().context("--file names the bundle")?;
    let snapshot = match store::DataLock::acquire(&layout.server()) {
        Ok(lock) => offline(&layout, &lock).await?,
        Err(store::LockError::Held { .. }) => admin::snapshot(&layout).await.context("ask the running server")?,
        Err(error) => return Err(error.into()),
    };
    let manifest = write(&layout, path, &opener, &snapshot)?;
    println!("wrote {}: {} objects at revision {}", path.display(), manifest.objects, manifest.revision);
    println!("keys are sealed to {}", if args.recipient.is_some() { "the recipient" } else { "the passphrase" });
    println!("not in it: {}", manifest.not_included.join("; "));
    Ok(())
}

fn opener(args: &BackupArgs) -> Result<Opener> {
    match (&args.recipient, &args.passphrase_file) {
        (Some(recipient), None) => Ok(Opener::recipient(recipient)?),
        (None, Some(file)) => passphrase(file),
        _ => bail!("say who can open the keys: --recipient (make one with --new-recipient) or --passphrase-file"),
    }
}

pub fn passphrase(file: &Path) -> Result<Opener> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!text.is_empty(), "{} is empty", file.display());
    Ok(Opener::Passphrase(text.to_owned()))
}

/// A snapshot with its place on the line of revisions.
pub struct Snapshot {
    pub revision: u64,
    pub objects: u64,
    pub bytes: Vec<u8>,
}

async fn offline(layout: &Layout, _lock: &store::DataLock) -> Result<Snapshot> {
    let database = layout.database();
    anyhow::ensure!(database.exists(), "there is no state below {}", layout.data.display());
    let engine = store::sqlite::open(&database).context("open the state")?;
    let store = store::Store::open(engine, keyring(layout)?, Arc::new(SystemClock)).await.context("read the state")?;
    let mut bytes = Vec::new();
    let summary = store.export(&mut bytes)?;
    Ok(Snapshot { revision: summary.revision.0, objects: summary.records, bytes })
}

fn write(layout: &Layout, path: &Path, opener: &Opener, snapshot: &Snapshot) -> Result<Manifest> {
    let files = bundle::key_files(layout)?;
    let keys = seal_to(opener, &bundle::pack(&layout.data, &files)?)?;
    let ca = pki::read(&layout.server_tls().join("server-ca.crt"))?.context("this machine has no authority")?;
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        created: SystemClock.now().to_string(),
        cluster: hash_of_ca(&ca),
        revision: snapshot.revision,
        objects: snapshot.objects,
        members: BTreeMap::from([
            (SNAPSHOT.to_owned(), sha256_hex(&snapshot.bytes)),
            (KEYS.to_owned(), sha256_hex(&keys)),
        ]),
        keys: files.iter().map(|file| file.display().to_string()).collect(),
        not_included: ["volumes of pods", "container images", "container logs", "the configuration file"]
            .map(str::to_owned)
            .to_vec(),
    };
    let mut builder = tar::Builder::new(Vec::new());
    bundle::append(&mut builder, MANIFEST, 0o644, serde_json::to_string_pretty(&manifest)?.as_bytes())?;
    bundle::append(&mut builder, SNAPSHOT, 0o600, &snapshot.bytes)?;
    bundle::append(&mut builder, KEYS, 0o600, &keys)?;
    let mut whole = builder.into_inner()?;
    whole.flush()?;
    pki::write(path, &whole, Access::Secret)?;
    Ok(manifest)
}
