//! The compiled description against upstream's OpenAPI: types, fields, required, list and patch extensions, defaults.

use std::collections::{BTreeMap, BTreeSet};

use api::schema::{Field, FieldType, ListKind, MapKind};
use api::{Schema, Tree, builtin};

use crate::reference_json;

const GROUPS: [&str; 23] = [
    "api_v1",
    "apis_admissionregistration.k8s.io_v1",
    "apis_apiextensions.k8s.io_v1",
    "apis_apiregistration.k8s.io_v1",
    "apis_apps_v1",
    "apis_authentication.k8s.io_v1",
    "apis_authorization.k8s.io_v1",
    "apis_autoscaling_v1",
    "apis_autoscaling_v2",
    "apis_batch_v1",
    "apis_certificates.k8s.io_v1",
    "apis_coordination.k8s.io_v1",
    "apis_discovery.k8s.io_v1",
    "apis_events.k8s.io_v1",
    "apis_flowcontrol.apiserver.k8s.io_v1",
    "apis_networking.k8s.io_v1",
    "apis_node.k8s.io_v1",
    "apis_policy_v1",
    "apis_rbac.authorization.k8s.io_v1",
    "apis_resource.k8s.io_v1",
    "apis_scheduling.k8s.io_v1",
    "apis_storage.k8s.io_v1",
    "version",
];

/// Where we differ on purpose. A line is `definition.field: what ours theirs`.
const KNOWN: &str = include_str!("description_known.txt");

const DEFAULTS: &str = include_str!("../../facts/defaults.txt");

/// Structs that JSON shows only within others.
const INLINED: [&str; 3] = ["EphemeralContainerCommon", "Rule", "LocalObjectReference"];

#[test]
fn equals_upstream_but_for_listed_differences() {
    let mut theirs: BTreeMap<String, Tree> = BTreeMap::new();
    for group in GROUPS {
        let Some(document) = reference_json(&format!("openapi-v3/{group}.json")) else { return };
        let schemas = document["components"]["schemas"].as_object().unwrap().clone();
        theirs.extend(schemas);
    }
    let mut found = BTreeSet::new();
    for (name, theirs) in &theirs {
        match builtin::schema(name) {
            Some(ours) => compare(name, &ours, theirs, &mut found),
            None if theirs.get("properties").is_some() => drop(found.insert(format!("{name}: missing"))),
            None => {}
        }
    }
    let known: BTreeSet<String> =
        KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect();
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "new: {new:#?}\ngone: {gone:#?}");
}

fn compare(name: &str, ours: &Schema, theirs: &Tree, found: &mut BTreeSet<String>) {
    let short = name.trim_start_matches("io.k8s.");
    let empty = serde_json::Map::new();
    let properties = theirs.get("properties").and_then(Tree::as_object).unwrap_or(&empty);
    let required: Vec<&str> =
        theirs.get("required").and_then(Tree::as_array).into_iter().flatten().filter_map(Tree::as_str).collect();
    let fields = ours.fields();
    for field in &fields {
        if !properties.contains_key(field.name.as_str()) {
            found.insert(format!("{short}.{}: only ours", field.name));
        }
    }
    for (property, theirs) in properties {
        let place = format!("{short}.{property}");
        let Some(field) = fields.iter().find(|field| field.name == property.as_str()) else {
            found.insert(format!("{place}: only theirs"));
            continue;
        };
        let mut differ = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                found.insert(format!("{place}: {what} {ours} {theirs}"));
            }
        };
        differ("required", field.required.to_string(), required.contains(&property.as_str()).to_string());
        differ("type", type_name(&field.ty, ours), their_type(theirs));
        differ("list", list(field), their_list(theirs));
        differ("patch", patch(field), their_patch(theirs));
        if !set_in_code(name, field, theirs) {
            differ("default", default(field), their_default(theirs));
        }
        differ("enum", enumeration(field), their_enumeration(theirs));
        differ(
            "map",
            (field.map == MapKind::Atomic).to_string(),
            (theirs["x-kubernetes-map-type"] == "atomic").to_string(),
        );
    }
    if (ours.ty().map == MapKind::Atomic) != (theirs["x-kubernetes-map-type"] == "atomic") {
        found.insert(format!("{short}: atomic {:?}", ours.ty().map));
    }
}

