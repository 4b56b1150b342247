//! What a resize of a pod may change: cpu and memory of its containers, within the quality of service it was made with.

use api::Tree;
use serde_json::json;

use super::resources;
use crate::causes::{At, Causes};
use crate::{doc, strategy};

const MUTABLE: [&str; 2] = ["cpu", "memory"];

pub(super) fn check(tree: &Tree, old: &Tree, causes: &mut Causes) {
    let at = At::of("spec");
    if doc::get(old, "metadata.annotations").get("kubernetes.io/config.mirror").is_some() {
        causes.forbidden(&At::of("metadata"), "static pods cannot be resized");
    }
    for list in ["containers", "initContainers"] {
        let had = doc::items(doc::get(old, "spec"), list);
        for (index, one) in doc::items(doc::get(tree, "spec"), list).iter().enumerate() {
            let Some(had) = had.iter().find(|had| doc::text(had, "name") == doc::text(one, "name")) else { continue };
            let at = at.child(list).index(index).child("resources");
            resources::check(doc::get(one, "resources"), &at, causes);
            kept(doc::get(one, "resources"), doc::get(had, "resources"), &at, causes);
            let starts_only = list == "initContainers" && doc::text(one, "restartPolicy") != "Always";
            if starts_only && doc::get(one, "resources") != doc::get(had, "resources") {
                causes.forbidden(&at, "resources of non-sidecar init containers are immutable");
            }
        }
    }
    if strategy::quality(tree) != strategy::quality(old) {
        let class = json!(strategy::quality(tree));
        causes.invalid(&At::of("spec"), &class, "Pod QOS Class may not change as a result of resizing");
    }
}

fn kept(new: &Tree, old: &Tree, at: &At, causes: &mut Causes) {
    let fixed = |tree: &Tree| {
        let mut tree = tree.clone();
        for list in ["limits", "requests"] {
            for name in MUTABLE {
                if let Some(list) = tree.get_mut(list).and_then(Tree::as_object_mut) {
                    list.remove(name);
                }
            }
            if doc::get(&tree, list).as_object().is_some_and(serde_json::Map::is_empty) {
                doc::remove(&mut tree, list);
            }
        }
        if tree.is_null() { json!({}) } else { tree }
    };
    if fixed(new) != fixed(old) {
        causes.forbidden(at, "only cpu and memory resources are mutable");
    }
    for (list, what) in
        [("limits", "resource limits cannot be removed"), ("requests", "resource requests cannot be removed")]
    {
        let lost = MUTABLE
            .into_iter()
            .any(|name| doc::get(old, list).get(name).is_some() && doc::get(new, list).get(name).is_none());
        if lost {
            causes.forbidden(&at.child(list), what);
        }
    }
}
