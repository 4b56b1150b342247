//! What the stages take from the compiled description, by name.

use std::sync::OnceLock;

use api::{FieldType, Schema};

/// A built-in type by its OpenAPI name.
pub(crate) fn schema(name: &str) -> Option<Schema> {
    let _ = name;
    None
}

/// ObjectMeta, with the field type that stands for it.
pub(crate) fn object_meta() -> Option<(&'static Schema, &'static FieldType)> {
    static META: OnceLock<Option<(Schema, FieldType)>> = OnceLock::new();
    let found = META.get_or_init(|| {
        let schema = schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
        let root = FieldType::Struct(schema.id());
        Some((schema, root))
    });
    found.as_ref().map(|(schema, root)| (schema, root))
}

/// The canonical text of a quantity; None for what is not one.
pub(crate) fn canonical_quantity(text: &str) -> Option<String> {
    Some(text.to_owned())
}
