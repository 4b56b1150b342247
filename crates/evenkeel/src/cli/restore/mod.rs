//! `evenkeel restore`: a bundle into an empty data folder. The cluster goes on with its keys, and its revisions never go
//! backwards.
//!
//! The keys are unpacked beside their place and put there at the end. Until then their folder marks the restore as not
//! ended: no server starts from half of one, and running it again takes over.

mod source;
mod told;

pub use source::Source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base::Clock;

use self::told::Told;
use super::args::{DatastoreArgs, RestoreArgs};
use super::backup::passphrase;
use crate::layout::Layout;
use crate::pki::{self, Access, Opener};
use crate::wire;
use crate::wire::backup::bundle::Bundle;

pub async fn run(args: RestoreArgs) -> Result<()> {
    let layout = args.common.layout();
    if args.prune {
        return super::ghosts::silent(&layout, args.yes).await;
    }
    let name = args.bundle.as_ref().or(args.file.as_ref()).context("name the bundle")?;
    let bundle = Source::of(name, &args.s3)?.bundle().await?;
    if args.show {
        println!("{}", serde_json::to_string_pretty(&bundle.manifest)?);
        return Ok(());
    }
    // What does not open or is newer is told before anything is looked at or made.
    let newest = store::SNAPSHOT_FORMAT;
    let format = bundle.manifest.snapshot_format;
    ensure!(format <= newest, "the state in {name} has format {format}; this program reads {newest}: take a newer one");
    let keys = bundle
        .keys(&opener(args.secret_file.as_deref(), args.passphrase_file.as_deref())?)
        .with_context(|| name.clone())?;
    ensure_empty(&layout)?;
    if args.dry_run {
        return Told::of(&bundle.manifest, &layout).print(args.json);
    }
    let _lock = store::DataLock::acquire(&layout.server()).context("stop the server first")?;
    let summary = fill(&bundle, &keys, &layout, &args.datastore).await?;
    Told::of(&bundle.manifest, &layout).done(summary).print(args.json)
}

/// Puts everything in its place, or leaves the folder as empty as before.
async fn fill(
    bundle: &Bundle,
    keys: &BTreeMap<PathBuf, Vec<u8>>,
    layout: &Layout,
    datastore: &DatastoreArgs,
) -> Result<store::Summary> {
    let staging = layout.restoring();
    clear(layout)?;
    fs::create_dir_all(&staging).with_context(|| format!("create {}", staging.display()))?;
    let summary = match unpack(bundle, keys, layout, datastore).await {
        Ok(summary) => summary,
        Err(failure) => {
            clear(layout)?;
            return Err(failure);
        }
    };
    layout.make().with_context(|| format!("prepare {}", layout.data.display()))?;
    if datastore.datastore_endpoint.is_none() {
        wire::recover::note_restored(layout).context("note that the other servers join anew")?;
    }
    let restored =
        wire::facts::Restored { to: bundle.manifest.created.clone(), when: wire::SystemClock.now().to_string() };
    let text = serde_json::to_string(&restored).expect("plain data");
    pki::write(&layout.restored(), text.as_bytes(), Access::Secret)?;
    put(&staging, &layout.data).context("put the files in place")?;
    fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    Ok(summary)
}

/// What opens a bundle's keys, from a file.
pub fn opener(secret: Option<&Path>, phrase: Option<&Path>) -> Result<Opener> {
    match (secret, phrase) {
        (Some(file), None) => {
            let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            Ok(Opener::secret(&text)?)
        }
        (None, Some(file)) => passphrase(file),
        _ => bail!("say what opens the keys: --secret-file or --passphrase-file"),
    }
}

/// A state or an authority in the folder is somebody's cluster, unless a restore left it.
fn ensure_empty(layout: &Layout) -> Result<()> {
    if layout.restoring().exists() {
        return Ok(());
    }
    for taken in [layout.database(), layout.etcd(), layout.server_tls(), layout.agent_tls()] {
        ensure!(!taken.exists(), "{} is there already; restore into an empty folder", taken.display());
    }
    Ok(())
}

