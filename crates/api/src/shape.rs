//! What a field holds, how its list merges, what rules it has: the words that the build script writes the compiled
//! description in and `builtin/read.rs` reads it by. Both include this file; it names nothing else of the crate.

use serde::{Deserialize, Serialize};

/// What a field or an element holds. A struct is named as `S`: by its definition in the build, by its id in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldType<S> {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 text in JSON.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Go duration text.
    Duration,
    /// Managed fields' field set: an object whose keys start with `f:`, `k:`, `v:`, `i:` or are `.`.
    FieldsV1,
    /// `runtime.RawExtension`: any object.
    RawExtension,
    /// Any JSON value.
    Any,
    Struct(S),
    List(Box<FieldType<S>>),
    Map(Box<FieldType<S>>),
}

/// How server-side apply merges a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind<N> {
    #[default]
    Atomic,
    Set,
    /// Elements are objects told apart by these keys.
    Map(Vec<N>),
}

/// Rules of a field that the description's comments, or facts of ours, declare.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Declared {
    /// An absent or empty value is refused, with these words (mostly none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filled: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enumeration: Vec<serde_json::Value>,
    /// `k8s-short-name` and its like.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// No two items are the same, or the same by these keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_false")]
    pub immutable: bool,
    /// May be set and taken away, never changed.
    #[serde(skip_serializing_if = "is_false")]
    pub no_modify: bool,
    /// Exactly one field of the type that has this is set.
    #[serde(skip_serializing_if = "is_false")]
    pub union_member: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The shapes without anything inside, in the order of their codes.
pub fn plain<S>() -> [FieldType<S>; 14] {
    [
        FieldType::String,
        FieldType::Bool,
        FieldType::Int32,
        FieldType::Int64,
        FieldType::Double,
        FieldType::Bytes,
        FieldType::Quantity,
        FieldType::IntOrString,
        FieldType::Time,
        FieldType::MicroTime,
        FieldType::Duration,
        FieldType::FieldsV1,
        FieldType::RawExtension,
        FieldType::Any,
    ]
}

/// The codes after the plain ones, whose places in [`plain`] are theirs.
pub const STRUCT_CODE: usize = 14;
pub const LIST_CODE: usize = 15;
pub const MAP_CODE: usize = 16;
