//! The shared cache: one snapshot of several streams, each kept equal to its collection by a task of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{Gvr, Index, Key, Snapshot, Stream};
use base::{Revision, SmolStr};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::changes::CHANGES_BACKLOG_MAX;
use crate::pump::Pump;
use crate::{Change, Changes, Client, Drain, ListOptions};

/// One collection to follow, or the part of it that selectors name. One per kind and view.
#[derive(Clone, Debug)]
pub struct Watched {
    pub gvr: Gvr,
    pub namespace: Option<SmolStr>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub indexes: Vec<Index>,
}

/// What a reader has written and must see before it decides again: a revision per stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    needs: BTreeMap<Gvr, Revision>,
}

/// A view that did not come as far as it had to.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("the view of {gvr} did not reach revision {wanted} within {} ms", .waited.as_millis())]
    Late { gvr: Gvr, wanted: Revision, waited: Duration },
    #[error("the view has ended")]
    Ended,
}

/// A cheap handle. The tasks end when the last handle is dropped, or on drain.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

pub(crate) struct Shared {
    pub(crate) snapshot: watch::Sender<Snapshot>,
    pub(crate) changes: broadcast::Sender<Arc<Change>>,
    watched: Vec<Watched>,
}

struct Tasks {
    #[expect(dead_code, reason = "held so that dropping the last handle aborts the tasks")]
    running: Mutex<JoinSet<()>>,
}

// === impl Watched ===

impl Watched {
    /// All objects of a kind, in every namespace.
    pub fn all(gvr: Gvr, indexes: &[Index]) -> Watched {
        Watched { gvr, namespace: None, label_selector: None, field_selector: None, indexes: indexes.to_vec() }
    }

    pub fn of<T: api::k8s_openapi::Resource>(indexes: &[Index]) -> Watched {
        Watched::all(api::snapshot::gvr_of::<T>(), indexes)
    }

    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Watched {
        self.namespace = Some(namespace.into());
        self
    }

    #[must_use]
    pub fn with_fields(mut self, selector: &str) -> Watched {
        self.field_selector = Some(selector.to_owned());
        self
    }

    #[must_use]
    pub fn with_labels(mut self, selector: &str) -> Watched {
        self.label_selector = Some(selector.to_owned());
        self
    }

    pub(crate) fn options(&self) -> ListOptions<'_> {
        ListOptions {
            namespace: self.namespace.as_deref(),
            label_selector: self.label_selector.as_deref(),
            field_selector: self.field_selector.as_deref(),
            limit: None,
            more: None,
        }
    }

    /// True where a write to this key is sure to show as an event: a selector may hide it.
    fn shows(&self, gvr: &Gvr, key: &Key) -> bool {
        let whole = self.label_selector.is_none() && self.field_selector.is_none();
        whole && self.gvr == *gvr && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
    }
}

// === impl Fence ===

impl Fence {
    pub fn is_empty(&self) -> bool {
        self.needs.is_empty()
    }

    /// Raises the fence of one stream.
    pub fn raise(&mut self, gvr: &Gvr, revision: Revision) {
        let need = self.needs.entry(gvr.clone()).or_default();
        *need = revision.max(*need);
    }

    pub fn is_passed_by(&self, snapshot: &Snapshot) -> bool {
        self.first_missing(snapshot).is_none()
    }

    fn first_missing(&self, snapshot: &Snapshot) -> Option<(&Gvr, Revision)> {
        let missing = self.needs.iter().find(|(gvr, need)| snapshot.stream(gvr).revision < **need);
        missing.map(|(gvr, need)| (gvr, *need))
    }
}

// === impl View ===

impl View {
    /// Starts one task per stream. Must be called within a runtime; the snapshot is empty and unsynced at first.
    ///
    /// # Panics
    /// When a kind is watched twice: a snapshot has one stream per kind.
    pub fn start(client: &Client, watched: Vec<Watched>, drain: &Drain) -> View {
        let mut snapshot = Snapshot::default();
        for one in &watched {
            assert!(snapshot.streams().all(|(gvr, _)| *gvr != one.gvr), "{} is watched twice", one.gvr);
            snapshot.put_stream(one.gvr.clone(), Stream::with_indexes(&one.indexes));
        }
        let (changes, _) = broadcast::channel(CHANGES_BACKLOG_MAX);
        let shared = Arc::new(Shared { snapshot: watch::Sender::new(snapshot), changes, watched: watched.clone() });
        let mut running = JoinSet::new();
        for one in watched {
            let pump = Pump::new(client.clone(), one, shared.clone());
            let drain = drain.clone();
            running.spawn(async move {
                drain.run_until_cancelled(pump.run()).await;
            });
        }
        View { shared, _tasks: Arc::new(Tasks { running: Mutex::new(running) }) }
    }

    /// The newest state. O(1).
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot.borrow().clone()
    }

    /// Every change from now on, after one per object that is there already.
    pub fn changes(&self) -> Changes {
        Changes::new(self.clone(), self.shared.changes.subscribe())
    }

    /// Told whenever the snapshot is replaced.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.shared.snapshot.subscribe()
    }

    /// Waits for a level. Returns the snapshot that satisfied it.
    pub async fn wait_for(&self, condition: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let mut receiver = self.shared.snapshot.subscribe();
        let found = receiver.wait_for(condition).await.expect("self holds the sender");
        found.clone()
    }

    /// Waits until every stream has had its first list.
    pub async fn synced(&self) -> Snapshot {
        self.wait_for(Snapshot::synced).await
    }

    /// Waits until the stream of `gvr` is at least at `revision`.
    pub async fn wait_revision(&self, gvr: &Gvr, revision: Revision, within: Duration) -> Result<Snapshot, FenceError> {
        let mut fence = Fence::default();
        fence.raise(gvr, revision);
        self.wait_fence(&fence, within).await
    }

    /// Waits until every stream of the fence is past it.
    pub async fn wait_fence(&self, fence: &Fence, within: Duration) -> Result<Snapshot, FenceError> {
        let waiting = self.wait_for(|snapshot| fence.is_passed_by(snapshot));
        if let Ok(snapshot) = tokio::time::timeout(within, waiting).await {
            return Ok(snapshot);
        }
        let snapshot = self.snapshot();
        match fence.first_missing(&snapshot) {
            None => Ok(snapshot),
            Some((gvr, wanted)) => Err(FenceError::Late { gvr: gvr.clone(), wanted, waited: within }),
        }
    }

    /// True where a write to `key` is sure to advance a stream of this view, so that a fence can be waited for.
    pub fn shows(&self, gvr: &Gvr, key: &Key) -> bool {
        self.shared.watched.iter().any(|watched| watched.shows(gvr, key))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> = self.shared.watched.iter().map(|watched| watched.gvr.to_string()).collect();
        write!(f, "View({})", kinds.join(", "))
    }
}