/// Removes what a restore that did not end has left.
fn clear(layout: &Layout) -> Result<()> {
    let staging = layout.restoring();
    if !staging.exists() {
        return Ok(());
    }
    let database = layout.database();
    // The marker goes last.
    for folder in database.parent().into_iter().chain([staging.as_path()]).filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

/// The keys, beside their place, and the state, into its file or the etcd that was named.
async fn unpack(
    bundle: &Bundle,
    keys: &BTreeMap<PathBuf, Vec<u8>>,
    layout: &Layout,
    datastore: &DatastoreArgs,
) -> Result<store::Summary> {
    for (name, content) in keys {
        let access = if name.extension().is_some_and(|end| end == "crt") { Access::Public } else { Access::Secret };
        pki::write(&layout.restoring().join(name), content, access)?;
    }
    let engine = wire::engine(datastore, layout).await?;
    store::import(&*engine, bundle.snapshot.as_slice()).await.context("fill the state")
}

/// Moves every file below one folder to the same place below another.
fn put(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let source = entry?.path();
        let target = to.join(source.file_name().unwrap_or_default());
        if source.is_dir() {
            put(&source, &target)?;
        } else {
            fs::rename(&source, &target).with_context(|| format!("move to {}", target.display()))?;
        }
    }
    fs::File::open(to).and_then(|folder| folder.sync_all()).with_context(|| format!("sync {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::{ensure_empty, put, run};
    use crate::cli::args::{Cli, Command};
    use crate::layout::Layout;
    use crate::wire;
    use clap::Parser;
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    async fn restore(bundle: &str, data: &Path, more: &[&str]) -> anyhow::Result<()> {
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
        let file = testdata.join(bundle).display().to_string();
        let (secret, data) = (format!("{file}.secret"), data.display().to_string());
        let words = [&["evenkeel", "restore", &file, "--secret-file", &secret, "--data-dir", &data], more].concat();
        let Command::Restore(args) = Cli::try_parse_from(words)?.command else { unreachable!("it is a restore") };
        run(args).await
    }

    /// Bundles that earlier versions wrote; must restore for ever.
    #[tokio::test]
    async fn the_bundle_of_every_format_restores() {
        let folder = tempfile::tempdir().unwrap();
        restore("bundle.v2", folder.path(), &["--dry-run"]).await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a dry run makes nothing");
        restore("bundle.v2", folder.path(), &[]).await.unwrap();
        let layout = Layout::new(folder.path());
        let engine = store::sqlite::open(&layout.database()).unwrap();
        let clock = Arc::new(wire::SystemClock);
        let store = store::Store::open(engine, wire::keyring(&layout).unwrap(), clock).await.unwrap();
        assert_eq!(store.export(std::io::sink()).unwrap().records, 6);
        assert!(store.export(std::io::sink()).unwrap().revision.0 > 188 + store::RESTORE_LEAP - 1);
        assert!(layout.server_tls().join("server-ca.key").exists() && !layout.restoring().exists());
        let again = restore("bundle.v2", folder.path(), &[]).await.unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
    }

    #[test]
    fn files_are_put_where_they_belong() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("server/tls")).unwrap();
        fs::create_dir_all(to.join("server/tls")).unwrap();
        fs::write(from.join("server/tls/a.crt"), "new").unwrap();
        fs::write(to.join("server/tls/a.crt"), "half").unwrap();
        fs::write(to.join("server/lock"), "").unwrap();
        put(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("server/tls/a.crt")).unwrap(), "new");
        assert!(to.join("server/lock").exists() && !from.join("server/tls/a.crt").exists());
    }

    #[test]
    fn a_folder_with_a_cluster_is_refused_and_half_a_restore_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        ensure_empty(&layout).unwrap();
        fs::create_dir_all(layout.server_tls()).unwrap();
        assert!(ensure_empty(&layout).unwrap_err().to_string().contains("is there already"));
        fs::create_dir_all(layout.restoring()).unwrap();
        ensure_empty(&layout).unwrap();
    }
}
