//! What of a pod may change once it exists.

use api::Tree;
use serde_json::json;

use super::pod_resize;
use crate::causes::{At, Causes};
use crate::doc;

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn check(sub: &str, tree: &Tree, old: &Tree, causes: &mut Causes) {
    let at = At::of("spec");
    match sub {
        "ephemeralcontainers" => ephemeral(tree, old, causes),
        "resize" => pod_resize::check(tree, old, causes),
        _ => ordinary(tree, old, &at, causes),
    }
}

fn ordinary(tree: &Tree, old: &Tree, at: &At, causes: &mut Causes) {
    for list in ["containers", "initContainers"] {
        let count = |tree: &Tree| doc::items(doc::get(tree, "spec"), list).len();
        if count(tree) != count(old) {
            causes.forbidden(&at.child(list), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(tree, old, at, causes);
    tolerations(tree, old, at, causes);
    let containers = doc::items(tree, "spec.containers").iter().enumerate();
    for (index, _) in containers.filter(|(_, one)| doc::text(one, "image").is_empty()) {
        causes.required(&at.child("containers").index(index).child("image"), "");
    }
    let gated = !doc::items(old, "spec.schedulingGates").is_empty();
    let had: Vec<&Tree> = doc::items(old, "spec.schedulingGates").iter().collect();
    if doc::items(tree, "spec.schedulingGates").iter().any(|gate| !had.contains(&gate)) {
        causes.forbidden(&at.child("schedulingGates"), "only deletion is allowed, but found new scheduling gates");
    }
    if frozen(tree, gated) != frozen(old, gated) {
        causes.forbidden(at, RULE);
    }
}

/// The spec without what may change.
fn frozen(tree: &Tree, gated: bool) -> Tree {
    let mut spec = doc::get(tree, "spec").clone();
    for list in ["containers", "initContainers"] {
        for one in doc::items_mut(&mut spec, list) {
            doc::remove(one, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates", "terminationGracePeriodSeconds"] {
        doc::remove(&mut spec, field);
    }
    if doc::int(tree, "spec.terminationGracePeriodSeconds") != Some(1) {
        doc::copy(doc::get(tree, "spec"), &mut spec, "terminationGracePeriodSeconds");
    }
    if gated {
        doc::remove(&mut spec, "nodeSelector");
        doc::remove(&mut spec, "affinity");
    }
    spec
}

fn deadline(tree: &Tree, old: &Tree, at: &At, causes: &mut Causes) {
    let (new, had) = (doc::int(tree, "spec.activeDeadlineSeconds"), doc::int(old, "spec.activeDeadlineSeconds"));
    let at = at.child("activeDeadlineSeconds");
    match (new, had) {
        (Some(new), _) if new < 1 => causes.invalid(&at, &json!(new), "must be between 1 and 2147483647, inclusive"),
        (Some(new), Some(had)) if new > had => {
            causes.invalid(&at, &json!(new), "must be less than or equal to previous value");
        }
        (None, Some(_)) => causes.invalid(&at, &Tree::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

/// Tolerations may be added and their seconds changed, never taken.
fn tolerations(tree: &Tree, old: &Tree, at: &At, causes: &mut Causes) {
    let timeless = |toleration: &Tree| {
        let mut toleration = toleration.clone();
        doc::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let now: Vec<Tree> = doc::items(tree, "spec.tolerations").iter().map(timeless).collect();
    if doc::items(old, "spec.tolerations").iter().any(|had| !now.contains(&timeless(had))) {
        causes.forbidden(
            &at.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn ephemeral(tree: &Tree, old: &Tree, causes: &mut Causes) {
    let at = At::of("spec.ephemeralContainers");
    let now = doc::items(tree, "spec.ephemeralContainers");
    for had in doc::items(old, "spec.ephemeralContainers") {
        let name = doc::text(had, "name");
        match now.iter().find(|one| doc::text(one, "name") == name) {
            None => causes.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(one) if one != had => {
                causes.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
    let taken = |name: &str| {
        ["spec.containers", "spec.initContainers"]
            .iter()
            .any(|list| doc::items(tree, list).iter().any(|one| doc::text(one, "name") == name))
    };
    for (index, one) in now.iter().enumerate() {
        let at = at.index(index);
        let name = doc::text(one, "name");
        if name.is_empty() {
            causes.required(&at.child("name"), "");
        } else if taken(name) {
            causes.duplicate(&at.child("name"), &json!(name));
        }
        if doc::text(one, "image").is_empty() {
            causes.required(&at.child("image"), "");
        }
        for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if doc::has(one, field) {
                causes.forbidden(&at.child(field), "cannot be set for an Ephemeral Container");
            }
        }
        if !doc::get(one, "resources").as_object().is_none_or(serde_json::Map::is_empty) {
            causes.forbidden(&at.child("resources"), "cannot be set for an Ephemeral Container");
        }
    }
}
