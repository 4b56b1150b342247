//! One pass over the stages: what is asked, by whom, of which state, and what the batch will hold beside the object.

use std::sync::Arc;

use api::{Cause, Kind, Object, Reason, Status, Tree};
use base::Revision;
use bytes::Bytes;
use jiff::Timestamp;

use crate::ports::{Ports, storage_of};
use crate::request::{Identified, Request, User};
use crate::{Change, Expect, Place, Write, doc};

/// The fixed part of a pass.
#[derive(Clone, Copy)]
pub(crate) struct Cx<'a> {
    pub(crate) ports: &'a Ports<'a>,
    pub(crate) user: &'a User,
    pub(crate) request: &'a Request,
    /// The row of the stored form, which every stage works in.
    pub(crate) kind: &'a Kind,
    /// The row that the client asked for: the form of bodies, patches and managed fields.
    pub(crate) asked: &'a Kind,
    pub(crate) now: Timestamp,
}

/// The state a write starts from.
#[derive(Clone, Debug)]
pub(crate) struct Old {
    pub(crate) tree: Tree,
    pub(crate) revision: Revision,
}

/// What a pass gathers beside the object itself.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) warnings: Vec<String>,
    /// Claims, releases, usage: committed with the object or not at all.
    pub(crate) changes: Vec<Change>,
}

// === impl Cx ===

impl<'a> Cx<'a> {
    pub(crate) fn new(identified: &'a Identified<Request>, ports: &'a Ports<'a>) -> Cx<'a> {
        let request = &identified.request;
        let kind = ports.registry.stored(&request.kind);
        Cx { ports, user: &identified.user, request, kind, asked: &request.kind, now: ports.clock.now() }
    }

    pub(crate) fn sub(&self) -> &'a str {
        self.request.subresource.as_ref().map(|sub| sub.name.as_str()).unwrap_or_default()
    }

    /// Group and kind together name what hooks match on.
    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.kind.gvk.group == group && self.kind.gvk.kind == kind
    }

    /// Seconds, as every timestamp of `metadata` is written.
    pub(crate) fn stamp(&self) -> String {
        stamp(self.now)
    }

    pub(crate) fn place(&self, name: &str) -> Place {
        let namespace = if self.kind.is_namespaced() { self.request.namespace.as_str() } else { "" };
        Place { storage: self.kind.storage.clone(), key: api::Key::new(namespace, name) }
    }

    pub(crate) fn read(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.ports.reader.get(&place_of(group, resource, namespace, name))
    }

    pub(crate) fn list(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        self.ports.reader.list(&storage_of(group, resource), namespace)
    }

    // Errors about the object asked for.

    pub(crate) fn invalid(&self, name: &str, causes: Vec<Cause>) -> Status {
        Status::invalid(&self.kind.gvk.group, &self.kind.gvk.kind, name, causes)
    }

    pub(crate) fn conflict(&self, name: &str, why: &str) -> Status {
        Status::conflict(&self.kind.gvk.group, &self.kind.resource, name, why)
    }

    pub(crate) fn forbidden(&self, name: &str, why: &str) -> Status {
        Status::forbidden(&self.kind.gvk.group, &self.kind.resource, name, why)
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.kind.gvk.group, &self.kind.resource, name)
    }

    pub(crate) fn already_exists(&self, name: &str) -> Status {
        Status::already_exists(&self.kind.gvk.group, &self.kind.resource, name)
    }
}

// === impl Old ===

impl Old {
    pub(crate) fn of(object: &Arc<Object>) -> Old {
        Old { tree: object.tree(), revision: object.revision }
    }
}

// === helpers ===

/// The answer where the state moved under a request that named a version.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

pub(crate) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn place_of(group: &str, resource: &str, namespace: &str, name: &str) -> Place {
    Place { storage: storage_of(group, resource), key: api::Key::new(namespace, name) }
}

/// Canonical JSON as the store keeps it.
pub(crate) fn stored(tree: &Tree) -> Bytes {
    let mut tree = tree.clone();
    doc::remove(&mut tree, "metadata.resourceVersion");
    Bytes::from(tree.to_string())
}

/// Creates when nothing was there, replaces the version that was.
pub(crate) fn put(place: Place, seen: Option<Revision>, tree: &Tree) -> Change {
    Change { place, expect: seen.map_or(Expect::Absent, Expect::At), write: Write::Put(stored(tree)) }
}

pub(crate) fn delete(place: Place, seen: Revision) -> Change {
    Change { place, expect: Expect::At(seen), write: Write::Delete }
}

pub(crate) fn bad_request(message: impl Into<String>) -> Status {
    Status::new(Reason::BadRequest, message)
}
