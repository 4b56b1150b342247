//! NodeRestriction: a node's identity writes only its own node and what runs on it.

use std::collections::BTreeSet;

use api::{Status, Tree};

use crate::authorize::node_identity;
use crate::context::Cx;
use crate::{WriteVerb, doc};

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels that say where a node may run what; a node must not give itself any.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Domains of the project's labels, of which a node sets only those that describe it.
const RESERVED: [&str; 2] = ["kubernetes.io", "k8s.io"];
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Whether a node may give itself this label.
pub fn node_may_set_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|sub| sub.ends_with('.'));
    if within(RESTRICTED) {
        return false;
    }
    !RESERVED.into_iter().any(within) || OWN_DOMAINS.into_iter().any(within) || OWN_LABELS.contains(&key)
}

pub(super) fn restrict(cx: &Cx<'_>, tree: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let Some(node) = node_identity(cx.user) else { return Ok(()) };
    let kind = &cx.kind.gvk;
    match (kind.group.as_str(), kind.kind.as_str(), cx.sub()) {
        ("", "Pod", "") => pod(cx, node, tree, old),
        ("", "Pod", "status" | "eviction") => owned_pod(cx, node, old, cx.sub()),
        ("", "Pod", sub) => {
            refuse(cx, &format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "Node", _) => own_node(cx, node, tree, old),
        ("coordination.k8s.io", "Lease", _) => lease(cx, node, tree),
        ("storage.k8s.io", "CSINode", _) if name_of(cx, tree) != node => {
            refuse(cx, "can only access CSINode with the same name as the requesting node")
        }
        _ => Ok(()),
    }
}

fn refuse(cx: &Cx<'_>, why: &str) -> Result<(), Status> {
    Err(cx.forbidden(&cx.request.name, why))
}

fn name_of(cx: &Cx<'_>, tree: Option<&Tree>) -> String {
    tree.map_or_else(|| cx.request.name.to_string(), |tree| doc::text(tree, "metadata.name").to_owned())
}

/// A node makes mirror pods of its own static pods, and may delete pods it runs.
fn pod(cx: &Cx<'_>, node: &str, tree: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    match (tree, old) {
        (Some(_), Some(_)) => refuse(
            cx,
            &format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"),
        ),
        (None, old) => owned_pod(cx, node, old, "delete"),
        (Some(pod), None) => {
            if doc::get(pod, "metadata.annotations").get(MIRROR).is_none() {
                return refuse(
                    cx,
                    &format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"),
                );
            }
            if doc::text(pod, "spec.nodeName") != node {
                return refuse(cx, &format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            let spec = doc::get(pod, "spec");
            if !doc::text(spec, "serviceAccountName").is_empty() {
                return refuse(cx, &format!("node {node:?} can not create pods that reference a service account"));
            }
            let refers = doc::items(spec, "volumes").iter().any(|volume| {
                ["secret", "configMap", "persistentVolumeClaim", "projected"]
                    .iter()
                    .any(|source| doc::has(volume, source))
            });
            if refers {
                return refuse(
                    cx,
                    &format!("node {node:?} can not create pods that reference secrets, configmaps or claims"),
                );
            }
            Ok(())
        }
    }
}

fn owned_pod(cx: &Cx<'_>, node: &str, old: Option<&Tree>, what: &str) -> Result<(), Status> {
    let bound = old.map_or("", |pod| doc::text(pod, "spec.nodeName"));
    if bound == node {
        return Ok(());
    }
    let doing = match what {
        "status" => "update pod status for",
        "eviction" => "evict",
        _ => "delete",
    };
    refuse(cx, &format!("node {node:?} can only {doing} pods with spec.nodeName set to itself"))
}

fn own_node(cx: &Cx<'_>, node: &str, tree: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let name = name_of(cx, tree);
    if name != node {
        return refuse(cx, &format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(tree) = tree else { return Ok(()) };
    let labels = |tree: &Tree| -> BTreeSet<(String, String)> {
        let labels = doc::entries(tree, "metadata.labels").filter(|(key, _)| !node_may_set_label(key));
        labels.map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    let had = old.map(labels).unwrap_or_default();
    let changed: BTreeSet<String> = labels(tree).symmetric_difference(&had).map(|(key, _)| key.clone()).collect();
    if !changed.is_empty() {
        let changed = changed.into_iter().collect::<Vec<_>>().join(", ");
        let doing = if old.is_some() { "modify labels" } else { "set the following labels" };
        return refuse(cx, &format!("is not allowed to {doing}: {changed}"));
    }
    if let Some(old) = old.filter(|_| cx.sub().is_empty()) {
        if doc::get(tree, "spec.taints") != doc::get(old, "spec.taints") {
            return refuse(cx, &format!("node {node:?} is not allowed to modify taints"));
        }
        if doc::get(tree, "metadata.ownerReferences") != doc::get(old, "metadata.ownerReferences") {
            return refuse(cx, &format!("node {node:?} is not allowed to modify ownerReferences"));
        }
    }
    Ok(())
}

fn lease(cx: &Cx<'_>, node: &str, tree: Option<&Tree>) -> Result<(), Status> {
    if cx.request.namespace != "kube-node-lease" {
        return refuse(cx, "can only access leases in the \"kube-node-lease\" system namespace");
    }
    let creates = matches!(cx.request.verb, WriteVerb::Create(_));
    if name_of(cx, tree) != node {
        let what = if creates { "create" } else { "access" };
        return refuse(cx, &format!("can only {what} node lease with the same name as the requesting node"));
    }
    Ok(())
}
