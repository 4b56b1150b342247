//! The store: commits go down to the engine, facts come back up through the tail, reads are served from memory.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use admit::{Admitted, Batch, Change, Place, Write};
use api::Object;
use base::{Clock, Revision};
use tokio::sync::watch;

use crate::engine::{BATCH_CHANGES_MAX, CommitId, Engine, EngineError, WriteError};
use crate::envelope::{self, EnvelopeError};
use crate::event::Event;
use crate::keyring::Keyring;
use crate::memory::{self, Gone, ListQuery, Memory, Page};
use crate::waiter::{Skipped, Waiter, Waiters};
use crate::watch::Watch;
use crate::{place, splice, tail};

/// How long a commit whose reply was lost waits for its own tail entry before it answers `Unknown`.
const UNKNOWN_WAIT: Duration = Duration::from_secs(5);
/// Sends of one commit that certainly did not happen.
const SETTLED_ATTEMPTS_MAX: usize = 4;
/// How long a read waits until the memory has what the engine acknowledged.
const BARRIER_WAIT: Duration = Duration::from_secs(10);

/// The record of a cluster. Cheap to clone. When the last clone is dropped, its tail ends.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    _tail: Arc<TailGuard>,
}

/// What the store, its tail task and its watchers share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Arc<dyn Clock>,
    keys: RwLock<Keyring>,
    memory: RwLock<Memory>,
    pub(crate) applied: watch::Sender<Revision>,
    waiters: Mutex<Waiters>,
    /// Set when the tail met something it cannot read: writes are refused from then on, reads go on.
    pub(crate) failure: watch::Sender<Option<String>>,
}

/// A commit as the tail applied it.
pub(crate) struct Applied {
    pub(crate) revision: Revision,
    pub(crate) events: Arc<[Arc<Event>]>,
}

struct TailGuard(tokio::task::AbortHandle);

/// An acknowledged commit: durable, and visible to reads and watches of this store.
#[derive(Clone, Debug)]
pub struct Committed {
    pub revision: Revision,
    /// One per change of the batch: the served form of what was put, the last state of what was deleted, `None` for a
    /// guard.
    pub objects: Vec<Option<Arc<Object>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("load the state")]
    Engine(#[from] EngineError),
    #[error("open {place:?}")]
    Envelope {
        place: Place,
        #[source]
        source: EnvelopeError,
    },
    #[error("{place:?} is not an API object")]
    Object {
        place: Place,
        #[source]
        source: api::object::ObjectError,
    },
    #[error("an import into this folder did not finish: restore into an empty one")]
    HalfImported,
    #[error("the system gave no randomness")]
    Randomness,
}

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Something in the batch was not as the request expected. Nothing was written. What was there instead is applied.
    #[error("{place:?} is at {current:?}, not as the request expected")]
    Conflict { place: Place, current: Option<Revision> },
    /// Nothing was written; reads go on, and writes do again when there is room.
    #[error("the disk is full")]
    Full,
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The reply was lost, and the tail did not tell the outcome in time.
    #[error("the outcome of the write is unknown")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{bytes} bytes are more than the {limit} that one object may have")]
    TooLarge { bytes: usize, limit: usize },
    /// A document without a `metadata` object.
    #[error("{place:?} is not an API object")]
    Malformed { place: Place },
    #[error("the store is closed")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("ask the engine for its newest revision")]
    Engine(#[from] EngineError),
    #[error("revision {wanted} did not arrive in time; the newest is {newest}")]
    Timeout { wanted: Revision, newest: Revision },
}

#[derive(Debug, thiserror::Error)]
pub enum ReencryptError {
    #[error("read what is stored")]
    Load(#[from] EngineError),
    #[error("write {place:?} under the newest key")]
    Write {
        place: Place,
        #[source]
        source: WriteError,
    },
    #[error("open {place:?}")]
    Envelope {
        place: Place,
        #[source]
        source: EnvelopeError,
    },
}

// === impl Store ===

impl Store {
    /// Loads everything into memory and starts the tail. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the engine cannot be read or a document does not open.
    pub async fn open(engine: Arc<dyn Engine>, keys: Keyring, clock: Arc<dyn Clock>) -> Result<Store, OpenError> {
        let mut instance = [0; 8];
        aws_lc_rs::rand::fill(&mut instance).map_err(|_| OpenError::Randomness)?;
        let (memory, first) = tail::start(engine.as_ref(), &keys).await?;
        let waiters = Waiters::new(u64::from_le_bytes(instance));
        let shared = Arc::new(Shared {
            engine,
            clock,
            keys: RwLock::new(keys),
            applied: watch::Sender::new(memory.applied),
            memory: RwLock::new(memory),
            waiters: Mutex::new(waiters),
            failure: watch::Sender::new(None),
        });
        let task = tokio::spawn(tail::TailTask::new(shared.clone()).run(first));
        Ok(Store { shared, _tail: Arc::new(TailGuard(task.abort_handle())) })
    }

    /// Commits a batch: returns when it is durable *and* applied here.
    ///
    /// # Errors
    /// Only `Unknown` leaves open whether the batch was written.
    pub async fn commit(&self, admitted: Admitted) -> Result<Committed, CommitError> {
        self.commit_batch(&admitted.into_batch()).await
    }

