//! The watch cache: per storage every live object and a ring of its last changes. Written by the tail alone.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use api::{Key, Object};
use base::{Revision, SmolStr};
use imbl::OrdMap;
use tokio::sync::watch;

use crate::event::Event;

/// History of one storage, in bytes of former and new states together.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;
/// History is kept this long where [`HISTORY_BYTES_MAX`] allows it.
pub const HISTORY_SECONDS_MIN: i64 = 300;

/// The history that a read or a watch needs is no longer there: list again (`410 Gone`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the history before revision {oldest} is gone")]
pub struct Gone {
    /// The oldest revision that still works.
    pub oldest: Revision,
}

/// What to list.
#[derive(Default)]
pub struct ListQuery<'a> {
    pub namespace: Option<SmolStr>,
    /// Objects after this key: the continue token.
    pub after: Option<Key>,
    /// The state at this revision; the newest if absent. A revision that is not there yet means the newest: who wants to
    /// wait for it uses `Store::wait_for` first.
    pub at: Option<Revision>,
    pub limit: Option<usize>,
    /// Counts towards `limit` only what this accepts.
    pub accept: Option<&'a dyn Fn(&Object) -> bool>,
}

/// A consistent part of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The revision whose state this is.
    pub revision: Revision,
    pub objects: Vec<Arc<Object>>,
    pub more: bool,
    /// How many come after this page; known only without `accept`.
    pub remaining: Option<usize>,
}

pub(crate) struct Memory {
    pub(crate) applied: Revision,
    /// The oldest history a storage without events could serve.
    start: Revision,
    collections: BTreeMap<SmolStr, Collection>,
}

/// One storage.
pub(crate) struct Collection {
    pub(crate) live: OrdMap<Key, Arc<Object>>,
    ring: VecDeque<Kept>,
    /// Sequence number of the ring's front. Never decreases, so a cursor before it has missed something.
    first: u64,
    /// The newest revision whose event is no longer in the ring.
    floor: Revision,
    bytes: usize,
    /// Wakes the watchers; carries the sequence number after the newest event.
    newest: watch::Sender<u64>,
}

struct Kept {
    at_seconds: i64,
    event: Arc<Event>,
}

// === impl Memory ===

impl Memory {
    pub(crate) fn new(revision: Revision) -> Memory {
        Memory { applied: revision, start: revision, collections: BTreeMap::new() }
    }

    pub(crate) fn get(&self, storage: &str) -> Option<&Collection> {
        self.collections.get(storage)
    }

    pub(crate) fn entry(&mut self, storage: &SmolStr) -> &mut Collection {
        let start = self.start;
        if !self.collections.contains_key(storage) {
            self.collections.insert(storage.clone(), Collection::new(start));
        }
        self.collections.get_mut(storage).expect("inserted above")
    }

    pub(crate) fn collections(&self) -> impl Iterator<Item = (&SmolStr, &Collection)> {
        self.collections.iter()
    }

    pub(crate) fn find(&self, storage: &str, key: &Key) -> Option<&Arc<Object>> {
        self.collections.get(storage)?.live.get(key)
    }

    /// The state from which a list is served: the map and its revision, older events undone.
    pub(crate) fn state_at(
        &self,
        storage: &str,
        at: Option<Revision>,
    ) -> Result<(OrdMap<Key, Arc<Object>>, Revision), Gone> {
        let Some(collection) = self.collections.get(storage) else {
            return match at {
                Some(at) if at < self.start => Err(Gone { oldest: self.start }),
                at => Ok((OrdMap::new(), at.map_or(self.applied, |at| at.min(self.applied)))),
            };
        };
        match at {
            Some(at) if at < self.applied => Ok((collection.undone(at)?, at)),
            _ => Ok((collection.live.clone(), self.applied)),
        }
    }

    /// Adds one commit's events, in order. The caller wakes the watchers afterwards.
    pub(crate) fn apply(&mut self, revision: Revision, events: &[Arc<Event>], now_seconds: i64) {
        assert!(self.applied < revision, "revision {revision} applied after {}", self.applied);
        for event in events {
            self.entry(&event.place.storage).push(event, now_seconds);
        }
        self.applied = revision;
    }

    pub(crate) fn prune(&mut self, now_seconds: i64) {
        for collection in self.collections.values_mut() {
            collection.prune(now_seconds);
        }
    }

    /// Takes a freshly loaded state after the tail lost its place: every history ends here and every watcher is told.
    pub(crate) fn replace(&mut self, fresh: Memory) {
        self.start = fresh.start;
        self.applied = self.applied.max(fresh.applied);
        for collection in self.collections.values_mut() {
            collection.forget(fresh.start);
        }
        for (storage, loaded) in fresh.collections {
            let collection = self.entry(&storage);
            collection.live = loaded.live;
        }
        self.collections.values().for_each(Collection::wake);
    }
}

