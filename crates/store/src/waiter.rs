//! Who waits for the tail to tell what became of a commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::CommitId;
use crate::store::{Applied, Shared};

/// Commits under way. The order of the map reaches no decision.
#[derive(Default)]
pub(crate) struct Waiters {
    by_id: BTreeMap<CommitId, oneshot::Sender<Applied>>,
    instance: u64,
    count: u64,
}

/// The tail started anew from a state that may hold the commit.
pub(crate) struct Skipped;

/// A registered commit; unregisters itself when its future is dropped.
pub(crate) struct Waiter {
    shared: Arc<Shared>,
    pub(crate) id: CommitId,
    applied: Option<oneshot::Receiver<Applied>>,
}

// === impl Waiters ===

impl Waiters {
    pub(crate) fn new(instance: u64) -> Waiters {
        Waiters { instance, ..Waiters::default() }
    }

    /// Unique across restarts and across servers of one etcd: a random half and a count.
    pub(crate) fn next_id(&mut self) -> CommitId {
        self.count += 1;
        CommitId(u128::from(self.instance) << 64 | u128::from(self.count))
    }

    pub(crate) fn take(&mut self, id: CommitId) -> Option<oneshot::Sender<Applied>> {
        self.by_id.remove(&id)
    }

    /// Nobody here is told any more.
    pub(crate) fn clear(&mut self) {
        self.by_id.clear();
    }
}

// === impl Waiter ===

impl Waiter {
    pub(crate) fn register(shared: &Arc<Shared>) -> Waiter {
        let (sender, applied) = oneshot::channel();
        let mut waiters = shared.waiters();
        let id = waiters.next_id();
        waiters.by_id.insert(id, sender);
        drop(waiters);
        Waiter { shared: shared.clone(), id, applied: Some(applied) }
    }

    /// The commit, if it is applied by now.
    pub(crate) fn found(mut self) -> Result<Option<Applied>, Skipped> {
        let mut applied = self.applied.take().ok_or(Skipped)?;
        match applied.try_recv() {
            Ok(applied) => Ok(Some(applied)),
            Err(oneshot::error::TryRecvError::Empty) => Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => Err(Skipped),
        }
    }

    /// The applied commit, unless the time runs out or the tail skipped it.
    pub(crate) async fn within(mut self, wait: Duration) -> Option<Applied> {
        let applied = self.applied.take()?;
        tokio::time::timeout(wait, applied).await.ok()?.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.shared.waiters().by_id.remove(&self.id);
    }
}
