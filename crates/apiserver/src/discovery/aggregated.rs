//! Aggregated discovery: all groups, versions and resources in one document.

use api::kind::KindRef;
use api::{Gvk, Tree};
use bytes::Bytes;
use serde_json::{Map, json};

use super::Group;
use super::legacy::verbs;

/// `core` is `/api`, which holds the group without a name; `/apis` holds the others.
pub(super) fn document(groups: &[Group], core: bool, version: &str) -> Bytes {
    let items: Vec<Tree> = groups.iter().filter(|group| group.name.is_empty() == core).map(group).collect();
    let tree = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    tree.to_string().into()
}

fn group(group: &Group) -> Tree {
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    let versions: Vec<Tree> = group
        .versions
        .iter()
        .map(|(version, kinds)| {
            let resources: Vec<Tree> = kinds.iter().map(resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn resource(kind: &KindRef) -> Tree {
    let mut tree = Map::new();
    tree.insert("resource".into(), json!(kind.resource));
    tree.insert("responseKind".into(), response_kind(&kind.gvk, kind));
    tree.insert("scope".into(), json!(if kind.is_namespaced() { "Namespaced" } else { "Cluster" }));
    tree.insert("singularResource".into(), json!(kind.singular));
    tree.insert("verbs".into(), json!(verbs(kind.verbs)));
    if !kind.short_names.is_empty() {
        tree.insert("shortNames".into(), json!(kind.short_names));
    }
    if !kind.categories.is_empty() {
        tree.insert("categories".into(), json!(kind.categories));
    }
    if !kind.subresources.is_empty() {
        let mut subs: Vec<_> = kind.subresources.iter().collect();
        subs.sort_by(|a, b| a.name.cmp(&b.name));
        let subs = subs.into_iter().map(|sub| {
            json!({
                "subresource": sub.name, "responseKind": response_kind(&sub.gvk, kind), "verbs": verbs(sub.verbs),
            })
        });
        tree.insert("subresources".into(), subs.collect());
    }
    Tree::Object(tree)
}

/// The group and version stay empty where they are those of the list the resource stands in.
fn response_kind(gvk: &Gvk, parent: &KindRef) -> Tree {
    if gvk.group == parent.gvk.group && gvk.version == parent.gvk.version && !parent.custom {
        return json!({"group": "", "version": "", "kind": gvk.kind});
    }
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}
