//! Defaults of the core group.

use api::Tree;
use serde_json::json;

use super::{network, pod, workload};
use crate::doc;

pub(super) fn apply(kind: &str, tree: &mut Tree) {
    match kind {
        "Pod" => pod::whole(tree),
        "PodTemplate" => template(tree, "template"),
        "ReplicationController" => workload::replication_controller(tree),
        "Service" => network::service(tree),
        "Endpoints" => endpoints(tree),
        "Namespace" => namespace(tree),
        "Secret" => secret(tree),
        "PersistentVolume" => {
            doc::fill(tree, "status.phase", "Pending");
            doc::fill(tree, "spec.persistentVolumeReclaimPolicy", "Retain");
            doc::fill(tree, "spec.volumeMode", "Filesystem");
            if doc::has(tree, "spec.hostPath") {
                doc::fill(tree, "spec.hostPath.type", "");
            }
        }
        "PersistentVolumeClaim" => {
            doc::fill(tree, "status.phase", "Pending");
            doc::fill(tree, "spec.volumeMode", "Filesystem");
        }
        "LimitRange" => limit_range(tree),
        _ => {}
    }
}

pub(super) fn template(tree: &mut Tree, path: &str) {
    if let Some(template) = doc::at_mut(tree, path) {
        pod::spec(template, "spec");
    }
}

fn endpoints(tree: &mut Tree) {
    for subset in doc::items_mut(tree, "subsets") {
        for port in doc::items_mut(subset, "ports") {
            doc::fill(port, "protocol", "TCP");
        }
    }
}

fn namespace(tree: &mut Tree) {
    let name = doc::text(tree, "metadata.name").to_owned();
    if !name.is_empty() {
        doc::object_mut(tree, "metadata.labels").insert("kubernetes.io/metadata.name".into(), json!(name));
    }
    doc::fill(tree, "status.phase", "Active");
}

/// `stringData` is write-only: it ends up in `data`, and wins there.
fn secret(tree: &mut Tree) {
    use base64::Engine as _;
    if let Some(Tree::Object(plain)) = doc::remove(tree, "stringData") {
        let data = doc::object_mut(tree, "data");
        for (key, value) in plain {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, json!(base64::engine::general_purpose::STANDARD.encode(text)));
        }
    }
    doc::fill(tree, "type", "Opaque");
}

/// A container limit without a default takes the maximum; without a default request, the default or the minimum.
fn limit_range(tree: &mut Tree) {
    for limit in doc::items_mut(tree, "spec.limits").filter(|limit| doc::text(limit, "type") == "Container") {
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let source = doc::get(limit, from).clone();
            for (resource, amount) in source.as_object().into_iter().flatten() {
                doc::object_mut(limit, to).entry(resource.clone()).or_insert_with(|| amount.clone());
            }
        }
    }
}
