//! The shared cache: one snapshot of several streams, each kept equal to its collection by a task of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{Gvr, Index, Key, Snapshot, Stream};
use base::{Revision, SmolStr};
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};

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

/// How much of each object a stream keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Whole,
    /// `PartialObjectMetadata`: for readers of headers, who watch every kind.
    Metadata,
}

/// What a reader has written and must see before it decides again: a revision per stream, or news of one object where
/// the answer to a write carried no revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    needs: BTreeMap<Gvr, Revision>,
    news: Vec<(Gvr, Key, Option<Revision>)>,
}

/// A view that did not come as far as it had to.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("the view of {gvr} did not show a write of ours within {} ms", .waited.as_millis())]
    Late { gvr: Gvr, waited: Duration },
}

/// A cheap handle. The tasks end when the last handle is dropped, or on drain.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

pub(crate) struct Shared {
    pub(crate) snapshot: watch::Sender<Snapshot>,
    pub(crate) changes: broadcast::Sender<Arc<Change>>,
    /// What somebody waits for: streams that are behind it open their watch anew, and are told how far they are.
    pub(crate) wanted: watch::Sender<Revision>,
}

struct Tasks {
    client: Client,
    drain: Drain,
    /// Dropping the last handle aborts what runs.
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    streams: BTreeMap<Gvr, (Watched, AbortHandle)>,
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
            ..ListOptions::default()
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
        self.needs.is_empty() && self.news.is_empty()
    }

    /// Raises the fence of one stream.
    pub fn raise(&mut self, gvr: &Gvr, revision: Revision) {
        let need = self.needs.entry(gvr.clone()).or_default();
        *need = revision.max(*need);
    }

    /// Waits for one object to be another version than `known`, or to be there at all where it was not known.
    pub fn await_news(&mut self, gvr: &Gvr, key: &Key, known: Option<Revision>) {
        self.news.push((gvr.clone(), key.clone(), known));
    }

    pub fn is_passed_by(&self, snapshot: &Snapshot) -> bool {
        self.first_missing(snapshot).is_none()
    }

    fn first_missing(&self, snapshot: &Snapshot) -> Option<&Gvr> {
        let behind = self.needs.iter().find(|(gvr, need)| snapshot.stream(gvr).revision < **need);
        let silent = |(gvr, key, known): &&(Gvr, Key, Option<Revision>)| {
            let now = snapshot.stream(gvr).get(key).map(|object| object.revision);
            now == *known
        };
        behind.map(|(gvr, _)| gvr).or_else(|| self.news.iter().find(silent).map(|(gvr, ..)| gvr))
    }
}

// === impl View ===

impl View {
    /// Starts one task per stream. Must be called within a runtime; the snapshot is empty and unsynced at first.
    ///
    /// # Panics
    /// When a kind is watched twice: a snapshot has one stream per kind.
    pub fn start(client: &Client, watched: Vec<Watched>, drain: &Drain) -> View {
        let (changes, _) = broadcast::channel(CHANGES_BACKLOG_MAX);
        let (snapshot, wanted) = (watch::Sender::new(Snapshot::default()), watch::Sender::new(Revision::ZERO));
        let shared = Arc::new(Shared { snapshot, changes, wanted });
        let tasks = Tasks { client: client.clone(), drain: drain.clone(), running: Mutex::default() };
        let view = View { shared, tasks: Arc::new(tasks) };
        for one in watched {
            let gvr = one.gvr.clone();
            assert!(view.follow(one, Form::Whole), "{gvr} is watched twice");
        }
        view
    }

    /// Adds a stream, for a kind that came later. False where the kind is followed already.
    pub fn follow(&self, watched: Watched, form: Form) -> bool {
        let mut running = self.tasks.running.lock().expect("no holder of this lock panics");
        if running.streams.contains_key(&watched.gvr) {
            return false;
        }
        let stream = Stream::with_indexes(&watched.indexes);
        self.shared.snapshot.send_modify(|snapshot| snapshot.put_stream(watched.gvr.clone(), stream));
        let pump = Pump::new(self.tasks.client.clone(), watched.clone(), form, self.shared.clone());
        let drain = self.tasks.drain.clone();
        let handle = running.tasks.spawn(async move {
            drain.run_until_cancelled(pump.run()).await;
        });
        running.streams.insert(watched.gvr.clone(), (watched, handle));
        true
    }

    /// Ends a stream, for a kind that is no longer served. It reads as empty and synced from then on; its objects get no
    /// last change.
    pub fn unfollow(&self, gvr: &Gvr) {
        let mut running = self.tasks.running.lock().expect("no holder of this lock panics");
        if let Some((watched, handle)) = running.streams.remove(gvr) {
            handle.abort();
            let mut empty = Stream::with_indexes(&watched.indexes);
            empty.synced = true;
            // Nothing will be written that it should show.
            empty.revision = Revision(u64::MAX);
            self.shared.snapshot.send_modify(|snapshot| snapshot.put_stream(gvr.clone(), empty));
        }
        while running.tasks.try_join_next().is_some() {}
    }

    /// The kinds that are followed now.
    pub fn followed(&self) -> Vec<Gvr> {
        self.tasks.running.lock().expect("no holder of this lock panics").streams.keys().cloned().collect()
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

    /// Waits until these streams (all, where none are named) show everything that was written until `revision`. Where
    /// nothing was, they ask: a stream without news does not wait for its next bookmark.
    pub async fn catch_up(&self, streams: &[Gvr], revision: Revision) -> Snapshot {
        self.shared.wanted.send_if_modified(|wanted| {
            let more = *wanted < revision;
            *wanted = revision.max(*wanted);
            more
        });
        let there = |snapshot: &Snapshot| match streams {
            // A kind that is only just followed holds nobody up.
            [] => snapshot.streams().all(|(_, stream)| !stream.synced || revision <= stream.revision),
            streams => streams.iter().all(|gvr| revision <= snapshot.stream(gvr).revision),
        };
        self.wait_for(there).await
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
            Some(gvr) => Err(FenceError::Late { gvr: gvr.clone(), waited: within }),
        }
    }

    /// True where a write to `key` is sure to advance a stream of this view, so that a fence can be waited for.
    pub fn shows(&self, gvr: &Gvr, key: &Key) -> bool {
        let running = self.tasks.running.lock().expect("no holder of this lock panics");
        running.streams.get(gvr).is_some_and(|(watched, _)| watched.shows(gvr, key))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> = self.followed().iter().map(Gvr::to_string).collect();
        write!(f, "View({})", kinds.join(", "))
    }
}
