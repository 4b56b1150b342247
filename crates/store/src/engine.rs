//! The port to a durable engine, shaped for etcd: what is hard there (lost replies, compaction, a reply before the event)
//! is part of the contract here, so that the embedded engine cannot teach the store habits that etcd would break.
//!
//! Engines speak wire revisions: an engine that numbers its writes itself adds its epoch base at its own edge.

use std::collections::BTreeMap;

use admit::{Batch, Place};
use async_trait::async_trait;
use base::{Revision, SmolStr};
use bytes::Bytes;
use tokio::sync::mpsc;

/// Most changes of one batch: etcd refuses a transaction of more than 128 operations by default.
pub const BATCH_CHANGES_MAX: usize = 120;

/// Names one commit attempt, so that its outcome can be found in the tail when the reply was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(pub u128);

/// A durable, ordered key-value record.
///
/// Contract, held by the suite in `tests/`:
/// - a commit is atomic: every expectation holds, then every write happens at one new revision;
/// - nothing is acknowledged or tailed before it is durable;
/// - the tail has every commit after its start, once, in order of revisions;
/// - a batch without writes (guards only) makes no revision and no entry.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Everything alive at one revision. `tail(load.revision)` continues it without a gap.
    async fn load(&self) -> Result<Load, EngineError>;

    /// Commits a batch whose values are opaque bytes.
    async fn commit(&self, id: CommitId, batch: Batch) -> Result<Revision, WriteError>;

    /// A revision at least as new as every commit acknowledged, by anyone, before this call.
    async fn read_barrier(&self) -> Result<Revision, EngineError>;

    /// The commits after `after`.
    async fn tail(&self, after: Revision) -> Result<Tail, TailError>;

    /// Forgets the history up to `through`; what is alive stays.
    async fn compact(&self, through: Revision) -> Result<(), EngineError>;

    /// Makes every later revision greater than `beyond`. Only for an engine that no store has open.
    async fn leap(&self, beyond: Revision) -> Result<(), EngineError>;
}

/// A consistent state of the engine, in chunks.
pub struct Load {
    pub revision: Revision,
    /// Storages known not to have changed after an older revision than `revision`.
    pub floors: BTreeMap<SmolStr, Revision>,
    pub rows: mpsc::Receiver<Result<Vec<Row>, EngineError>>,
}

/// One live document as the engine keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub place: Place,
    pub revision: Revision,
    pub value: Bytes,
}

/// One commit as the tail tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub revision: Revision,
    pub id: CommitId,
    /// In the order of the batch, without its guards.
    pub changes: Vec<EntryChange>,
}

/// One place written by a commit; no value is a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryChange {
    pub place: Place,
    pub value: Option<Bytes>,
}

/// The commits after a revision, in groups. Ends with an error or, when the engine is closed, with `None`.
pub struct Tail(pub mpsc::Receiver<Result<Vec<Entry>, TailError>>);

impl Tail {
    pub async fn next(&mut self) -> Option<Result<Vec<Entry>, TailError>> {
        self.0.recv().await
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the engine is closed")]
    Closed,
    #[error("the engine is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the stored data is damaged: {0}")]
    Damaged(String),
}

/// Why a commit was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{place:?} is at {current:?}, not as expected")]
    Conflict { place: Place, current: Option<Revision> },
    #[error("the disk or the engine's quota is full")]
    Full,
    #[error("the batch is larger than the engine takes")]
    TooLarge,
    /// Certainly not committed.
    #[error("the engine did not take the write")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Committed or not: the tail tells.
    #[error("the reply was lost")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The reply was lost, and the outcome stands: committed if the tail has it up to a read barrier from now on, else
    /// never.
    #[error("the reply was lost; the tail has what there is to know")]
    Settled(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the engine is closed")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error("the history before {oldest} is gone")]
    Compacted { oldest: Revision },
    #[error("the tail broke")]
    Broken(#[source] EngineError),
}
