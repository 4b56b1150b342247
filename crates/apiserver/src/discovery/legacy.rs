//! Discovery as it always was: a document per group and version.

use api::kind::KindRef;
use api::{Subresource, Tree, Verb, Verbs};
use serde_json::{Map, json};

use super::{Group, hash};

/// `/api`.
pub(super) fn versions(address: &str) -> Tree {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub(super) fn group_list(groups: &[Group]) -> Tree {
    let groups: Vec<Tree> = groups.iter().filter(|group| !group.name.is_empty()).map(group_tree).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub(super) fn group(groups: &[Group], name: &str) -> Option<Tree> {
    let group = groups.iter().find(|group| group.name == name && !name.is_empty())?;
    let mut tree = group_tree(group);
    tree["kind"] = json!("APIGroup");
    tree["apiVersion"] = json!("v1");
    Some(tree)
}

fn group_tree(group: &Group) -> Tree {
    let versions = group.versions.iter();
    let version = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Tree> = versions.map(|(name, _)| version(name)).collect();
    json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions})
}

/// `/api/v1`, `/apis/{group}/{version}`.
pub(super) fn resources(groups: &[Group], group: &str, version: &str) -> Option<Tree> {
    let group = groups.iter().find(|known| known.name == group)?;
    let (_, kinds) = group.versions.iter().find(|(known, _)| known == version)?;
    let mut resources = Vec::new();
    for kind in kinds {
        resources.push(resource(kind));
        resources.extend(kind.subresources.iter().map(|sub| subresource(kind, sub)));
    }
    let name = kinds.first().map(|kind| kind.gvk.api_version()).unwrap_or_default();
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}))
}

fn resource(kind: &KindRef) -> Tree {
    let mut tree = Map::new();
    tree.insert("name".into(), json!(kind.resource));
    tree.insert("singularName".into(), json!(kind.singular));
    tree.insert("namespaced".into(), json!(kind.is_namespaced()));
    tree.insert("kind".into(), json!(kind.gvk.kind));
    tree.insert("verbs".into(), json!(verbs(kind.verbs)));
    if !kind.short_names.is_empty() {
        tree.insert("shortNames".into(), json!(kind.short_names));
    }
    if !kind.categories.is_empty() {
        tree.insert("categories".into(), json!(kind.categories));
    }
    if kind.verbs.has(Verb::Get) && kind.verbs.has(Verb::Create) {
        let stored = format!("{}/{}/{}", kind.storage, kind.storage_version, kind.gvk.kind);
        tree.insert("storageVersionHash".into(), json!(hash(&stored)[..11]));
    }
    Tree::Object(tree)
}

fn subresource(kind: &KindRef, sub: &Subresource) -> Tree {
    let mut tree = json!({
        "name": format!("{}/{}", kind.resource, sub.name), "singularName": "",
        "namespaced": kind.is_namespaced(), "kind": sub.gvk.kind, "verbs": verbs(sub.verbs),
    });
    if (&sub.gvk.group, &sub.gvk.version) != (&kind.gvk.group, &kind.gvk.version) {
        tree["group"] = json!(sub.gvk.group);
        tree["version"] = json!(sub.gvk.version);
    }
    tree
}

/// In the alphabet's order; `connect` is no verb of discovery.
pub(super) fn verbs(verbs: Verbs) -> Vec<&'static str> {
    let mut words: Vec<&str> = verbs.iter().filter(|verb| *verb != Verb::Connect).map(Verb::as_str).collect();
    words.sort_unstable();
    words
}
