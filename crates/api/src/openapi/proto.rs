//! The v2 document in the protobuf form that command-line clients ask for.
//!
//! It holds the definitions alone: paths and bounds of numbers are in the JSON form, and no client reads them here.

use super::definitions::Definitions;
use super::{Dialect, info};
use crate::codec::protobuf::wire;
use crate::{Registry, Tree};

/// The one OpenAPI v2 document of everything served, as protobuf.
pub fn v2_protobuf(registry: &Registry) -> Vec<u8> {
    let mut definitions = Definitions::new(Dialect::V2, registry);
    for kind in registry.iter() {
        definitions.root(kind);
    }
    let mut members = Vec::new();
    for (name, tree) in definitions.members() {
        wire::bytes(&mut members, 1, &named(&name, &schema(&tree)));
    }
    let mut about = Vec::new();
    for (number, member) in [(1, "title"), (2, "version")] {
        wire::text(&mut about, number, info()[member].as_str().unwrap_or_default());
    }
    let mut out = Vec::with_capacity(members.len() + 64);
    wire::text(&mut out, 1, "2.0");
    wire::bytes(&mut out, 2, &about);
    wire::bytes(&mut out, 8, &[]);
    wire::bytes(&mut out, 9, &members);
    out
}

fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + value.len() + 8);
    wire::text(&mut out, 1, name);
    wire::bytes(&mut out, 2, value);
    out
}

/// Any value at all: as text, of which JSON is one spelling.
fn any(value: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    wire::text(&mut out, 2, &value.to_string());
    out
}

fn schema(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for (member, value) in tree.as_object().into_iter().flatten() {
        put(&mut out, member, value);
    }
    out
}

/// Writes one member of a schema under the number it has there.
fn put(out: &mut Vec<u8>, member: &str, value: &Tree) {
    let mut inner = Vec::new();
    match (member, value) {
        ("$ref", Tree::String(text)) => wire::text(out, 1, text),
        ("format", Tree::String(text)) => wire::text(out, 2, text),
        ("title", Tree::String(text)) => wire::text(out, 3, text),
        ("description", Tree::String(text)) => wire::text(out, 4, text),
        ("default", value) => wire::bytes(out, 5, &any(value)),
        ("pattern", Tree::String(text)) => wire::text(out, 13, text),
        ("required", Tree::Array(names)) => names.iter().filter_map(Tree::as_str).for_each(|n| wire::text(out, 19, n)),
        ("enum", Tree::Array(values)) => values.iter().for_each(|value| wire::bytes(out, 20, &any(value))),
        ("additionalProperties", Tree::Bool(open)) => {
            wire::number(&mut inner, 2, u64::from(*open));
            wire::bytes(out, 21, &inner);
        }
        ("additionalProperties", value) => {
            wire::bytes(&mut inner, 1, &schema(value));
            wire::bytes(out, 21, &inner);
        }
        ("type", Tree::String(text)) => {
            wire::text(&mut inner, 1, text);
            wire::bytes(out, 22, &inner);
        }
        ("items", value) => {
            wire::bytes(&mut inner, 1, &schema(value));
            wire::bytes(out, 23, &inner);
        }
        ("allOf", Tree::Array(parts)) => parts.iter().for_each(|part| wire::bytes(out, 24, &schema(part))),
        ("properties", Tree::Object(members)) => {
            for (name, value) in members {
                wire::bytes(&mut inner, 1, &named(name, &schema(value)));
            }
            wire::bytes(out, 25, &inner);
        }
        (name, value) if name.starts_with("x-") => wire::bytes(out, 31, &named(name, &any(value))),
        _ => {}
    }
}
