//! The built-in admission plugins, in upstream's order: those that change the object, then those that judge it.

mod account;
mod certificate;
mod escalate;
mod lifecycle;
mod limit;
mod node;
mod quota;
mod scheduling;
mod security;
mod storage;

pub use account::awaited_account;
use api::{Status, Tree};
pub use node::node_may_set_label;

use crate::Change;
use crate::context::{Cx, Gathered};

/// Changes a new or updated object.
///
/// # Errors
/// 403 (or 404 for a missing namespace), worded as upstream's plugins do.
pub(crate) fn mutate(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>) -> Result<(), Status> {
    lifecycle::creation(cx, tree, old)?;
    if !cx.sub().is_empty() || cx.kind.custom {
        return Ok(());
    }
    if old.is_none() {
        match (cx.kind.gvk.group.as_str(), cx.kind.gvk.kind.as_str()) {
            ("", "Pod") => {
                limit::fill(cx, tree);
                account::mount(cx, tree)?;
                scheduling::priority(cx, tree)?;
                scheduling::tolerations(tree);
                scheduling::overhead(cx, tree)?;
                crate::defaults::pod::spec(tree, "spec");
            }
            ("", "Node") => scheduling::not_ready_taint(tree),
            ("", "PersistentVolumeClaim") => storage::claim(cx, tree),
            ("", "PersistentVolume") => storage::protect(tree, "kubernetes.io/pv-protection"),
            ("networking.k8s.io", "Ingress") => storage::ingress_class(cx, tree),
            ("scheduling.k8s.io", "PriorityClass") => scheduling::only_default(cx, tree)?,
            _ => {}
        }
    }
    Ok(())
}

/// Judges a creation (`tree` alone), an update (both) or a deletion (`old` alone).
///
/// # Errors
/// 403, worded as upstream's plugins do.
pub(crate) fn validate(
    cx: &Cx<'_>,
    tree: Option<&Tree>,
    old: Option<&Tree>,
    gathered: &mut Gathered,
) -> Result<(), Status> {
    node::restrict(cx, tree, old)?;
    let Some(tree) = tree else { return lifecycle::deletion(cx) };
    if cx.kind.custom {
        return quota::count(cx, tree, old, gathered);
    }
    match (cx.kind.gvk.group.as_str(), cx.kind.gvk.kind.as_str(), cx.sub()) {
        ("", "Pod", "" | "ephemeralcontainers") => {
            security::enforce(cx, tree, old, gathered)?;
            limit::check(cx, tree, old)?;
        }
        ("", "Pod", "resize") | ("", "PersistentVolumeClaim", "") => limit::check(cx, tree, old)?,
        ("apps" | "batch", _, "") | ("", "ReplicationController" | "PodTemplate", "") => {
            security::warn(cx, tree, old, gathered);
        }
        ("certificates.k8s.io", ..) => certificate::judge(cx, tree, old)?,
        ("rbac.authorization.k8s.io", ..) => escalate::judge(cx, tree, old)?,
        _ => {}
    }
    quota::count(cx, tree, old, gathered)
}

pub(crate) fn quota_on_removal(cx: &Cx<'_>, old: &Tree) -> Vec<Change> {
    quota::give_back(cx, old)
}

#[cfg(test)]
mod tests;
