//! What differs between writing an object and writing one of its subresources, and what the server owns per kind.

mod prepare;

use api::Tree;
use serde_json::json;

use crate::context::Cx;
use crate::doc;
pub(crate) use prepare::{prepare, quality};

/// Kinds that a PUT may create (upstream's `AllowCreateOnUpdate`).
pub(crate) fn creates_on_update(cx: &Cx<'_>) -> bool {
    const CREATING: [&str; 6] =
        ["/Endpoints", "/Event", "/LimitRange", "/Service", "coordination.k8s.io/Lease", "events.k8s.io/Event"];
    let group = cx.kind.gvk.group.as_str();
    let named = CREATING.contains(&format!("{group}/{}", cx.kind.gvk.kind).as_str());
    cx.sub().is_empty() && (named || group == "rbac.authorization.k8s.io")
}

/// A write may touch only its part: the main resource keeps status, a subresource keeps everything but its own.
pub(crate) fn isolate(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>) {
    let status_apart = cx.asked.subresource("status").is_some();
    let Some(old) = old else {
        // An agent registers its node with the status it has.
        if status_apart && !cx.is("", "Node") {
            doc::remove(tree, "status");
        }
        return;
    };
    match cx.sub() {
        "" => {
            if status_apart {
                doc::copy(old, tree, "status");
            }
            if cx.is("", "Namespace") {
                doc::copy(old, tree, "spec.finalizers");
            }
        }
        "status" => keep(cx, tree, old, &["status"]),
        "ephemeralcontainers" => keep(cx, tree, old, &["spec.ephemeralContainers"]),
        "finalize" => keep(cx, tree, old, &["spec.finalizers"]),
        "approval" => {
            keep(cx, tree, old, &["status.conditions"]);
            stamp_conditions(cx, tree);
        }
        "resize" => resize(tree, old),
        _ => {}
    }
}

/// The old object with the new one's part. Pods and nodes may carry labels and annotations through their status.
fn keep(cx: &Cx<'_>, tree: &mut Tree, old: &Tree, parts: &[&str]) {
    let mut kept = old.clone();
    for part in parts {
        doc::copy(tree, &mut kept, part);
    }
    doc::copy(tree, &mut kept, "metadata.managedFields");
    if cx.sub() == "status" && (cx.is("", "Pod") || cx.is("", "Node")) {
        doc::copy(tree, &mut kept, "metadata.labels");
        doc::copy(tree, &mut kept, "metadata.annotations");
    }
    if cx.sub() == "status" && cx.is("certificates.k8s.io", "CertificateSigningRequest") {
        keep_decisions(&mut kept, old);
    }
    *tree = kept;
}

/// Approval and denial are given through `approval` alone; a status write neither adds nor takes them.
fn keep_decisions(tree: &mut Tree, old: &Tree) {
    let decided = |condition: &Tree| matches!(doc::text(condition, "type"), "Approved" | "Denied");
    let mut conditions: Vec<Tree> =
        doc::items(old, "status.conditions").iter().filter(|c| decided(c)).cloned().collect();
    conditions.extend(doc::items(tree, "status.conditions").iter().filter(|c| !decided(c)).cloned());
    if !conditions.is_empty() {
        doc::set(tree, "status.conditions", conditions);
    }
}

fn stamp_conditions(cx: &Cx<'_>, tree: &mut Tree) {
    let now = cx.stamp();
    for condition in doc::items_mut(tree, "status.conditions") {
        doc::fill(condition, "lastUpdateTime", now.as_str());
        doc::fill(condition, "lastTransitionTime", now.as_str());
    }
}

/// Only resources and resize policies of containers that both have.
fn resize(tree: &mut Tree, old: &Tree) {
    let mut kept = old.clone();
    for list in ["spec.containers", "spec.initContainers"] {
        let wanted: Vec<Tree> = doc::items(tree, list).to_vec();
        for container in doc::items_mut(&mut kept, list) {
            let name = doc::text(container, "name").to_owned();
            if let Some(wanted) = wanted.iter().find(|wanted| doc::text(wanted, "name") == name) {
                doc::copy(wanted, container, "resources");
                doc::copy(wanted, container, "resizePolicy");
            }
        }
    }
    doc::copy(tree, &mut kept, "spec.resources");
    doc::copy(tree, &mut kept, "metadata.managedFields");
    *tree = kept;
}

/// An empty object, for status that is written from the start.
pub(super) fn empty() -> Tree {
    json!({})
}
