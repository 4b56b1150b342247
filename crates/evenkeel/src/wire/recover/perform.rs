//! The recovery itself: the member's data is kept as it was, then it is made a cluster of one whose revisions begin beyond
//! all that anybody has seen.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use base::{Chain, Revision};
use store::RESTORE_LEAP;
use tracing::{error, info};

use super::copy::{clear, copy};
use super::forced::Forced;
use super::note::Note;
use crate::layout::Layout;
use crate::wire::etcd::{self, Managed, Settings};

/// What a start of the server does first, and the command where none runs; the caller holds the data folder's lock. One that
/// fails leaves everything as it was: the server waits for the others as before.
pub async fn take_up(settings: &Settings) -> Result<()> {
    if !matches!(Note::read(&settings.layout)?, Some(Note::Asked { .. })) {
        return Ok(());
    }
    if let Err(failure) = perform(settings).await {
        let why = Chain(failure.as_ref()).to_string();
        error!(error = %why, "the quorum was not recovered");
        Note::Failed { why }.write(&settings.layout)?;
    }
    Ok(())
}

/// Does what was asked for.
async fn perform(settings: &Settings) -> Result<()> {
    let layout = &settings.layout;
    let Some(Note::Asked { at, aside }) = Note::read(layout)? else { return Ok(()) };
    etcd::stop(layout).await?;
    let kept = layout.server().join("db").join(aside);
    keep(layout, &kept).context("keep the data as it was")?;
    if let Err(failure) = force(settings).await {
        put_back(layout, &kept).with_context(|| format!("the data as it was is in {}", kept.display()))?;
        return Err(failure);
    }
    Note::Alone { why: format!("the quorum was recovered on {} at {at}", settings.name) }.write(layout)?;
    info!(kept = %kept.display(), "this server goes on alone");
    Ok(())
}

/// Makes the member its cluster's only one. Again is the same, but for another leap.
async fn force(settings: &Settings) -> Result<()> {
    let layout = &settings.layout;
    let forced = Forced::start(settings, &Managed::data(layout), &layout.server().join("db/recovery.log")).await?;
    let engine = store::etcd::connect(forced.config.clone())?;
    let seen = engine.read_barrier().await.context("read the newest revision")?;
    // The others may have committed, and clients seen, what this member never had.
    engine.leap(Revision(seen.0.saturating_add(RESTORE_LEAP))).await.context("leap beyond it")?;
    forced.end().await?;
    Managed::found_alone(settings)
}

/// As it was before the failure. The copy stays.
fn put_back(layout: &Layout, kept: &Path) -> Result<()> {
    clear(&layout.etcd())?;
    copy(kept, &layout.etcd())
}

/// A copy beside the data, under its last name only once it is whole.
fn keep(layout: &Layout, kept: &Path) -> Result<()> {
    if kept.exists() {
        return Ok(());
    }
    let partial = kept.with_extension("partial");
    clear(&partial)?;
    if let Err(failure) = copy(&layout.etcd(), &partial) {
        // Half a copy would take the room that the state needs.
        clear(&partial)?;
        return Err(failure);
    }
    fs::rename(&partial, kept).with_context(|| format!("name {}", kept.display()))?;
    let folder = kept.parent().unwrap_or(Path::new("/"));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("sync {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::take_up;
    use crate::layout::Layout;
    use crate::pki::{ServerPki, leaf};
    use crate::wire::SystemClock;
    use crate::wire::etcd::{Managed, Settings};
    use crate::wire::recover::Note;
    use base::Clock;
    use std::fs;
    use std::sync::Arc;

    /// etcd cannot read this: what the machine has is as it was, and the server is told why.
    #[tokio::test]
    async fn a_recovery_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.make().unwrap();
        let pki = Arc::new(ServerPki::load_or_make(&layout, leaf::LEAF_LIFE, SystemClock.now()).unwrap());
        let addresses = vec!["127.0.0.1".parse().unwrap()];
        let settings = Settings { layout: layout.clone(), name: "a".to_owned(), addresses, pki, arguments: Vec::new() };
        take_up(&settings).await.unwrap();
        assert!(Note::read(&layout).unwrap().is_none(), "nothing was asked for");
        Managed::found_alone(&settings).unwrap();
        let wal = Managed::data(&layout).join("member/wal/0000000000000000-0000000000000000.wal");
        fs::create_dir_all(wal.parent().unwrap()).unwrap();
        fs::write(&wal, "no log").unwrap();
        let note = Note::ask();
        note.write(&layout).unwrap();
        take_up(&settings).await.unwrap();
        let Some(Note::Failed { why }) = Note::read(&layout).unwrap() else { panic!("it cannot come about") };
        assert!(why.contains("etcd does not start from this data"), "{why}");
        assert_eq!(fs::read_to_string(&wal).unwrap(), "no log");
        let Note::Asked { aside, .. } = note else { unreachable!("it was asked for") };
        assert!(layout.server().join("db").join(aside).join("data/member/wal").is_dir());
    }
}
