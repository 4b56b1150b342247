//! The state moves from its file into a managed etcd, at the start of a server: because it was asked for, or because the
//! server begins with `--cluster-init`.
//!
//! Until the founding of the member is on the disk, the file is the state and what a try left of an etcd is thrown away;
//! from then on the etcd is, and the file is only put aside. So a crash at any point leaves the one or the other.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use base::{Chain, Clock};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::external;
use super::managed::{Managed, Running, Settings, discard};
use super::member::{self, Files};
use crate::cli::DatastoreArgs;
use crate::layout::Layout;
use crate::pki;
use crate::wire::SystemClock;
use crate::wire::restart::Restart;

/// The endings of a database in its file.
const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];

/// A conversion that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub asked: String,
    /// Why it did not come about; the state is in its file as before.
    #[serde(default)]
    pub failed: Option<String>,
}

/// Where a server's state is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Datastore {
    pub engine: EngineKind,
    /// A conversion under way or failed.
    #[serde(default)]
    pub conversion: Option<Intent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    Sqlite,
    ManagedEtcd,
    ExternalEtcd,
}

#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("the state is in a managed etcd already")]
    Done,
    #[error("the state is in an etcd that somebody else runs (--datastore-endpoint)")]
    External,
    #[error("this machine cannot run etcd")]
    Machine(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("note the conversion")]
    Note(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The engine of a server, and its own member where that is what it is.
pub struct Opened {
    pub engine: Arc<dyn store::Engine>,
    pub etcd: Option<Running>,
    pub kind: EngineKind,
}

/// Opens the state of a server wherever it is, after it has moved where it should.
pub async fn open(datastore: &DatastoreArgs, cluster_init: bool, settings: Settings) -> Result<Opened> {
    let layout = settings.layout.clone();
    if let Some(endpoints) = &datastore.datastore_endpoint {
        ensure!(
            !Managed::found(&layout),
            "this server's state is in its own etcd below {}; leave out --datastore-endpoint",
            layout.etcd().display()
        );
        let engine = external::connect(datastore, endpoints).await?;
        return Ok(Opened { engine, etcd: None, kind: EngineKind::ExternalEtcd });
    }
    if let Some(etcd) = member_of(cluster_init, settings).await? {
        etcd.0.serves().await;
        let engine = store::etcd::connect(etcd.0.config())?;
        return Ok(Opened { engine, etcd: Some(etcd), kind: EngineKind::ManagedEtcd });
    }
    let engine = crate::wire::engine(datastore, &layout).await?;
    Ok(Opened { engine, etcd: None, kind: EngineKind::Sqlite })
}

/// The member that holds the state, if it is to be in one.
async fn member_of(cluster_init: bool, settings: Settings) -> Result<Option<Running>> {
    let layout = settings.layout.clone();
    if Managed::found(&layout) {
        put_aside(&layout).context("put the old state aside")?;
        return Managed::resume(settings).await.map(Some);
    }
    if cluster_init {
        return convert(settings).await.context("--cluster-init").map(Some);
    }
    match Intent::read(&layout)? {
        Some(intent) if intent.failed.is_none() => {}
        _ => {
            // What a try left that nobody asks for any more.
            discard(&layout).await?;
            return Ok(None);
        }
    }
    match convert(settings).await {
        Ok(running) => Ok(Some(running)),
        // The founding alone decides.
        Err(failure) if Managed::found(&layout) => Err(failure),
        Err(failure) => {
            let text = Chain(failure.as_ref()).to_string();
            error!(error = %text, "the state was not moved into etcd; going on with its file");
            Intent { failed: Some(text), ..Intent::new() }.write(&layout)?;
            discard(&layout).await?;
            Ok(None)
        }
    }
}

async fn convert(settings: Settings) -> Result<Running> {
    let layout = settings.layout.clone();
    let (running, founding) = Managed::begin(settings).await?;
    running.0.serves().await;
    if layout.database().exists() {
        let from = store::sqlite::open(&layout.database()).context("open the state")?;
        let to = store::etcd::connect(running.0.config())?;
        let moved = store::transfer(&*from, &*to).await.context("move the state into etcd")?;
        let documents: u64 = moved.counts.values().sum();
        info!(documents, revision = %moved.revision, "the state is in etcd");
    }
    founding.write(&layout)?;
    put_aside(&layout).context("put the old state aside")?;
    Ok(running)
}

/// What a machine needs for a member, looked at before anything is stopped for it; then the request itself.
pub fn request_conversion(settings: &Settings, kind: EngineKind, restart: &Restart) -> Result<(), ConvertError> {
    match kind {
        EngineKind::ManagedEtcd => return Err(ConvertError::Done),
        EngineKind::ExternalEtcd => return Err(ConvertError::External),
        EngineKind::Sqlite => {}
    }
    member::check_machine(settings.address()).map_err(|failure| ConvertError::Machine(failure.into()))?;
    Intent::new().write(&settings.layout).map_err(|failure| ConvertError::Note(failure.into()))?;
    info!("asked to move the state into etcd: starting again");
    restart.request();
    Ok(())
}

/// The file of a state that is in etcd now: kept, read-only, with the time in its name.
fn put_aside(layout: &Layout) -> Result<()> {
    let database = layout.database();
    if database.exists() {
        let aside = aside(&database, &founded(layout)?.strftime("%Y%m%dT%H%M%SZ").to_string());
        // The file itself goes last: until then this is done again, to the same names. Its log may be here no more: the
        // engine that read it is closing.
        for ending in ENDINGS.iter().rev() {
            let (from, to) = (with(&database, ending), with(&aside, ending));
            let moved = fs::set_permissions(&from, Permissions::from_mode(0o400)).and_then(|()| fs::rename(&from, &to));
            match moved {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                moved => moved.with_context(|| format!("move to {}", to.display()))?,
            }
        }
        info!(kept = %aside.display(), "the file of the state before is kept");
    }
    Intent::remove(layout)?;
    let folder = database.parent().unwrap_or(Path::new("/"));
    Ok(fs::File::open(folder)?.sync_all()?)
}

/// When the etcd became the state.
fn founded(layout: &Layout) -> Result<Timestamp> {
    let changed = fs::metadata(Files::new(layout).founding())?.modified()?;
    Ok(Timestamp::try_from(changed)?)
}

fn aside(database: &Path, time: &str) -> PathBuf {
    with(database, &format!(".before-etcd-{time}"))
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

// === impl Intent ===

impl Intent {
    pub fn new() -> Intent {
        Intent { asked: SystemClock.now().to_string(), failed: None }
    }

    pub fn read(layout: &Layout) -> Result<Option<Intent>> {
        let path = layout.convert_intent();
        let Some(text) = pki::read(&path)? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?))
    }

    pub fn write(&self, layout: &Layout) -> Result<()> {
        let text = serde_json::to_string(self)?;
        Ok(pki::write(&layout.convert_intent(), text.as_bytes(), pki::Access::Secret)?)
    }

    fn remove(layout: &Layout) -> Result<()> {
        match fs::remove_file(layout.convert_intent()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// What contradicts itself on the command line.
pub fn check_flags(datastore: &DatastoreArgs, cluster_init: bool) -> Result<()> {
    if cluster_init && let Some(endpoint) = &datastore.datastore_endpoint {
        bail!(
            "--cluster-init begins an etcd of this server's own and --datastore-endpoint {endpoint} names another; one of them"
        );
    }
    Ok(())
}
