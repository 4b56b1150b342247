//! The fact to be: a small atomic batch that only this crate can make.

use api::Key;
use base::{Revision, SmolStr};
use bytes::Bytes;

/// A batch that passed every stage. The store commits nothing else.
#[derive(Debug)]
pub struct Admitted {
    batch: Batch,
}

/// All or nothing: every expectation holds, then every write happens, at one revision.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub changes: Vec<Change>,
}

/// One place, what must be there, what shall be there. A guard without a write is a change with `Write::Keep`.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    pub place: Place,
    pub expect: Expect,
    pub write: Write,
}

/// Where a document is kept: the storage of its kind (`group/resource`) and its key. Claims that no kind serves, such as
/// node ports, live in storages that start with `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub storage: SmolStr,
    pub key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is there: a creation, or a unique claim.
    Absent,
    /// The version that the request was computed from is still there.
    At(Revision),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Write {
    /// Canonical JSON without `metadata.resourceVersion`.
    Put(Bytes),
    Delete,
    Keep,
}

impl Admitted {
    /// Called at the end of the stages, nowhere else.
    pub(crate) fn new(batch: Batch) -> Admitted {
        Admitted { batch }
    }

    /// With one more thing that must be as it was seen, unless the batch looks after that place already.
    pub(crate) fn guarded(mut self, guard: Change) -> Admitted {
        if self.batch.changes.iter().all(|change| change.place != guard.place) {
            self.batch.changes.push(guard);
        }
        self
    }

    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    pub fn into_batch(self) -> Batch {
        self.batch
    }
}
