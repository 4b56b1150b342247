//! A kind as a row of data: everything that differs between Pods and ConfigMaps, and nothing else.
//!
//! Routes, discovery, OpenAPI, Table output, RBAC resource names and garbage collection all derive from this row. A
//! custom resource is the same row made at run time.

use std::fmt;
use std::sync::Arc;

use base::SmolStr;

use crate::schema::Schema;

/// Group, version and kind, as `apiVersion` and `kind` name them. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvk {
    pub group: SmolStr,
    pub version: SmolStr,
    pub kind: SmolStr,
}

/// Group, version and resource (the lower-case plural), as URL paths name them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvr {
    pub group: SmolStr,
    pub version: SmolStr,
    pub resource: SmolStr,
}

/// One resource type that the API serves in one version.
#[derive(Clone, Debug)]
pub struct Kind {
    pub gvk: Gvk,
    /// The plural, lower case: `pods`.
    pub resource: SmolStr,
    pub singular: SmolStr,
    pub list_kind: SmolStr,
    pub short_names: Vec<SmolStr>,
    pub categories: Vec<SmolStr>,
    pub scope: Scope,
    /// What may be done to the resource itself; subresources have their own.
    pub verbs: Verbs,
    pub subresources: Vec<Subresource>,
    pub columns: Vec<Column>,
    /// Paths that field selectors may name, beside `metadata.name` and `metadata.namespace`: `spec.nodeName`.
    pub selectable: Vec<SmolStr>,
    pub schema: Schema,
    /// Where objects are kept: `group/resource`, shared by all versions of one kind (and by both event groups).
    pub storage: SmolStr,
    /// The version whose form is stored; other versions are codecs at the edge.
    pub storage_version: SmolStr,
    /// True for a kind made from a CustomResourceDefinition.
    pub custom: bool,
    /// Bumped whenever the row or its schema changes; part of the key of every served form.
    pub generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// A path below an object: `pods/status`. Its body may be of another kind (`Scale`, `Eviction`, `TokenRequest`).
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: SmolStr,
    /// Kind of the body it takes and returns; the parent's own for `status`.
    pub gvk: Gvk,
    pub verbs: Verbs,
}

/// A column of `kubectl get`. `path` is a JSONPath of the CRD dialect for custom kinds; built-in rows that need more
/// than a path name a function of the table printer by `name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: SmolStr,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    pub r#type: SmolStr,
    pub format: SmolStr,
    pub description: SmolStr,
    /// 0 is shown by default; above 0 only with `-o wide`.
    pub priority: i32,
    pub path: SmolStr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// Streams (`exec`, `attach`, `portforward`, `proxy`) are authorised as create or get and routed as connect.
    Connect,
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Verbs(u16);

// === impl Verb ===

impl Verb {
    pub const ALL: [Verb; 9] = [
        Verb::Get,
        Verb::List,
        Verb::Watch,
        Verb::Create,
        Verb::Update,
        Verb::Patch,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Connect,
    ];

    /// The word discovery and RBAC use. `connect` appears in neither.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Connect => "connect",
        }
    }

    pub fn parse(word: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.as_str() == word)
    }
}

// === impl Verbs ===

impl Verbs {
    pub const NONE: Verbs = Verbs(0);

    pub fn of(verbs: &[Verb]) -> Verbs {
        Verbs(verbs.iter().fold(0, |set, verb| set | 1 << *verb as u16))
    }

    pub fn has(self, verb: Verb) -> bool {
        self.0 & 1 << verb as u16 != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.has(*verb))
    }
}

// === impl Kind ===

impl Kind {
    pub fn gvr(&self) -> Gvr {
        Gvr { group: self.gvk.group.clone(), version: self.gvk.version.clone(), resource: self.resource.clone() }
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// True where this row's form is the stored one; the other rows of a storage are views of it (see [`crate::convert`]).
    pub fn is_stored(&self) -> bool {
        let (group, _) = self.storage.rsplit_once('/').unwrap_or_default();
        self.gvk.version == self.storage_version && self.gvk.group == group
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// `deployments.apps`, or `pods` in the core group: how RBAC messages and CRD names spell a resource.
    pub fn qualified_resource(&self) -> String {
        if self.gvk.group.is_empty() {
            return self.resource.to_string();
        }
        format!("{}.{}", self.resource, self.gvk.group)
    }
}

// === impl Gvk, Gvr ===

impl Gvk {
    pub fn new(group: &str, version: &str, kind: &str) -> Gvk {
        Gvk { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Splits `apps/v1` and `v1`. Returns None for more than one slash or an empty version.
    pub fn parse(api_version: &str, kind: &str) -> Option<Gvk> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let whole = !version.is_empty() && !version.contains('/');
        whole.then(|| Gvk::new(group, version, kind))
    }
}

impl Gvr {
    pub fn new(group: &str, version: &str, resource: &str) -> Gvr {
        Gvr { group: group.into(), version: version.into(), resource: resource.into() }
    }

    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The URL path of the collection or, with a name, of the object.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{root}/{}", self.api_version());
        if let Some(namespace) = namespace {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.resource);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.resource)
    }
}

/// Rows are shared: a request keeps the row it was routed by even when a CRD changes meanwhile.
pub type KindRef = Arc<Kind>;
