//! One change of one object as watchers see it. Made once by the tail, shared by every watcher.

use std::sync::{Arc, OnceLock};

use admit::Place;
use api::Object;
use base::Revision;
use bytes::Bytes;

use crate::splice;

/// A change of one place at one revision. Events are ordered by (`revision`, `index`).
#[derive(Debug)]
pub struct Event {
    pub revision: Revision,
    /// The position within the batch that made the revision.
    pub index: u32,
    pub place: Place,
    pub prev: Option<Arc<Object>>,
    pub next: Option<Arc<Object>>,
    /// For a deletion: the last state with the deletion's revision, ready to serve.
    pub deleted: Option<Arc<Object>>,
    former: OnceLock<Option<Arc<Object>>>,
    frame: OnceLock<Bytes>,
}

// === impl Event ===

impl Event {
    pub(crate) fn new(
        at: (Revision, u32),
        place: Place,
        prev: Option<Arc<Object>>,
        next: Option<Arc<Object>>,
    ) -> Event {
        let (revision, index) = at;
        let deleted = match (&prev, &next) {
            (Some(prev), None) => Some(Arc::new(at_revision(prev, revision))),
            _ => None,
        };
        Event { revision, index, place, prev, next, deleted, former: OnceLock::new(), frame: OnceLock::new() }
    }

    /// The state before, with this event's revision: what a watcher gets as DELETED when the object stops matching its
    /// selector. Made on first use and shared.
    pub fn former(&self) -> Option<&Arc<Object>> {
        if let Some(deleted) = &self.deleted {
            return Some(deleted);
        }
        let make = || self.prev.as_ref().map(|prev| Arc::new(at_revision(prev, self.revision)));
        self.former.get_or_init(make).as_ref()
    }

    /// `ADDED`, `MODIFIED` or `DELETED`, for a watcher without selectors.
    pub fn verb(&self) -> &'static str {
        match (&self.prev, &self.next) {
            (None, Some(_)) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
            (_, None) => "DELETED",
        }
    }

    /// The JSON frame `{"type":..,"object":..}` with its newline, for watchers without selectors of the stored version.
    /// Encoded once.
    pub fn frame_json(&self) -> Bytes {
        let object = self.next.as_ref().or(self.deleted.as_ref());
        let body = object.map_or(&b"null"[..], |object| object.bytes.as_ref());
        self.frame.get_or_init(|| frame(self.verb(), body)).clone()
    }

    /// What the history counts for this event: its former state and its frame. The newest state is the cache's own.
    pub(crate) fn cost(&self) -> usize {
        let size = |object: &Option<Arc<Object>>| object.as_ref().map_or(0, |object| object.bytes.len() + 256);
        256 + size(&self.prev) + size(&self.next) + size(&self.deleted)
    }
}

/// A watch frame around served bytes.
fn frame(verb: &str, body: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(body.len() + verb.len() + 24);
    frame.extend_from_slice(br#"{"type":""#);
    frame.extend_from_slice(verb.as_bytes());
    frame.extend_from_slice(br#"","object":"#);
    frame.extend_from_slice(body);
    frame.extend_from_slice(b"}\n");
    frame.into()
}

fn at_revision(object: &Object, revision: Revision) -> Object {
    let bytes = splice::resplice(&object.bytes, revision).unwrap_or_else(|| object.bytes.clone());
    Object::new(object.key.clone(), revision, bytes, object.header.clone())
}
