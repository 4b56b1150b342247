//! What the table holds, before it is written: types and fields with everything known about them.

use crate::shape::{Declared, FieldType, ListKind};

/// A value's shape; structs go by full definition name.
pub type Shape = FieldType<String>;
pub type List = ListKind<String>;

/// What comments, or facts of ours, say about a field beside its type.
#[derive(Clone, Debug, Default)]
pub struct Markers {
    pub list: Option<List>,
    pub atomic: bool,
    pub merge: bool,
    pub retain_keys: bool,
    pub merge_key: String,
    /// JSON text.
    pub default: Option<String>,
    pub rules: Declared,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub number: u32,
    pub shape: Shape,
    pub required: bool,
    pub inline: bool,
    /// Zero is not absence: a pointer in Go, or written even when zero.
    pub keeps_zero: bool,
    pub text: String,
    pub markers: Markers,
}

#[derive(Clone, Debug)]
pub struct Type {
    pub name: String,
    pub text: String,
    pub atomic: bool,
    pub fields: Vec<Field>,
}

pub struct Model {
    pub types: Vec<Type>,
}

// === impl Model ===

impl Model {
    /// The counts that this build has been proven with. Another number means that a source changed under us.
    pub fn assert_counts(&self) {
        let fields = || self.types.iter().flat_map(|ty| &ty.fields);
        let count = |wanted: &dyn Fn(&Field) -> bool| fields().filter(|field| wanted(field)).count();
        let counts = [
            ("types", self.types.len(), 581),
            ("fields", fields().count(), 2463),
            ("inlined structs", count(&|field| field.inline), 17),
            ("set lists", count(&|field| field.markers.list == Some(List::Set)), 16),
            ("map lists", count(&|field| matches!(field.markers.list, Some(List::Map(_)))), 59),
            ("merged by patches", count(&|field| field.markers.merge), 56),
        ];
        let wrong: Vec<String> = counts
            .iter()
            .filter(|(_, found, wanted)| found != wanted)
            .map(|(what, found, wanted)| format!("{what}: found {found}, proven with {wanted}"))
            .collect();
        assert!(wrong.is_empty(), "the description changed: {wrong:#?}");
    }
}
