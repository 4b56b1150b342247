//! The compiled description: which fields a type has, what they hold, how lists merge, what is filled in.
//!
//! One table serves decoding, pruning, defaulting, strategic merge, server-side apply, protobuf, OpenAPI and
//! `kubectl explain`; built-in types come from the build, custom ones from a CRD's structural schema.

use std::fmt;
use std::sync::Arc;

use base::SmolStr;
use bytes::Bytes;

use crate::{Tree, shape};

/// A type in its table. Cheap to clone; walking a document is walking schemas.
#[derive(Clone)]
pub struct Schema {
    table: Arc<Table>,
    id: TypeId,
}

/// A position in a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// All types of one origin: the built-in description, or one CRD version.
#[derive(Debug, Default)]
pub struct Table {
    pub types: Vec<Type>,
    /// A custom kind's structural schema as it was written, for its documents. Empty for the built-in table.
    pub source: Bytes,
}

/// A message type: an object with known fields.
#[derive(Clone, Debug, Default)]
pub struct Type {
    /// OpenAPI definition name: `io.k8s.api.core.v1.Pod`. Empty for the anonymous types of a CRD.
    pub name: SmolStr,
    /// Sorted by `Field::name`.
    pub fields: Vec<Field>,
    /// Keep unknown fields (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`: apiVersion, kind and metadata are implied.
    pub embedded: bool,
    pub map: MapKind,
    /// Constraints on the whole object, for a root; others have them on the field that holds the object.
    pub rules: Option<Box<Rules>>,
    /// Where the description text is, see `builtin::description`; 0 is none.
    pub description: u32,
}

#[derive(Clone, Debug)]
pub struct Field {
    /// JSON name.
    pub name: SmolStr,
    /// Protobuf field number; 0 where there is none (custom resources).
    pub number: u32,
    pub ty: FieldType,
    pub required: bool,
    pub nullable: bool,
    /// Filled in when the field is absent.
    pub default: Option<Tree>,
    pub list: ListKind,
    pub map: MapKind,
    /// Strategic merge.
    pub patch: PatchRule,
    pub rules: Option<Box<Rules>>,
    pub description: u32,
    /// True where Go inlines the struct: its fields are the parent's in JSON but a message of its own in protobuf.
    /// Such a field has an empty `name`; lookups by JSON name see through it.
    pub inline: bool,
    /// Bool, number and string fields without `omitempty` or that are pointers keep their zero value in protobuf.
    pub proto_optional: bool,
}

/// What a field or an element holds.
pub type FieldType = shape::FieldType<TypeId>;
/// How server-side apply merges a list.
pub type ListKind = shape::ListKind<SmolStr>;

/// Whether server-side apply merges an object field by field (`x-kubernetes-map-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapKind {
    #[default]
    Granular,
    Atomic,
}

/// How strategic merge treats a field (`x-kubernetes-patch-strategy`, `-merge-key`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchRule {
    pub merge: bool,
    pub retain_keys: bool,
    /// Empty for lists of scalars.
    pub merge_key: SmolStr,
}

/// Constraints on a value (declarative validation, CRD schemas). Absent means unconstrained.
#[derive(Debug, Default, Clone)]
pub struct Rules {
    pub enumeration: Vec<Tree>,
    pub format: SmolStr,
    pub pattern: SmolStr,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub length_min: Option<u64>,
    pub length_max: Option<u64>,
    pub items_min: Option<u64>,
    pub items_max: Option<u64>,
    pub unique_items: bool,
    pub properties_min: Option<u64>,
    pub properties_max: Option<u64>,
    /// An absent or empty value is refused, with these words (mostly none).
    pub filled: Option<SmolStr>,
    /// No two items are the same, or the same by these keys.
    pub unique: Option<ListKind>,
    pub immutable: bool,
    /// May be set and taken away, never changed.
    pub no_modify: bool,
    /// Exactly one field of the type that has this is set.
    pub union_member: bool,
    /// `allOf`, `anyOf`, `oneOf`, `not` and `x-kubernetes-validations`, kept as written; read by the validator.
    pub extra: Option<Box<Tree>>,
    /// Rules of the elements of a list or the values of a map.
    pub items: Option<Box<Rules>>,
}

// === impl Schema ===

impl Schema {
    pub fn new(table: Arc<Table>, id: TypeId) -> Schema {
        assert!((id.0 as usize) < table.types.len(), "type {id:?} is not in its table of {}", table.types.len());
        Schema { table, id }
    }

    pub fn id(&self) -> TypeId {
        self.id
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The type this schema stands on.
    pub fn ty(&self) -> &Type {
        &self.table.types[self.id.0 as usize]
    }

    /// Another type of the same table.
    pub fn at(&self, id: TypeId) -> Schema {
        Schema::new(self.table.clone(), id)
    }

    /// The field with this JSON name, seen through inlined structs.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.table.field(self.id, name)
    }

    /// All fields that JSON knows, seen through inlined structs.
    pub fn fields(&self) -> Vec<&Field> {
        self.table.json_fields(self.id)
    }

    /// The schema of a struct-typed field, list element or map value.
    pub fn child(&self, ty: &FieldType) -> Option<Schema> {
        match ty {
            FieldType::Struct(id) => Some(self.at(*id)),
            FieldType::List(inner) | FieldType::Map(inner) => self.child(inner),
            _ => None,
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({} #{})", self.ty().name, self.id.0)
    }
}

// === impl Table ===

impl Table {
    pub fn ty(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    pub fn field(&self, id: TypeId, name: &str) -> Option<&Field> {
        let fields = &self.ty(id).fields;
        if let Ok(at) = fields.binary_search_by(|field| field.name.as_str().cmp(name)) {
            return Some(&fields[at]);
        }
        fields.iter().filter(|field| field.inline).find_map(|field| match field.ty {
            FieldType::Struct(inner) => self.field(inner, name),
            _ => None,
        })
    }
    /// All fields that JSON knows, seen through inlined structs, in no particular order.
    pub fn json_fields(&self, id: TypeId) -> Vec<&Field> {
        let mut found = Vec::new();
        for field in &self.ty(id).fields {
            match field.ty {
                FieldType::Struct(inner) if field.inline => found.extend(self.json_fields(inner)),
                _ => found.push(field),
            }
        }
        found
    }
}
