//! OpenAPI documents, made from the table and the registry when asked for.

use serde_json::json;

use crate::{FieldType, Tree};

/// The zero of Go, which upstream's documents give as the default of what is never absent.
pub fn zero(ty: &FieldType) -> Tree {
    match ty {
        FieldType::Bool => json!(false),
        FieldType::Int32 | FieldType::Int64 => json!(0),
        FieldType::Double => json!(0.0),
        _ => json!(""),
    }
}
