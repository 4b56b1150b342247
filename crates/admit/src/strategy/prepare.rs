//! The server's own fields per kind, after mutation.

use api::Tree;
use serde_json::json;

use crate::context::Cx;
use crate::defaults::labels_from_template;
use crate::{doc, meta};

/// Generation, and what some kinds get on creation.
pub(crate) fn prepare(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>) {
    match old {
        None => create(cx, tree),
        Some(old) => update(cx, tree, old),
    }
    if !meta::has_generation(cx) {
        return;
    }
    let generation = match old {
        None => 1,
        Some(old) => {
            let bump = i64::from(cx.sub() != "status" && meta::desired_differs(cx, tree, old));
            doc::int(old, "metadata.generation").unwrap_or(0) + bump
        }
    };
    if generation > 0 {
        doc::set(tree, "metadata.generation", generation);
    }
}

fn create(cx: &Cx<'_>, tree: &mut Tree) {
    let kind = &cx.kind.gvk;
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => {
            let quality = quality(tree);
            doc::set(tree, "status", json!({"phase": "Pending", "qosClass": quality}));
        }
        ("", "Namespace") => {
            let finalizers = doc::list_mut(tree, "spec.finalizers");
            if !finalizers.contains(&json!("kubernetes")) {
                finalizers.push(json!("kubernetes"));
            }
        }
        ("batch", "Job") => job(tree),
        ("certificates.k8s.io", _) => {
            doc::set(tree, "spec.username", cx.user.name.as_str());
            doc::set(tree, "spec.groups", cx.user.groups.iter().map(|g| json!(g.as_str())).collect::<Vec<_>>());
            if !cx.user.uid.is_empty() {
                doc::set(tree, "spec.uid", cx.user.uid.as_str());
            }
            doc::set(tree, "status", super::empty());
        }
        ("apiextensions.k8s.io", _) => stored_versions(tree),
        ("apps" | "batch" | "autoscaling" | "policy", _) if cx.kind.subresource("status").is_some() => {
            doc::fill(tree, "status", super::empty());
        }
        _ => {}
    }
}

fn update(cx: &Cx<'_>, tree: &mut Tree, old: &Tree) {
    if cx.is("apiextensions.k8s.io", "CustomResourceDefinition") && cx.sub().is_empty() {
        stored_versions(tree);
    }
    if cx.is("", "Pod") && doc::has(old, "status.qosClass") {
        doc::copy(old, tree, "status.qosClass");
    }
}

/// The storage version of a CRD joins the list of versions ever stored.
fn stored_versions(tree: &mut Tree) {
    let storage = doc::items(tree, "spec.versions").iter().find(|version| doc::is_true(version, "storage"));
    let Some(name) = storage.map(|version| doc::get(version, "name").clone()) else { return };
    let stored = doc::list_mut(tree, "status.storedVersions");
    if !stored.contains(&name) {
        stored.push(name);
    }
}

/// A job finds its pods by its own uid, unless it says how.
fn job(tree: &mut Tree) {
    if doc::is_true(tree, "spec.manualSelector") {
        return;
    }
    let uid = doc::text(tree, "metadata.uid").to_owned();
    let name = doc::text(tree, "metadata.name").to_owned();
    let labels = doc::object_mut(tree, "spec.template.metadata.labels");
    for (label, value) in [("controller-uid", &uid), ("job-name", &name)] {
        labels.insert(label.to_owned(), json!(value));
        labels.insert(format!("batch.kubernetes.io/{label}"), json!(value));
    }
    doc::object_mut(tree, "spec.selector.matchLabels").insert("batch.kubernetes.io/controller-uid".into(), json!(uid));
    // The defaults came before these labels were there; the next write would find them missing.
    labels_from_template(tree);
}

/// The quality of service class of a pod.
pub(crate) fn quality(pod: &Tree) -> &'static str {
    let spec = doc::get(pod, "spec");
    let containers = doc::items(spec, "containers").iter().chain(doc::items(spec, "initContainers"));
    let (mut any, mut guaranteed) = (false, true);
    let whole: Vec<&Tree> = if doc::has(spec, "resources") { vec![spec] } else { containers.collect() };
    for holder in whole {
        let amount = |list: &str, resource: &str| {
            let amount = doc::at(holder, &format!("resources.{list}")).and_then(|list| list.get(resource));
            amount.and_then(Tree::as_str).filter(|amount| *amount != "0").map(str::to_owned)
        };
        for resource in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", resource), amount("limits", resource));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.as_ref().is_none_or(|request| Some(request) == limit.as_ref());
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
