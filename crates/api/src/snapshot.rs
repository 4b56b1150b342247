//! What a plan sees: immutable objects of the kinds it watches, a revision per stream, and the declared indexes.
//!
//! Cloning is O(1). Consistency holds only within one stream; plans must not assume that two kinds are seen at one
//! revision.

use std::ops::Bound;
use std::sync::Arc;

use base::{Revision, SmolStr};
use imbl::{OrdMap, OrdSet};
use k8s_openapi::Resource;
use serde::de::DeserializeOwned;

use crate::{Gvr, Key, Object};

/// The state of several streams, each at its own revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    streams: OrdMap<Gvr, Stream>,
}

/// All objects of one kind that a view may read.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The newest revision seen: of an event, a bookmark, or the list.
    pub revision: Revision,
    /// False until the first list is complete.
    pub synced: bool,
    /// The revision of the first list. Only the view sets it.
    pub began: Revision,
    /// The uid of the child that each controller lost last, as far as this stream saw.
    lost: OrdMap<SmolStr, SmolStr>,
    objects: OrdMap<Key, Arc<Object>>,
    indexes: Vec<(Index, OrdSet<(SmolStr, Key)>)>,
}

/// Controllers whose last lost child a stream remembers; beyond, it forgets all at once.
const LOST_MAX: usize = 10_000;

/// A declared index: a name and the words an object is found by.
#[derive(Clone, Copy)]
pub struct Index {
    pub name: &'static str,
    pub words: fn(&Object) -> Vec<SmolStr>,
}

// === impl Index ===

impl Index {
    /// Objects by the uid of their controller.
    pub const CONTROLLER: Index = Index {
        name: "controller",
        words: |object| object.header.controller().map(|owner| owner.uid.clone()).into_iter().collect(),
    };
    /// Objects by the uid of every owner.
    pub const OWNER: Index =
        Index { name: "owner", words: |object| object.header.owners.iter().map(|owner| owner.uid.clone()).collect() };
    pub const UID: Index = Index { name: "uid", words: |object| vec![object.header.uid.clone()] };
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({})", self.name)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The stream of a kind; an empty, unsynced one where the view does not watch it.
    pub fn stream(&self, gvr: &Gvr) -> Stream {
        self.streams.get(gvr).cloned().unwrap_or_default()
    }

    pub fn of<T: Resource>(&self) -> Stream {
        self.stream(&gvr_of::<T>())
    }

    pub fn put_stream(&mut self, gvr: Gvr, stream: Stream) {
        self.streams.insert(gvr, stream);
    }

    /// True when every stream has had its first list.
    pub fn synced(&self) -> bool {
        self.streams.values().all(|stream| stream.synced)
    }

    pub fn streams(&self) -> impl Iterator<Item = (&Gvr, &Stream)> {
        self.streams.iter()
    }
}

/// The resource that a typed struct stands for.
pub fn gvr_of<T: Resource>() -> Gvr {
    Gvr::new(T::GROUP, T::VERSION, T::URL_PATH_SEGMENT)
}

// === impl Stream ===

impl Stream {
    pub fn with_indexes(indexes: &[Index]) -> Stream {
        Stream { indexes: indexes.iter().map(|index| (*index, OrdSet::new())).collect(), ..Stream::default() }
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// The typed view of one object; None where it is absent or does not fit the type.
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(&self, key: &Key) -> Option<Arc<T>> {
        self.get(key).and_then(|object| object.typed().ok())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Objects of one namespace, in name order.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let from = Key::new(namespace, "");
        let range = self.objects.range((Bound::Included(from), Bound::Unbounded));
        range.take_while(move |(key, _)| key.namespace == namespace).map(|(_, object)| object)
    }

    /// Objects found under `word` in a declared index, in key order.
    pub fn by<'a>(&'a self, index: &str, word: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let set = self.indexes.iter().find(|(declared, _)| declared.name == index).map(|(_, set)| set);
        let set = set.unwrap_or_else(|| panic!("index {index} is not declared for this stream"));
        let from = (SmolStr::from(word), Key::default());
        let range = set.range((Bound::Included(from), Bound::Unbounded)).take_while(move |(found, _)| found == word);
        range.filter_map(|(_, key)| self.objects.get(key))
    }

    /// Puts a new version in place of the old one. Only the view calls this.
    pub fn put(&mut self, object: Arc<Object>) {
        self.take(&object.key);
        for (index, set) in &mut self.indexes {
            for word in (index.words)(&object) {
                set.insert((word, object.key.clone()));
            }
        }
        self.objects.insert(object.key.clone(), object);
    }

    /// What changes whenever a child of this controller is seen to go, and else stays: names of children derive from it.
    pub fn epoch(&self, controller_uid: &str) -> SmolStr {
        self.lost.get(controller_uid).cloned().unwrap_or_else(|| base::format_smolstr!("{}", self.began))
    }

    /// Takes out an object that is gone. Only the view calls this.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let old = self.take(key)?;
        if let Some(controller) = old.header.controller() {
            if self.lost.len() >= LOST_MAX {
                self.lost = OrdMap::new();
                self.began = self.revision;
            }
            self.lost.insert(controller.uid.clone(), old.header.uid.clone());
        }
        Some(old)
    }

    fn take(&mut self, key: &Key) -> Option<Arc<Object>> {
        let old = self.objects.remove(key)?;
        for (index, set) in &mut self.indexes {
            for word in (index.words)(&old) {
                set.remove(&(word, key.clone()));
            }
        }
        Some(old)
    }
}
