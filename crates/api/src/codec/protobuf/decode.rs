//! Messages to trees. Fields that the table does not know are passed over, as upstream does.

use serde_json::{Map, json};

use super::wire::{self, Value};
use super::{DecodeError, encode, leaf, schema_props};
use crate::schema::{Field, FieldType};
use crate::{Schema, Tree};

pub(super) fn message(schema: &Schema, bytes: &[u8], depth: usize) -> Result<Tree, DecodeError> {
    let mut members = Map::new();
    read(schema, bytes, depth, &mut members)?;
    Ok(Tree::Object(members))
}

/// Reads a message's fields into an object; inlined structs read into their parent's.
fn read(schema: &Schema, bytes: &[u8], depth: usize, members: &mut Map<String, Tree>) -> Result<(), DecodeError> {
    if depth > base::limits::NESTING_DEPTH_MAX {
        return Err(DecodeError::Depth);
    }
    for entry in wire::fields(bytes) {
        let (number, value) = entry?;
        let Some(field) = schema.ty().fields.iter().find(|field| field.number == number) else { continue };
        if field.inline {
            let inner = schema.child(&field.ty).expect("an inlined field is a struct");
            read(&inner, value.bytes(number)?, depth + 1, members)?;
        } else {
            self::field(schema, field, value, depth, members)?;
        }
    }
    Ok(())
}

fn field(
    schema: &Schema,
    field: &Field,
    value: Value<'_>,
    depth: usize,
    members: &mut Map<String, Tree>,
) -> Result<(), DecodeError> {
    let name = field.name.as_str();
    match &field.ty {
        FieldType::List(inner) if encode::is_wrapped(schema, field) => {
            let items = wrapped(schema, field, inner, value.bytes(field.number)?, depth)?;
            members.insert(name.to_owned(), items);
        }
        FieldType::List(inner) => {
            let list = members.entry(name).or_insert_with(|| json!([]));
            let list = list.as_array_mut().expect("lists are made above, and names are unique");
            push(list, schema, field, inner, value, depth)?;
        }
        FieldType::Map(inner) => {
            let (key, value) = map_entry(schema, field, inner, value.bytes(field.number)?, depth)?;
            let map = members.entry(name).or_insert_with(|| json!({}));
            map.as_object_mut().expect("maps are made above, and names are unique").insert(key, value);
        }
        ty => {
            let decoded = single(schema, field, ty, field.number, value, depth)?;
            if let Some(decoded) = decoded.filter(|decoded| field.proto_optional || !is_zero(ty, decoded)) {
                members.insert(name.to_owned(), decoded);
            }
        }
    }
    Ok(())
}

/// The zero of a scalar that JSON leaves out. Go always writes it, so absence and zero are one.
fn is_zero(ty: &FieldType, value: &Tree) -> bool {
    match ty {
        FieldType::String => value == "",
        FieldType::Bool => *value == json!(false),
        FieldType::Int32 | FieldType::Int64 => value.as_i64() == Some(0),
        FieldType::Double => value.as_f64() == Some(0.0),
        _ => false,
    }
}

/// Adds one element, or all of a packed list.
fn push(
    list: &mut Vec<Tree>,
    schema: &Schema,
    field: &Field,
    inner: &FieldType,
    value: Value<'_>,
    depth: usize,
) -> Result<(), DecodeError> {
    let integer = matches!(inner, FieldType::Bool | FieldType::Int32 | FieldType::Int64);
    if let (true, Value::Bytes(mut packed)) = (integer, value) {
        while !packed.is_empty() {
            let value = Value::Varint(wire::read_varint(&mut packed)?);
            list.extend(leaf::decode(field.number, inner, value)?);
        }
        return Ok(());
    }
    list.push(single(schema, field, inner, field.number, value, depth)?.unwrap_or(Tree::Null));
    Ok(())
}

fn map_entry(
    schema: &Schema,
    field: &Field,
    inner: &FieldType,
    bytes: &[u8],
    depth: usize,
) -> Result<(String, Tree), DecodeError> {
    let (mut key, mut found) = (String::new(), None);
    for entry in wire::fields(bytes) {
        match entry? {
            (1, value) => value.text(1)?.clone_into(&mut key),
            (2, value) => found = single(schema, field, inner, 2, value, depth)?,
            _ => {}
        }
    }
    let zero = || match inner {
        FieldType::String | FieldType::Bytes => json!(""),
        FieldType::Struct(_) => json!({}),
        _ => Tree::Null,
    };
    Ok((key, found.unwrap_or_else(zero)))
}

fn single(
    schema: &Schema,
    field: &Field,
    ty: &FieldType,
    number: u32,
    value: Value<'_>,
    depth: usize,
) -> Result<Option<Tree>, DecodeError> {
    match ty {
        FieldType::Struct(id) => message(&schema.at(*id), value.bytes(number)?, depth + 1).map(Some),
        FieldType::List(inner) => wrapped(schema, field, inner, value.bytes(number)?, depth).map(Some),
        FieldType::Map(_) => Ok(None),
        FieldType::Any => schema_props::decode(schema, &field.name, value.bytes(number)?, depth + 1),
        ty => leaf::decode(number, ty, value),
    }
}

/// A message of items: `{repeated string items = 1}` is a bare list in JSON.
fn wrapped(schema: &Schema, field: &Field, inner: &FieldType, bytes: &[u8], depth: usize) -> Result<Tree, DecodeError> {
    let mut list = Vec::new();
    for entry in wire::fields(bytes) {
        if let (1, value) = entry? {
            push(&mut list, schema, field, inner, value, depth)?;
        }
    }
    Ok(Tree::Array(list))
}
