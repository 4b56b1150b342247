//! Defaults: the schema's, then those that upstream sets in code, one small file per family of kinds.
//!
//! Running them again changes nothing, so they run after every mutation.

mod core;
mod extend;
mod network;
pub(crate) mod pod;
mod workload;

use api::{Kind, Tree};

use crate::decode::fill_defaults;
pub(crate) use workload::labels_from_template;

/// Fills in whatever is absent.
pub(crate) fn apply(kind: &Kind, tree: &mut Tree) {
    fill_defaults(&kind.schema, tree);
    if kind.custom {
        return;
    }
    match kind.gvk.group.as_str() {
        "" => core::apply(&kind.gvk.kind, tree),
        "apps" | "batch" | "autoscaling" => workload::apply(&kind.gvk.kind, tree),
        "networking.k8s.io" | "discovery.k8s.io" => network::apply(&kind.gvk.kind, tree),
        _ => extend::apply(&kind.gvk.group, &kind.gvk.kind, tree),
    }
}

#[cfg(test)]
mod tests;
