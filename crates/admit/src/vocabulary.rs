//! What the stages take from the compiled description, by name.

use std::sync::OnceLock;

use api::{FieldType, Quantity, Schema, Tree};

/// A built-in type by its OpenAPI name.
pub(crate) fn schema(name: &str) -> Option<Schema> {
    api::builtin::schema(name)
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
    Quantity::parse(text).ok().map(|quantity| quantity.to_string())
}

/// A quantity field, zero where it is absent or no quantity.
pub(crate) fn quantity(value: &Tree) -> Quantity {
    Quantity::from_tree(value).unwrap_or_default()
}
