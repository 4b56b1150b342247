//! The four values of `apiextensions/v1 JSONSchemaProps` whose JSON has more than one shape.
//!
//! In JSON they are a value, a schema or a list, whatever fits; in protobuf each shape is a field of its own.

use serde_json::json;

use super::wire::{self, Value};
use super::{DecodeError, EncodeError, decode as messages, encode as trees, leaf};
use crate::{FieldType, Schema, Tree};

/// `schema` is that of `JSONSchemaProps`, whose field `name` is.
pub(super) fn encode(
    out: &mut Vec<u8>,
    schema: &Schema,
    number: u32,
    name: &str,
    value: &Tree,
) -> Result<(), EncodeError> {
    match name {
        "items" => wire::nested(out, number, |out| match value {
            Tree::Array(schemas) => {
                schemas.iter().try_for_each(|one| wire::nested(out, 2, |out| trees::message(out, schema, one)))
            }
            one => wire::nested(out, 1, |out| trees::message(out, schema, one)),
        }),
        "additionalProperties" | "additionalItems" => wire::nested(out, number, |out| match value {
            Tree::Bool(allows) => {
                wire::number(out, 1, u64::from(*allows));
                Ok(())
            }
            one => {
                wire::number(out, 1, 1);
                wire::nested(out, 2, |out| trees::message(out, schema, one))
            }
        }),
        "dependencies" => wire::nested(out, number, |out| match value {
            Tree::Array(names) => {
                names.iter().filter_map(Tree::as_str).for_each(|name| wire::text(out, 2, name));
                Ok(())
            }
            one => wire::nested(out, 1, |out| trees::message(out, schema, one)),
        }),
        _ => leaf::encode(out, number, &FieldType::Any, value),
    }
}

pub(super) fn decode(schema: &Schema, name: &str, bytes: &[u8], depth: usize) -> Result<Option<Tree>, DecodeError> {
    if !matches!(name, "items" | "additionalProperties" | "additionalItems" | "dependencies") {
        return leaf::decode(1, &FieldType::Any, Value::Bytes(bytes));
    }
    let (mut one, mut many, mut allows) = (None, Vec::new(), false);
    for entry in wire::fields(bytes) {
        let (number, value) = entry?;
        match (name, number) {
            ("additionalProperties" | "additionalItems", 1) => allows = value.varint(1)? != 0,
            ("additionalProperties" | "additionalItems", 2) | ("items" | "dependencies", 1) => {
                one = Some(messages::message(schema, value.bytes(number)?, depth)?);
            }
            ("items", 2) => many.push(messages::message(schema, value.bytes(2)?, depth)?),
            ("dependencies", 2) => many.push(json!(value.text(2)?)),
            _ => {}
        }
    }
    Ok(Some(match (one, name) {
        (Some(one), _) => one,
        (None, "items" | "dependencies") => Tree::Array(many),
        (None, _) => json!(allows),
    }))
}
