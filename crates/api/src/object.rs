//! An object version as the API serves it: immutable bytes beside a small header.
//!
//! The bytes are canonical JSON with `resourceVersion` in them. What selectors, owners and finalizers need is read once
//! into the [`Header`]; a typed view is decoded when first asked for and is never written back.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use base::{Revision, SmolStr};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Tree;

/// Namespace and name. Cluster-scoped objects have the empty namespace. Ordered by namespace first, so one namespace is
/// one range.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: SmolStr,
    pub name: SmolStr,
}

/// One immutable version of one object.
pub struct Object {
    pub key: Key,
    pub revision: Revision,
    /// Served JSON.
    pub bytes: Bytes,
    pub header: Header,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// What is read of an object without decoding it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    pub uid: SmolStr,
    pub generation: i64,
    pub labels: BTreeMap<SmolStr, SmolStr>,
    pub owners: Vec<OwnerRef>,
    pub finalizers: Vec<SmolStr>,
    pub created: Option<Timestamp>,
    pub deletion: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRef {
    pub api_version: SmolStr,
    pub kind: SmolStr,
    pub name: SmolStr,
    pub uid: SmolStr,
    #[serde(default)]
    pub controller: bool,
    #[serde(default)]
    pub block_owner_deletion: bool,
}

/// Bytes that are not an object of the API.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("not an API object")]
    Shape(#[source] serde_json::Error),
    #[error("metadata.resourceVersion {text:?} is not a revision")]
    Revision { text: String },
}

// === impl Key ===

impl Key {
    pub fn new(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    pub fn cluster(name: &str) -> Key {
        Key::new("", name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{}", self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Object ===

impl Object {
    pub fn new(key: Key, revision: Revision, bytes: Bytes, header: Header) -> Object {
        Object { key, revision, bytes, header, typed: OnceLock::new() }
    }

    /// Reads key, revision and header out of served bytes.
    pub fn parse(bytes: Bytes) -> Result<Object, ObjectError> {
        let wire: Wire = serde_json::from_slice(&bytes).map_err(ObjectError::Shape)?;
        let meta = wire.metadata;
        let text = meta.resource_version.clone();
        let revision = if text.is_empty() {
            Revision::ZERO
        } else {
            text.parse().map_err(|_| ObjectError::Revision { text: text.to_string() })?
        };
        let key = Key { namespace: meta.namespace.clone(), name: meta.name.clone() };
        Ok(Object::new(key, revision, bytes, meta.into_header()))
    }

    /// The document as a tree of its own. Costs a parse: for patches and plans over kinds without a typed form.
    pub fn tree(&self) -> Tree {
        serde_json::from_slice(&self.bytes).expect("an Object's bytes were parsed when it was made")
    }

    /// The typed, read-only view, decoded on first use and shared.
    ///
    /// # Errors
    /// A document that does not fit the type (possible for objects of a newer version).
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, serde_json::Error> {
        if let Some(ready) = self.typed.get()
            && let Ok(typed) = ready.clone().downcast::<T>()
        {
            return Ok(typed);
        }
        let typed: Arc<T> = Arc::new(serde_json::from_slice(&self.bytes)?);
        let _ = self.typed.set(typed.clone());
        Ok(typed)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} @{})", self.key, self.revision)
    }
}

// === impl Header ===

impl Header {
    /// The owner with `controller: true`, if any.
    pub fn controller(&self) -> Option<&OwnerRef> {
        self.owners.iter().find(|owner| owner.controller)
    }

    /// Reads the header out of a tree, as [`Object::parse`] reads it out of bytes.
    pub fn of(tree: &Tree) -> Header {
        let meta = tree.get("metadata").cloned().unwrap_or_default();
        serde_json::from_value::<WireMeta>(meta).map(WireMeta::into_header).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: WireMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireMeta {
    name: SmolStr,
    namespace: SmolStr,
    uid: SmolStr,
    resource_version: SmolStr,
    generation: i64,
    labels: Option<BTreeMap<SmolStr, SmolStr>>,
    owner_references: Option<Vec<OwnerRef>>,
    finalizers: Option<Vec<SmolStr>>,
    creation_timestamp: Option<Timestamp>,
    deletion_timestamp: Option<Timestamp>,
}

impl WireMeta {
    fn into_header(self) -> Header {
        Header {
            uid: self.uid,
            generation: self.generation,
            labels: self.labels.unwrap_or_default(),
            owners: self.owner_references.unwrap_or_default(),
            finalizers: self.finalizers.unwrap_or_default(),
            created: self.creation_timestamp,
            deletion: self.deletion_timestamp,
        }
    }
}
