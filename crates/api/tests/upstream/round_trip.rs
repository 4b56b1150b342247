//! Every kind, filled at random by its schema, survives protobuf.

use api::codec::protobuf;
use api::schema::{Field, FieldType, Schema};
use api::{Gvk, Kind, Tree, builtin};
use base::{Rng, SeededRng};
use serde_json::{Map, json};

/// Objects of each kind.
const ROUNDS: u64 = 4;
/// Levels below the object that are filled: deep enough for a probe of a container of a template.
const DEPTH_MAX: usize = 9;

#[test]
fn every_kind_survives_protobuf() {
    for kind in builtin::registry().iter() {
        for round in 0..ROUNDS {
            let rng = SeededRng::new(round);
            let mut object = fill(&rng, &kind.schema, 0);
            object["apiVersion"] = json!(kind.gvk.api_version());
            object["kind"] = json!(kind.gvk.kind);
            check(kind, &object, round);
        }
    }
}

fn check(kind: &Kind, object: &Tree, seed: u64) {
    let find = |gvk: &Gvk| (*gvk == kind.gvk).then(|| kind.schema.clone());
    let bytes = protobuf::encode(&kind.schema, &kind.gvk, object).unwrap();
    let (_, decoded) = protobuf::decode(find, &bytes).unwrap();
    assert_eq!(decoded, *object, "{} with seed {seed}", kind.gvk);
}

fn fill(rng: &SeededRng, schema: &Schema, depth: usize) -> Tree {
    let mut members = Map::new();
    for field in schema.fields().into_iter().filter(|field| field.number > 0) {
        let sparse = if depth < 3 { 2 } else { 4 };
        if depth < DEPTH_MAX && rng.next_u64().is_multiple_of(sparse) {
            members.insert(field.name.to_string(), value(rng, schema, field, &field.ty, depth));
        }
    }
    Tree::Object(members)
}

fn value(rng: &SeededRng, schema: &Schema, field: &Field, ty: &FieldType, depth: usize) -> Tree {
    let number = rng.next_u64();
    // Zeros of fields that Go always writes do not come back: they are absence.
    let zero = field.proto_optional && number.is_multiple_of(5);
    let small = if zero { 0 } else { 1 + number % 1000 };
    let sign = |n: u64| if number.is_multiple_of(2) { n.cast_signed() } else { -n.cast_signed() };
    let count = 1 + number % 3;
    match ty {
        FieldType::String => json!(if zero { String::new() } else { format!("text-{small}") }),
        FieldType::Bool => json!(!zero),
        FieldType::Int32 => json!(sign(small)),
        FieldType::Int64 => json!(sign(small << 40)),
        FieldType::Double => json!(small as f64 / 8.0),
        FieldType::Bytes => json!(["AAEC", "", "//8="][(number % 3) as usize]),
        FieldType::Quantity => json!(["100m", "2Gi", "1e3", "0"][(number % 4) as usize]),
        FieldType::IntOrString => [json!(number % 65_536), json!("25%")][(number % 2) as usize].clone(),
        FieldType::Time => json!("2026-11-22T17:00:00Z"),
        FieldType::MicroTime => json!("2026-11-22T17:00:00.000123Z"),
        FieldType::Duration => json!("1h30m0s"),
        FieldType::FieldsV1 => json!({"f:spec": {"f:x": {}, "k:{\"a\":1}": {".": {}}}}),
        FieldType::RawExtension => json!({"apiVersion": "v1", "n": small}),
        FieldType::Any => any(&field.name, number),
        FieldType::Struct(id) => fill(rng, &schema.at(*id), depth + 1),
        FieldType::List(inner) => (0..count).map(|_| value(rng, schema, field, inner, depth)).collect(),
        FieldType::Map(inner) => {
            let members = (0..count).map(|at| (format!("key-{at}"), value(rng, schema, field, inner, depth)));
            Tree::Object(members.collect())
        }
    }
}

/// The shapes that a schema's own fields take.
fn any(name: &str, number: u64) -> Tree {
    let schema = json!({"type": "string", "minLength": 0});
    match (name, number % 2) {
        ("items", 0) => json!([schema, schema]),
        ("additionalProperties" | "additionalItems", 0) => json!(number.is_multiple_of(4)),
        ("dependencies", 0) => json!(["a", "b"]),
        ("items" | "additionalProperties" | "additionalItems" | "dependencies", _) => schema,
        (_, _) => json!({"a": [1, "b", null]}),
    }
}