    pub(crate) async fn commit_batch(&self, batch: &Batch) -> Result<Committed, CommitError> {
        if let Some(failure) = self.shared.failure.borrow().clone() {
            return Err(CommitError::Unavailable(failure.into()));
        }
        for _ in 0..SETTLED_ATTEMPTS_MAX {
            let sealed = self.seal(batch)?;
            let waiter = Waiter::register(&self.shared);
            match self.shared.engine.commit(waiter.id, sealed).await {
                Err(WriteError::Settled(source)) => {
                    if let Some(applied) = self.settled(waiter, source).await? {
                        return Ok(committed(batch, &applied));
                    }
                    // It certainly did not happen: the same again is no second write.
                }
                outcome => return self.outcome(outcome, waiter, batch).await,
            }
        }
        Err(CommitError::Unavailable("the engine loses every write".into()))
    }

    /// What a write whose outcome stands came to; None where it did not happen.
    async fn settled(
        &self,
        waiter: Waiter,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> Result<Option<Applied>, CommitError> {
        match self.read_barrier().await {
            Ok(_) => waiter.found().map_err(|Skipped| CommitError::Unknown(source)),
            Err(error) => match waiter.within(UNKNOWN_WAIT).await {
                Some(applied) => Ok(Some(applied)),
                None => Err(CommitError::Unknown(error.into())),
            },
        }
    }

    /// What a reply of the engine means to the caller.
    async fn outcome(
        &self,
        outcome: Result<Revision, WriteError>,
        waiter: Waiter,
        batch: &Batch,
    ) -> Result<Committed, CommitError> {
        let writes = batch.changes.iter().any(|change| change.write != Write::Keep);
        match outcome {
            Ok(revision) if !writes => {
                let _ = self.wait_for(revision).await;
                Ok(Committed { revision, objects: batch.changes.iter().map(|_| None).collect() })
            }
            Ok(revision) => self.acknowledge(revision, waiter, batch).await,
            Err(WriteError::Unknown(source)) => match waiter.within(UNKNOWN_WAIT).await {
                Some(applied) => Ok(committed(batch, &applied)),
                None => Err(CommitError::Unknown(source)),
            },
            Err(error @ WriteError::Conflict { .. }) => {
                // Who tries again reads what is applied here: without its rival's write the next try fails as well.
                let _ = self.read_barrier().await;
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A revision at least as new as every write acknowledged by anyone before this call, applied here.
    ///
    /// # Errors
    /// When the engine cannot tell, or the tail does not get there in time.
    pub async fn read_barrier(&self) -> Result<Revision, ReadError> {
        let newest = self.shared.engine.read_barrier().await?;
        self.wait_for(newest).await
    }

    /// Waits until a revision is applied here.
    ///
    /// # Errors
    /// When it does not arrive in time.
    pub async fn wait_for(&self, wanted: Revision) -> Result<Revision, ReadError> {
        let mut applied = self.shared.applied.subscribe();
        let arrived = applied.wait_for(|applied| wanted <= *applied);
        match tokio::time::timeout(BARRIER_WAIT, arrived).await {
            Ok(Ok(revision)) => Ok(*revision),
            Ok(Err(_)) | Err(_) => Err(ReadError::Timeout { wanted, newest: self.revision() }),
        }
    }

    /// The newest applied revision.
    pub fn revision(&self) -> Revision {
        self.shared.memory().applied
    }

    /// Why the store refuses writes, if it does.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.borrow().clone()
    }

    /// The served form of one object.
    pub fn get(&self, place: &Place) -> Option<Arc<Object>> {
        self.shared.memory().find(&place.storage, &place.key).cloned()
    }

    /// A consistent list, also of the past as far as the history reaches.
    ///
    /// # Errors
    /// When `query.at` is older than the history.
    pub fn list(&self, storage: &str, query: &ListQuery<'_>) -> Result<Page, Gone> {
        let (map, revision) = self.shared.memory().state_at(storage, query.at)?;
        Ok(memory::page(&map, revision, query))
    }

    /// The changes of a storage after a revision. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When `after` is older than the history.
    pub fn watch(&self, storage: &str, after: Revision) -> Result<Watch, Gone> {
        Watch::start(self.shared.clone(), storage, after)
    }

    /// How many objects each storage holds; for metrics.
    pub fn counts(&self) -> Vec<(base::SmolStr, usize)> {
        let memory = self.shared.memory();
        memory.collections().map(|(storage, collection)| (storage.clone(), collection.live.len())).collect()
    }

    /// Uses another keyring from now on. It must hold every key that stored values still need.
    pub fn set_keyring(&self, keys: Keyring) {
        *self.shared.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Writes every value anew that is not in the form the keyring gives it now; returns how many. Safe to repeat, safe
    /// to run while the cluster works: a value that changed meanwhile is under the newest key already.
    ///
    /// # Errors
    /// At the first value that cannot be read or written; what was written stays.
    pub async fn reencrypt(&self) -> Result<usize, ReencryptError> {
        let keys = self.shared.keys();
        let mut load = self.shared.engine.load().await?;
        let mut stale = Vec::new();
        while let Some(rows) = load.rows.recv().await {
            for row in rows? {
                let opened = envelope::open(&keys, &row.place, &row.value)
                    .map_err(|source| ReencryptError::Envelope { place: row.place.clone(), source })?;
                let wanted = keys.sealing_key(&row.place.storage).map_or(0, |(id, _)| id);
                if opened.key_id != wanted {
                    stale.push((row, opened));
                }
            }
        }
        let mut count = 0;
        for (row, opened) in stale {
            let value = envelope::seal(&keys, &row.place, &opened.document, opened.offset);
            let expect = admit::Expect::At(row.revision);
            let change = Change { place: row.place.clone(), expect, write: Write::Put(value) };
            let id = self.shared.waiters().next_id();
            match self.shared.engine.commit(id, Batch { changes: vec![change] }).await {
                Ok(_) => count += 1,
                Err(WriteError::Conflict { .. }) => {}
                Err(source) => return Err(ReencryptError::Write { place: row.place, source }),
            }
        }
        Ok(count)
    }

    /// The batch as the engine keeps it.
    fn seal(&self, batch: &Batch) -> Result<Batch, CommitError> {
        let limit = base::limits::OBJECT_BYTES_MAX;
        if BATCH_CHANGES_MAX < batch.changes.len() {
            return Err(CommitError::TooLarge { bytes: batch.changes.len(), limit: BATCH_CHANGES_MAX });
        }
        let keys = self.shared.keys();
        let seal = |change: &Change| {
            let write = match &change.write {
                Write::Put(bytes) if limit < bytes.len() => {
                    return Err(CommitError::TooLarge { bytes: bytes.len(), limit });
                }
                Write::Put(bytes) => {
                    let offset = offset_of(&change.place, bytes)?;
                    Write::Put(envelope::seal(&keys, &change.place, bytes, offset))
                }
                Write::Delete => Write::Delete,
                Write::Keep => Write::Keep,
            };
            Ok(Change { place: change.place.clone(), expect: change.expect, write })
        };
        Ok(Batch { changes: batch.changes.iter().map(seal).collect::<Result<_, _>>()? })
    }

    /// Waits for the tail entry of a commit that the engine acknowledged.
    async fn acknowledge(&self, revision: Revision, waiter: Waiter, batch: &Batch) -> Result<Committed, CommitError> {
        if let Some(applied) = waiter.within(BARRIER_WAIT).await {
            return Ok(committed(batch, &applied));
        }
        // The tail started anew from a load that already had this commit: the load shows it.
        self.wait_for(revision).await.map_err(|error| CommitError::Unknown(error.into()))?;
        let objects = batch.changes.iter().map(|change| match &change.write {
            Write::Put(document) => {
                tail::served(&change.place, revision, document, offset_of(&change.place, document).ok()?).ok()
            }
            Write::Delete | Write::Keep => None,
        });
        Ok(Committed { revision, objects: objects.collect() })
    }
}

impl Drop for TailGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn offset_of(place: &Place, document: &[u8]) -> Result<Option<usize>, CommitError> {
    if place::is_claim(&place.storage) {
        return Ok(None);
    }
    match splice::metadata_offset(document) {
        Some(offset) => Ok(Some(offset)),
        None => Err(CommitError::Malformed { place: place.clone() }),
    }
}

fn committed(batch: &Batch, applied: &Applied) -> Committed {
    let object = |change: &Change| {
        let event = applied.events.iter().find(|event| event.place == change.place)?;
        event.next.clone().or_else(|| event.deleted.clone())
    };
    let objects = batch.changes.iter().map(|change| match change.write {
        Write::Keep => None,
        Write::Put(_) | Write::Delete => object(change),
    });
    Committed { revision: applied.revision, objects: objects.collect() }
}

// === impl Shared ===

impl Shared {
    // A panic while a lock is held is a bug that ends the tail; readers keep serving what was applied.
    pub(crate) fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn memory_mut(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keys(&self) -> Keyring {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn waiters(&self) -> std::sync::MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the committer of an entry, if it is ours and still waits.
    pub(crate) fn resolve(&self, id: CommitId, applied: Applied) {
        let waiter = self.waiters().take(id);
        if let Some(waiter) = waiter {
            let _ = waiter.send(applied);
        }
    }

    /// Lets every committer look for itself: the tail skipped what it had.
    pub(crate) fn release_waiters(&self) {
        self.waiters().clear();
    }
}

impl From<WriteError> for CommitError {
    fn from(error: WriteError) -> CommitError {
        match error {
            WriteError::Conflict { place, current } => CommitError::Conflict { place, current },
            WriteError::Full => CommitError::Full,
            WriteError::TooLarge => {
                let limit = base::limits::OBJECT_BYTES_MAX;
                CommitError::TooLarge { bytes: limit + 1, limit }
            }
            WriteError::Unavailable(source) => CommitError::Unavailable(source),
            WriteError::Unknown(source) | WriteError::Settled(source) => CommitError::Unknown(source),
            WriteError::Closed => CommitError::Closed,
        }
    }
}
