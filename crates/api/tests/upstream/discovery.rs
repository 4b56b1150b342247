//! The rows of the built-in kinds against upstream's aggregated discovery.

use api::{Gvr, Kind, Scope, Tree, Verb, builtin};

use crate::reference_json;

#[test]
fn rows_equal_upstream_discovery() {
    let registry = builtin::registry();
    let mut seen = 0;
    for name in ["discovery-api.json", "discovery-apis.json"] {
        let Some(document) = reference_json(name) else { return };
        for item in document["items"].as_array().unwrap() {
            let group = item["metadata"]["name"].as_str().unwrap_or_default();
            for version in item["versions"].as_array().unwrap() {
                for resource in version["resources"].as_array().unwrap() {
                    let gvr =
                        Gvr::new(group, version["version"].as_str().unwrap(), resource["resource"].as_str().unwrap());
                    let kind = registry.resource(&gvr).unwrap_or_else(|| panic!("{gvr} is missing"));
                    check(kind, resource);
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, registry.iter().count(), "no row that upstream does not have");
}

#[test]
fn groups_stand_in_upstream_order() {
    let Some(document) = reference_json("discovery-apis.json") else { return };
    let theirs = document["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap());
    let ours: Vec<&str> =
        builtin::groups().into_iter().map(|(group, _)| group).filter(|group| !group.is_empty()).collect();
    assert_eq!(ours, theirs.collect::<Vec<_>>());
}

fn check(kind: &Kind, theirs: &Tree) {
    let what = kind.qualified_resource();
    assert_eq!(kind.gvk.kind, theirs["responseKind"]["kind"].as_str().unwrap(), "{what}");
    assert_eq!(kind.singular, theirs["singularResource"].as_str().unwrap(), "{what}");
    let scope = if theirs["scope"] == "Namespaced" { Scope::Namespaced } else { Scope::Cluster };
    assert_eq!(kind.scope, scope, "{what}");
    assert_eq!(strings(&kind.short_names), words(&theirs["shortNames"]), "{what}");
    assert_eq!(strings(&kind.categories), words(&theirs["categories"]), "{what}");
    assert_eq!(verbs(kind.verbs), words(&theirs["verbs"]), "{what}");
    let none = Vec::new();
    let subresources = theirs.get("subresources").and_then(Tree::as_array).unwrap_or(&none);
    assert_eq!(kind.subresources.len(), subresources.len(), "{what}");
    for (ours, theirs) in kind.subresources.iter().zip(subresources) {
        let what = format!("{what}/{}", ours.name);
        assert_eq!(ours.name, theirs["subresource"].as_str().unwrap(), "{what}");
        assert_eq!(ours.gvk.kind, theirs["responseKind"]["kind"].as_str().unwrap(), "{what}");
        if let Some(group) = theirs["responseKind"]["group"].as_str().filter(|group| !group.is_empty()) {
            assert_eq!(ours.gvk.group, group, "{what}");
        }
        assert_eq!(verbs(ours.verbs), words(&theirs["verbs"]), "{what}");
    }
}

fn verbs(verbs: api::Verbs) -> Vec<String> {
    let mut names: Vec<String> =
        verbs.iter().filter(|verb| *verb != Verb::Connect).map(|verb| verb.as_str().to_owned()).collect();
    names.sort();
    names
}

fn words(node: &Tree) -> Vec<String> {
    let mut words: Vec<String> =
        node.as_array().into_iter().flatten().filter_map(Tree::as_str).map(str::to_owned).collect();
    words.sort();
    words
}

fn strings(names: &[base::SmolStr]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names
}
