//! What Kubernetes objects are: kinds, schemas, objects, selectors, snapshots, operations.
//!
//! A kind is a row of data ([`Kind`]) over a compiled description ([`Schema`]); nothing here is written once per kind.
//! Pure: no clock, no IO, no tokio.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that fails to unwrap has failed"))]

pub mod builtin;
pub mod codec;
pub mod columns;
pub mod convert;
pub mod crd;
pub mod csr;
pub mod fit;
pub mod kind;
pub mod local_path;
pub mod meta;
pub mod names;
pub mod object;
pub mod op;
pub mod openapi;
pub mod quantity;
pub mod registry;
pub mod schema;
pub mod selector;
mod shape;
pub mod snapshot;
pub mod status;
pub mod term;

pub use kind::{Column, Gvk, Gvr, Kind, Scope, Subresource, Verb, Verbs};
pub use object::{Header, Key, Object, OwnerRef};
pub use op::{Op, PatchType, Plan, Preconditions, Propagation};
pub use quantity::Quantity;
pub use registry::Registry;
pub use schema::{Field, FieldType, ListKind, MapKind, PatchRule, Schema, TypeId};
pub use selector::{FieldSelector, LabelSelector};
pub use snapshot::{Index, Snapshot, Stream};
pub use status::{Cause, Reason, Status};
pub use term::Term;

/// A parsed JSON document. It belongs to one request or one plan and dies with it; what is kept is bytes ([`Object`]).
pub type Tree = serde_json::Value;
pub use k8s_openapi;
