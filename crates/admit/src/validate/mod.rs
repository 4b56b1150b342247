//! Field rules: metadata, then those across fields of one kind, then those that the schema declares.
//!
//! A rule that got stricter must not lock up what is stored: per-kind rules see the old state and let pass what was
//! already so. CEL rules of CRDs (`x-kubernetes-validations`) are kept in the schema and not evaluated yet.

mod affinity;
mod autoscaler;
mod certificate;
mod config;
mod container;
mod event;
mod extend;
mod format;
mod network;
mod pod;
mod pod_resize;
mod pod_update;
mod raw;
mod rbac;
mod resources;
mod rules;
mod security;
mod service;
mod status;
mod storage;
mod workload;

pub(crate) use certificate::read as certificate_request;

use api::Tree;
use api::convert::in_form;

use crate::causes::Causes;
use crate::context::Cx;
use crate::meta;

/// Everything wrong with a new state.
pub(crate) fn object(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    meta::validate(cx, tree, old, causes);
    if cx.kind.custom {
        return rules::custom(cx.asked, &in_form(tree, cx.asked), causes);
    }
    if cx.sub() == "status" {
        status::object(cx, tree, old, causes);
    } else {
        own_rules(cx, tree, old, causes);
    }
    rules::builtin(cx, tree, old, causes);
}

/// The rules that a kind has beyond its schema.
fn own_rules(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let kind = cx.kind.gvk.kind.as_str();
    match cx.kind.gvk.group.as_str() {
        "" => match kind {
            "Pod" => pod::object(cx, tree, old, causes),
            "Service" => service::object(tree, old, causes),
            "ConfigMap" | "Secret" => config::object(kind, tree, old, causes),
            "PersistentVolume" | "PersistentVolumeClaim" => storage::object(kind, tree, old, causes),
            "ReplicationController" | "PodTemplate" => workload::object(kind, tree, old, causes),
            "Event" => event::object(cx, tree, old, causes),
            _ => extend::core(kind, tree, causes),
        },
        "apps" | "batch" => workload::object(kind, tree, old, causes),
        "networking.k8s.io" | "discovery.k8s.io" => network::object(kind, tree, old, causes),
        "rbac.authorization.k8s.io" => rbac::object(kind, tree, old, causes),
        "certificates.k8s.io" => certificate::object(cx, tree, old, causes),
        "storage.k8s.io" => storage::class(kind, tree, old, causes),
        group => extend::object(group, kind, tree, old, causes),
    }
}

#[cfg(test)]
mod tests;
