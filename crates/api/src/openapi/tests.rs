//! Documents that clients can use: every reference resolves, kinds are found by path and by extension.

use std::collections::BTreeSet;

use serde_json::json;

use super::{v2, v2_protobuf, v3};
use crate::{Tree, builtin, crd};

fn references(tree: &Tree, found: &mut BTreeSet<String>) {
    match tree {
        Tree::Object(members) => {
            for (name, value) in members {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(reference) => drop(found.insert(reference.to_owned())),
                    None => references(value, found),
                }
            }
        }
        Tree::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn check_references(document: &Tree) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(found.len() > 3);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_group_has_a_document_without_loose_ends() {
    let registry = builtin::registry();
    for (group, versions) in builtin::groups() {
        for version in versions {
            let document: Tree = serde_json::from_str(&v3(&registry, group, version).unwrap()).unwrap();
            check_references(&document);
        }
    }
    assert!(v3(&registry, "absent.example.com", "v1").is_none());
    check_references(&serde_json::from_str(&v2(&registry)).unwrap());
}

#[test]
fn explain_and_validation_find_what_they_need() {
    let document: Tree = serde_json::from_str(&v3(&builtin::registry(), "apps", "v1").unwrap()).unwrap();
    let gvk = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    let path = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(path["get"]["x-kubernetes-group-version-kind"], gvk);
    let parameters = path["patch"]["parameters"].as_array().unwrap();
    for wanted in ["dryRun", "fieldValidation"] {
        assert!(parameters.iter().any(|parameter| parameter["name"] == wanted), "{wanted}");
    }
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"], json!([gvk]));
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert!(containers["description"].as_str().unwrap().contains("List of containers"));
    let volume = &schemas["io.k8s.api.core.v1.Volume"]["properties"];
    assert!(volume["emptyDir"].is_object(), "inlined structs are seen through");
    assert!(schemas["io.k8s.api.autoscaling.v1.Scale"].is_object(), "bodies of subresources are there");
}

#[test]
fn custom_kinds_are_documented_as_written() {
    let definition = json!({"spec": {"group": "stable.example.com", "scope": "Namespaced",
        "names": {"plural": "tabs", "kind": "Tab"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "description": "A tab.", "properties": {
                "spec": {"type": "object", "properties": {"n": {"type": "integer", "description": "How many.", "nullable": true}}}}}}}]}});
    let mut registry = builtin::registry();
    registry.insert(crd::kind_of(&definition, "v1", 1).unwrap().into());
    let document: Tree = serde_json::from_str(&v3(&registry, "stable.example.com", "v1").unwrap()).unwrap();
    check_references(&document);
    let tab = &document["components"]["schemas"]["com.example.stable.v1.Tab"];
    assert_eq!(tab["properties"]["spec"]["properties"]["n"]["description"], "How many.");
    assert_eq!(tab["x-kubernetes-group-version-kind"][0]["kind"], "Tab");
    let document: Tree = serde_json::from_str(&v2(&registry)).unwrap();
    assert!(
        document["definitions"]["com.example.stable.v1.Tab"]["properties"]["spec"]["properties"]["n"]["nullable"]
            .is_null()
    );
}

#[test]
fn the_protobuf_form_names_every_definition() {
    let registry = builtin::registry();
    let document: Tree = serde_json::from_str(&v2(&registry)).unwrap();
    let bytes = v2_protobuf(&registry);
    assert!(bytes.starts_with(b"\x0a\x032.0\x12"), "the version comes first");
    let text = String::from_utf8_lossy(&bytes);
    for name in document["definitions"].as_object().unwrap().keys() {
        assert!(text.contains(name.as_str()), "{name} is missing");
    }
    assert!(text.contains("x-kubernetes-group-version-kind"));
}
