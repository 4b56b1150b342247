//! News of a view, for those who keep queues: every change once, and after falling behind the difference instead.

use std::collections::VecDeque;
use std::sync::Arc;

use api::{Gvr, Key, Object, Snapshot};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::View;

/// Changes a slow receiver may fall behind before it compares snapshots instead.
pub const CHANGES_BACKLOG_MAX: usize = 1 << 12;

/// One object before and after. Good for enqueueing keys only: plans read the snapshot, which is at least as new.
#[derive(Clone, Debug)]
pub struct Change {
    pub gvr: Gvr,
    pub key: Key,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
}

/// A receiver. It begins with one change per object that exists already.
pub struct Changes {
    view: View,
    receiver: broadcast::Receiver<Arc<Change>>,
    /// What the receiver knew when it last compared.
    seen: Snapshot,
    pending: VecDeque<Arc<Change>>,
}

// === impl Changes ===

impl Changes {
    pub(crate) fn new(view: View, receiver: broadcast::Receiver<Arc<Change>>) -> Changes {
        let mut changes = Changes { view, receiver, seen: Snapshot::default(), pending: VecDeque::new() };
        changes.compare();
        changes
    }

    /// The next change; None once the view has ended.
    pub async fn next(&mut self) -> Option<Arc<Change>> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(change);
            }
            match self.receiver.recv().await {
                Ok(change) => return Some(change),
                Err(RecvError::Lagged(_)) => {
                    self.receiver = self.receiver.resubscribe();
                    self.compare();
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// A change that is there already; None when there is none right now.
    pub fn try_next(&mut self) -> Option<Arc<Change>> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(change);
            }
            match self.receiver.try_recv() {
                Ok(change) => return Some(change),
                Err(TryRecvError::Lagged(_)) => {
                    self.receiver = self.receiver.resubscribe();
                    self.compare();
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// Queues the difference between the snapshot seen last and the one now. What is queued twice is harmless.
    fn compare(&mut self) {
        let now = self.view.snapshot();
        for (gvr, stream) in now.streams() {
            let before = self.seen.stream(gvr);
            for new in stream.iter() {
                let old = before.get(&new.key);
                if old.is_none_or(|old| !Arc::ptr_eq(old, new)) {
                    let (gvr, key, old) = (gvr.clone(), new.key.clone(), old.cloned());
                    self.pending.push_back(Arc::new(Change { gvr, key, old, new: Some(new.clone()) }));
                }
            }
            for old in before.iter().filter(|old| stream.get(&old.key).is_none()) {
                let (gvr, key) = (gvr.clone(), old.key.clone());
                self.pending.push_back(Arc::new(Change { gvr, key, old: Some(old.clone()), new: None }));
            }
        }
        self.seen = now;
    }
}