// === impl Collection ===

impl Collection {
    fn new(floor: Revision) -> Collection {
        let newest = watch::Sender::new(0);
        Collection { live: OrdMap::new(), ring: VecDeque::new(), first: 0, floor, bytes: 0, newest }
    }

    /// For loading: history reaches back to `floor` because nothing changed since.
    pub(crate) fn lower_floor(&mut self, floor: Revision) {
        self.floor = self.floor.min(floor);
    }

    pub(crate) fn wake(&self) {
        self.newest.send_replace(self.end());
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The cursor from which a watch sees everything after `after`.
    pub(crate) fn cursor(&self, after: Revision) -> Result<u64, Gone> {
        if after < self.floor {
            return Err(Gone { oldest: self.floor });
        }
        let skip = self.ring.partition_point(|kept| kept.event.revision <= after);
        Ok(self.first + skip as u64)
    }

    /// Copies events from a cursor on, at most `count`; returns the cursor after them.
    pub(crate) fn read(&self, cursor: u64, count: usize, into: &mut VecDeque<Arc<Event>>) -> Result<u64, Gone> {
        let skip = cursor.checked_sub(self.first).ok_or(Gone { oldest: self.floor })?;
        let skip = usize::try_from(skip).expect("a ring in memory has fewer than usize::MAX events");
        let found = self.ring.range(skip.min(self.ring.len())..).take(count);
        let before = into.len();
        into.extend(found.map(|kept| kept.event.clone()));
        Ok(cursor + (into.len() - before) as u64)
    }

    /// The sequence number after the newest event.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    fn push(&mut self, event: &Arc<Event>, now_seconds: i64) {
        let key = event.place.key.clone();
        match &event.next {
            Some(next) => self.live.insert(key, next.clone()),
            None => self.live.remove(&key),
        };
        self.bytes += event.cost();
        self.ring.push_back(Kept { at_seconds: now_seconds, event: event.clone() });
        self.prune(now_seconds);
    }

    fn prune(&mut self, now_seconds: i64) {
        while let Some(front) = self.ring.front() {
            let old = front.at_seconds + HISTORY_SECONDS_MIN < now_seconds;
            if !old && self.bytes <= HISTORY_BYTES_MAX {
                break;
            }
            self.floor = front.event.revision;
            self.bytes -= front.event.cost();
            self.first += 1;
            self.ring.pop_front();
        }
    }

    fn forget(&mut self, floor: Revision) {
        // One past the end: a watcher that was up to date has missed something too.
        self.first = self.end() + 1;
        self.ring.clear();
        self.bytes = 0;
        self.floor = floor;
        self.live = OrdMap::new();
    }

    /// The state at an older revision.
    fn undone(&self, at: Revision) -> Result<OrdMap<Key, Arc<Object>>, Gone> {
        if at < self.floor {
            return Err(Gone { oldest: self.floor });
        }
        let mut map = self.live.clone();
        for kept in self.ring.iter().rev().take_while(|kept| at < kept.event.revision) {
            let key = kept.event.place.key.clone();
            match &kept.event.prev {
                Some(prev) => map.insert(key, prev.clone()),
                None => map.remove(&key),
            };
        }
        Ok(map)
    }
}

/// Cuts one page out of a state.
pub(crate) fn page(map: &OrdMap<Key, Arc<Object>>, revision: Revision, query: &ListQuery<'_>) -> Page {
    let first =
        query.namespace.as_ref().map(|namespace| Key { namespace: namespace.clone(), name: SmolStr::default() });
    let start = match (&query.after, first) {
        (Some(after), Some(first)) if *after < first => Bound::Included(first),
        (Some(after), _) => Bound::Excluded(after.clone()),
        (None, Some(first)) => Bound::Included(first),
        (None, None) => Bound::Unbounded,
    };
    let inside = |key: &Key| query.namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace);
    let mut rest = map.range((start, Bound::Unbounded)).take_while(|(key, _)| inside(key)).map(|(_, object)| object);
    let limit = query.limit.filter(|limit| *limit != 0).unwrap_or(usize::MAX);
    let mut objects = Vec::with_capacity(if query.namespace.is_none() { map.len().min(limit) } else { 0 });
    match query.accept {
        None => {
            objects.extend(rest.by_ref().take(limit).cloned());
            let remaining = if objects.len() < limit { 0 } else { rest.count() };
            Page { revision, objects, more: remaining != 0, remaining: Some(remaining) }
        }
        Some(accept) => {
            let mut accepted = rest.filter(|object| accept(object));
            objects.extend(accepted.by_ref().take(limit).cloned());
            let more = limit <= objects.len() && accepted.next().is_some();
            Page { revision, objects, more, remaining: None }
        }
    }
}
