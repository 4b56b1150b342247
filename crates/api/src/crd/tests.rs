//! Rows from definitions, and what is refused.

use serde_json::{Value, json};

use super::{kind_of, kinds};
use crate::schema::{FieldType, ListKind};
use crate::{Scope, Verb, columns};

fn definition(schema: Value) -> Value {
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
        "versions": [
            {"name": "v1alpha1", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [{"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]}]}})
}

fn schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer", "format": "int32", "default": 1, "minimum": 0},
            "color": {"type": "string", "enum": ["red", "blue"], "nullable": true},
            "port": {"x-kubernetes-int-or-string": true},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
            "rules": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}}}}})
}

#[test]
fn a_definition_is_a_row() {
    let crd = definition(schema());
    let kinds = kinds(&crd, 7).unwrap();
    let [kind] = kinds.as_slice() else { panic!("only the served version") };
    assert_eq!((kind.gvk.to_string(), kind.scope), ("example.com/v1, Kind=Widget".to_owned(), Scope::Namespaced));
    assert_eq!((kind.singular.as_str(), kind.list_kind.as_str()), ("widget", "WidgetList"));
    assert_eq!((kind.storage.as_str(), kind.storage_version.as_str()), ("example.com/widgets", "v1"));
    assert!(kind.custom && kind.verbs.has(Verb::DeleteCollection) && kind.generation == 7);
    assert_eq!(kind.subresource("scale").unwrap().gvk.kind, "Scale");
    assert_eq!(kind.selectable, ["spec.color"]);
    let object =
        json!({"metadata": {"name": "w", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"replicas": 2}});
    let row = columns::cells(kind, &object, "2026-01-01T00:00:10Z".parse().unwrap());
    assert_eq!(row, [json!("w"), json!(2), json!("10s")]);
}

#[test]
fn structural_schemas_become_types() {
    let kind = kind_of(&definition(schema()), "v1", 0).unwrap();
    let field = |name: &str| {
        let spec = kind.schema.child(&kind.schema.field("spec").unwrap().ty).unwrap();
        (spec.field(name).unwrap().clone(), spec)
    };
    assert!(kind.schema.field("spec").unwrap().required);
    assert_eq!(field("replicas").0.default, Some(json!(1)));
    assert_eq!(field("replicas").0.rules.unwrap().minimum, Some(0.0));
    assert!(field("color").0.nullable);
    assert_eq!(field("port").0.ty, FieldType::IntOrString);
    assert_eq!(field("any").0.ty, FieldType::Any);
    let (open, spec) = field("open");
    assert!(spec.child(&open.ty).unwrap().ty().preserve_unknown);
    let (template, spec) = field("template");
    let template = spec.child(&template.ty).unwrap();
    assert!(template.ty().embedded && template.field("metadata").is_some());
    assert_eq!(field("labels").0.rules.unwrap().items.unwrap().length_max, Some(63));
    assert_eq!(field("rules").0.list, ListKind::Map(vec!["name".into()]));
    let metadata = kind.schema.child(&kind.schema.field("metadata").unwrap().ty).unwrap();
    assert_eq!(metadata.field("finalizers").unwrap().list, ListKind::Set);
}

#[test]
fn what_is_not_structural_is_refused() {
    let check = |schema: Value, wanted: &str| {
        let causes = kind_of(&definition(schema), "v1", 0).unwrap_err();
        let lines: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert!(lines.iter().any(|line| line.ends_with(wanted)), "{lines:?}");
    };
    check(json!({"properties": {}}), "openAPIV3Schema.type: Required value: must not be empty at the root");
    check(json!({"type": "string"}), "Invalid value: \"string\": must be object at the root");
    check(
        json!({"type": "object", "properties": {"a": {}}}),
        "openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
    );
    check(
        json!({"type": "object", "properties": {"a": {"type": "array"}}}),
        "items: Required value: must be specified",
    );
    check(json!({"type": "object", "properties": {"a": {"type": "object", "$ref": "x"}}}), "$ref is not supported");
    check(
        json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"}}}),
        "Required value: must not be empty if x-kubernetes-list-type is map",
    );
    assert!(kind_of(&definition(schema()), "v9", 0).is_err());
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "array", "items": deep});
    }
    check(json!({"type": "object", "properties": {"a": deep}}), "the schema is too large");
}
