//! A write as the API server hands it over: decoded, routed, and from someone known.

use std::collections::BTreeMap;

use api::kind::KindRef;
use api::{PatchType, Preconditions, Propagation, Subresource, Term, Tree};
use base::SmolStr;

/// Who asks. Made by authentication (or by the in-process transport, for a role of this binary).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: SmolStr,
    pub uid: SmolStr,
    pub groups: Vec<SmolStr>,
    pub extra: BTreeMap<SmolStr, Vec<SmolStr>>,
}

/// A request with its requester.
#[derive(Clone, Debug)]
pub struct Identified<T> {
    pub user: User,
    pub request: T,
}

/// A write to one object.
#[derive(Clone, Debug)]
pub struct Request {
    /// The row that the client named, also where objects are stored in the form of another.
    pub kind: KindRef,
    pub subresource: Option<Subresource>,
    pub namespace: SmolStr,
    /// Empty for a creation by `generateName` or by the name in the body.
    pub name: SmolStr,
    pub verb: WriteVerb,
    pub options: Options,
}

#[derive(Clone, Debug)]
pub enum WriteVerb {
    Create(Body),
    Update(Body),
    Patch { patch: PatchType, body: Body },
    Delete { when: Preconditions, propagation: Option<Propagation>, grace_seconds: Option<i64> },
}

/// A decoded body and what the decoder saw that the tree cannot hold.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub tree: Tree,
    /// Paths of duplicate keys, as `spec.replicas`; an error under strict field validation.
    pub duplicates: Vec<String>,
}

/// What goes with a write: query parameters (`CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions`) and what
/// the head of the request says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub dry_run: bool,
    pub field_manager: SmolStr,
    pub field_validation: FieldValidation,
    /// The user agent, from which a field manager's default name is derived.
    pub user_agent: SmolStr,
    /// Of the requester: once it is over, the write does not happen.
    pub term: Option<Term>,
}

/// What unknown and duplicate fields do. The default of the API is `Warn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}
