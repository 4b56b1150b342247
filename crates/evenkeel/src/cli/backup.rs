//! `evenkeel backup`: from the running server where there is one, else from the data folder itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base::Clock;

use super::args::BackupArgs;
use super::bundle::{self, FORMAT, Manifest};
use crate::layout::Layout;
use crate::pki::{self, Access, Opener, hash_of_ca};
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
    let openers = openers(&args)?;
    let path = args.file.as_deref().context("--file names the bundle")?;
    let snapshot = match store::DataLock::acquire(&layout.server()) {
        Ok(lock) => offline(&layout, &lock).await?,
        Err(store::LockError::Held { .. }) => admin::snapshot(&layout).await.context("ask the running server")?,
        Err(error) => return Err(error.into()),
    };
    let manifest = write(&layout, path, openers, &snapshot)?;
    println!("wrote {}: {} objects at revision {}", path.display(), manifest.objects, manifest.revision);
    println!("the keys in it open with: {}", manifest.opens_with.join("; "));
    println!("not in it: {}", manifest.not_included.join("; "));
    Ok(())
}

/// Who can open the keys, and how the manifest names them.
fn openers(args: &BackupArgs) -> Result<(Vec<Opener>, Vec<String>)> {
    let recipients: Result<Vec<Opener>, _> = args.recipient.iter().map(|text| Opener::recipient(text)).collect();
    let (mut openers, mut names) = (recipients?, args.recipient.clone());
    if let Some(file) = &args.passphrase_file {
        openers.push(passphrase(file)?);
        names.push("a passphrase".to_owned());
    }
    if openers.is_empty() {
        bail!("say who can open the keys: --recipient (make one with --new-recipient) or --passphrase-file");
    }
    Ok((openers, names))
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
    anyhow::ensure!(
        database.exists(),
        "there is no state in a file below {}; where it is in an etcd, the server must run",
        layout.data.display()
    );
    let engine = store::sqlite::open(&database).context("open the state")?;
    let store = store::Store::open(engine, keyring(layout)?, Arc::new(SystemClock)).await.context("read the state")?;
    let mut bytes = Vec::new();
    let summary = store.export(&mut bytes)?;
    Ok(Snapshot { revision: summary.revision.0, objects: summary.records, bytes })
}

fn write(
    layout: &Layout,
    path: &Path,
    (openers, opens_with): (Vec<Opener>, Vec<String>),
    snapshot: &Snapshot,
) -> Result<Manifest> {
    let ca = pki::read(&layout.server_tls().join("server-ca.crt"))?.context("this machine has no authority")?;
    let files = bundle::key_files(layout)?;
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        created: SystemClock.now().to_string(),
        cluster: hash_of_ca(&ca),
        revision: snapshot.revision,
        objects: snapshot.objects,
        members: BTreeMap::new(),
        opens_with,
        included: INCLUDED.map(str::to_owned).to_vec(),
        keys: files.iter().map(|file| file.display().to_string()).collect(),
        not_included: NOT_INCLUDED.map(str::to_owned).to_vec(),
    };
    let (manifest, whole) = bundle::seal(manifest, &openers, &layout.data, &files, &snapshot.bytes)?;
    pki::write(path, &whole, Access::Secret)?;
    Ok(manifest)
}

const INCLUDED: [&str; 3] = [
    "every object of the cluster, Secrets encrypted",
    "the authorities, the signing keys and the encryption keys",
    "join tokens and the names of nodes",
];
const NOT_INCLUDED: [&str; 5] = [
    "the content of volumes",
    "container images",
    "logs of containers and the audit log",
    "the configuration file and registries.yaml",
    "the files of server/manifests",
];
