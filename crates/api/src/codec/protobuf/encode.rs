//! Trees to messages: fields in the order of their numbers, as upstream writes them.

use super::{EncodeError, leaf, schema_props, wire};
use crate::schema::{Field, FieldType};
use crate::{Schema, Tree};

/// Writes the fields of a struct.
pub(super) fn message(out: &mut Vec<u8>, schema: &Schema, tree: &Tree) -> Result<(), EncodeError> {
    let Tree::Object(members) = tree else {
        return Err(EncodeError { path: String::new(), what: "expected an object".to_owned() });
    };
    let mut fields: Vec<&Field> = schema.ty().fields.iter().filter(|field| field.number > 0).collect();
    fields.sort_by_key(|field| field.number);
    for field in fields {
        if field.inline {
            inlined(out, schema, field, tree)?;
        } else if let Some(value) = members.get(field.name.as_str()).filter(|value| !value.is_null()) {
            self::field(out, schema, field, value).map_err(|error| below(&field.name, error))?;
        }
    }
    Ok(())
}

fn below(name: &str, error: EncodeError) -> EncodeError {
    let join = if error.path.is_empty() || error.path.starts_with('[') { "" } else { "." };
    EncodeError { path: format!("{name}{join}{}", error.path), what: error.what }
}

/// An inlined struct reads its members from the parent's object; one without any is not written.
fn inlined(out: &mut Vec<u8>, schema: &Schema, field: &Field, tree: &Tree) -> Result<(), EncodeError> {
    let inner = schema.child(&field.ty).expect("an inlined field is a struct");
    let present =
        inner.fields().iter().any(|field| tree.get(field.name.as_str()).is_some_and(|value| !value.is_null()));
    if !present {
        return Ok(());
    }
    wire::nested(out, field.number, |out| message(out, &inner, tree))
}

fn field(out: &mut Vec<u8>, schema: &Schema, field: &Field, value: &Tree) -> Result<(), EncodeError> {
    let wrong = |what: &str| EncodeError { path: String::new(), what: what.to_owned() };
    match &field.ty {
        FieldType::List(_) if is_wrapped(schema, field) => {
            wire::nested(out, field.number, |out| items(out, schema, 1, field, value))
        }
        FieldType::List(_) => items(out, schema, field.number, field, value),
        FieldType::Map(inner) => {
            let members = value.as_object().ok_or_else(|| wrong("expected an object"))?;
            for (key, value) in members {
                let entry = wire::nested(out, field.number, |out| {
                    wire::text(out, 1, key);
                    single(out, schema, 2, field, inner, value)
                });
                entry.map_err(|error| below(key, error))?;
            }
            Ok(())
        }
        ty => single(out, schema, field.number, field, ty, value),
    }
}

fn items(out: &mut Vec<u8>, schema: &Schema, number: u32, field: &Field, value: &Tree) -> Result<(), EncodeError> {
    let FieldType::List(inner) = &field.ty else { unreachable!("called for lists") };
    let items = value.as_array();
    let items = items.ok_or_else(|| EncodeError { path: String::new(), what: "expected a list".to_owned() })?;
    for (at, item) in items.iter().enumerate() {
        single(out, schema, number, field, inner, item).map_err(|error| below(&format!("[{at}]"), error))?;
    }
    Ok(())
}

/// One value. A list here is the value of a map: upstream wraps it in a message of its items.
fn single(
    out: &mut Vec<u8>,
    schema: &Schema,
    number: u32,
    field: &Field,
    ty: &FieldType,
    value: &Tree,
) -> Result<(), EncodeError> {
    match ty {
        // A null within a list or a map, such as the zero of a time: a message without fields.
        FieldType::String | FieldType::Bool | FieldType::Int32 | FieldType::Int64 if value.is_null() => Ok(()),
        _ if value.is_null() => wire::nested(out, number, |_| Ok(())),
        FieldType::Struct(id) => {
            let inner = schema.at(*id);
            wire::nested(out, number, |out| message(out, &inner, value))
        }
        FieldType::List(inner) => wire::nested(out, number, |out| {
            for item in value.as_array().into_iter().flatten() {
                single(out, schema, 1, field, inner, item)?;
            }
            Ok(())
        }),
        FieldType::Map(_) => Err(EncodeError { path: String::new(), what: "a map within a map".to_owned() }),
        FieldType::Any => schema_props::encode(out, schema, number, &field.name, value),
        ty => leaf::encode(out, number, ty, value),
    }
}

/// `APIResource.verbs` is the one list that upstream has a message for.
pub(super) fn is_wrapped(schema: &Schema, field: &Field) -> bool {
    field.name == "verbs" && schema.ty().name.ends_with(".meta.v1.APIResource")
}