/// Defaults that upstream sets in code are not in its documents: our list of them is the reason.
fn set_in_code(name: &str, field: &Field, theirs: &Tree) -> bool {
    let zero = their_default(theirs) == "-" || theirs["default"] == api::openapi::zero(&field.ty);
    let told = DEFAULTS.lines().filter(|line| !line.starts_with('#')).any(|line| {
        let mut words = line.split(' ');
        let ty = words.next().unwrap_or_default();
        let (package, kind) = ty.rsplit_once('.').unwrap_or_default();
        let same = name.ends_with(ty) || (name.contains(package) && INLINED.contains(&kind));
        same && words.any(|word| word.split('=').next() == Some(field.name.as_str()))
    });
    zero && told
}

fn type_name(ty: &FieldType, schema: &Schema) -> String {
    match ty {
        FieldType::String | FieldType::Duration => "string".to_owned(),
        FieldType::Bool => "boolean".to_owned(),
        FieldType::Int32 => "int32".to_owned(),
        FieldType::Int64 => "int64".to_owned(),
        FieldType::Double => "double".to_owned(),
        FieldType::Bytes => "byte".to_owned(),
        FieldType::Quantity => "Quantity".to_owned(),
        FieldType::IntOrString => "IntOrString".to_owned(),
        FieldType::Time => "Time".to_owned(),
        FieldType::MicroTime => "MicroTime".to_owned(),
        FieldType::FieldsV1 => "FieldsV1".to_owned(),
        FieldType::RawExtension => "RawExtension".to_owned(),
        FieldType::Any => "any".to_owned(),
        FieldType::Struct(id) => {
            let name = schema.at(*id).ty().name.clone();
            name.rsplit('.').next().unwrap_or_default().to_owned()
        }
        FieldType::List(inner) => format!("[]{}", type_name(inner, schema)),
        FieldType::Map(inner) => format!("map {}", type_name(inner, schema)),
    }
}

fn their_type(node: &Tree) -> String {
    let reference = node["$ref"].as_str().or_else(|| node["allOf"][0]["$ref"].as_str());
    if let Some(reference) = reference {
        let name = reference.rsplit('.').next().unwrap();
        return if name.starts_with("JSON") && name != "JSONSchemaProps" && !name.starts_with("JSONPatch") {
            "any".to_owned()
        } else {
            name.to_owned()
        };
    }
    if let Some(format) = node["format"].as_str().filter(|_| node["type"] != "array") {
        return format.to_owned();
    }
    match node["type"].as_str().unwrap_or_default() {
        "array" => format!("[]{}", their_type(&node["items"])),
        "object" => format!("map {}", their_type(&node["additionalProperties"])),
        other => other.to_owned(),
    }
}

fn list(field: &Field) -> String {
    match &field.list {
        ListKind::Atomic => "atomic".to_owned(),
        ListKind::Set => "set".to_owned(),
        ListKind::Map(keys) => format!("map({})", keys.join(",")),
    }
}

fn their_list(node: &Tree) -> String {
    match node["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = node["x-kubernetes-list-map-keys"].as_array().unwrap().iter();
            format!("map({})", keys.filter_map(Tree::as_str).collect::<Vec<_>>().join(","))
        }
        Some(other) => other.to_owned(),
        // Server-side apply treats what is not marked as atomic.
        None => "atomic".to_owned(),
    }
}

fn patch(field: &Field) -> String {
    let rule = &field.patch;
    let words = [(rule.merge, "merge"), (rule.retain_keys, "retainKeys")];
    let words: Vec<&str> = words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
    format!("{}:{}", words.join(","), rule.merge_key)
}

fn their_patch(node: &Tree) -> String {
    let strategy = node["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
    let strategy = if strategy == "replace" { "" } else { strategy };
    format!("{strategy}:{}", node["x-kubernetes-patch-merge-key"].as_str().unwrap_or_default())
}

/// Upstream's document gives the zero of Go as the default of what is never absent; ours applies only what matters.
fn default(field: &Field) -> String {
    match &field.default {
        Some(value) => value.to_string(),
        None if field.proto_optional && field.required => api::openapi::zero(&field.ty).to_string(),
        None => "-".to_owned(),
    }
}

fn their_default(node: &Tree) -> String {
    node.get("default").map_or("-".to_owned(), Tree::to_string)
}

fn enumeration(field: &Field) -> String {
    let rules = field.rules.as_deref();
    let values = rules.map(|rules| rules.items.as_deref().unwrap_or(rules).enumeration.clone());
    sorted(values.unwrap_or_default())
}

fn their_enumeration(node: &Tree) -> String {
    let values = node.get("enum").or_else(|| node["items"].get("enum"));
    sorted(values.and_then(Tree::as_array).cloned().unwrap_or_default())
}

fn sorted(values: Vec<Tree>) -> String {
    let mut words: Vec<String> = values.iter().map(Tree::to_string).collect();
    words.sort();
    words.join(",")
}
