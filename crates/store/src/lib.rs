//! The record: revisions, the watch history, durable engines, encryption at rest, snapshots.
//!
//! The in-memory store *is* the watch cache: every live object as served bytes, a history ring per storage, and a
//! durable [`Engine`] below. Reads never touch the disk. The memory changes only from the engine's tail, and a write is
//! acknowledged after its own tail entry. Knows no HTTP, no kinds and no schemas: a storage is a name.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod engine;
mod envelope;
pub mod etcd;
mod event;
mod keyring;
mod lock;
mod memory;
mod place;
mod snapshot;
mod splice;
pub mod sqlite;
mod store;
mod tail;
mod transfer;
mod waiter;
mod watch;

pub use engine::{
    BATCH_CHANGES_MAX, CommitId, Engine, EngineError, Entry, EntryChange, Load, Row, Tail, TailError, WriteError,
};
pub use event::Event;
pub use keyring::{KEY_BYTES, Keyring, KeyringError};
pub use lock::{DataLock, LockError};
pub use memory::{Gone, ListQuery, Page};
pub use snapshot::{
    ExportError, FORMAT as SNAPSHOT_FORMAT, ImportError, RESTORE_LEAP, Summary, Survey, import, survey,
};
pub use store::{CommitError, Committed, OpenError, ReadError, ReencryptError, Store};
pub use transfer::{TransferError, Transferred, transfer};
pub use watch::{Watch, WatchEvent};

#[cfg(test)]
mod faulty;
#[cfg(test)]
#[path = "../tests/contract/lab.rs"]
mod lab;
#[cfg(test)]
mod tests;
