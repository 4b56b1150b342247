//! What differs between writing an object and writing one of its subresources, and what the server owns per kind.

use api::Tree;

use crate::context::Cx;
use crate::{doc, meta};

/// Kinds that a PUT may create (upstream's `AllowCreateOnUpdate`).
pub(crate) fn creates_on_update(cx: &Cx<'_>) -> bool {
    const CREATING: [&str; 6] = ["/Endpoints", "/Event", "/LimitRange", "/Service", "coordination.k8s.io/Lease", "events.k8s.io/Event"];
    let group = cx.kind.gvk.group.as_str();
    let named = CREATING.contains(&format!("{group}/{}", cx.kind.gvk.kind).as_str());
    cx.sub().is_empty() && (named || group == "rbac.authorization.k8s.io")
}

/// A write may touch only its part: the main resource keeps status, `status` keeps everything else.
pub(crate) fn isolate(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>) {
    let status_apart = cx.kind.subresource("status").is_some();
    match (cx.sub(), old) {
        ("status", Some(old)) => {
            let mut kept = old.clone();
            doc::copy(tree, &mut kept, "status");
            *tree = kept;
        }
        (_, Some(old)) if status_apart => doc::copy(old, tree, "status"),
        (_, None) if status_apart => drop(doc::remove(tree, "status")),
        _ => {}
    }
}

/// The server's own fields, after mutation.
pub(crate) fn prepare(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>) {
    if !meta::has_generation(cx) {
        return;
    }
    match old {
        None => doc::set(tree, "metadata.generation", 1),
        Some(old) => {
            let generation = doc::int(old, "metadata.generation").unwrap_or(0);
            let bump = i64::from(meta::desired_differs(cx, tree, old));
            doc::set(tree, "metadata.generation", generation + bump);
        }
    }
}
