//! Classes by default and protection of storage in use.

use api::{Object, Tree};
use serde_json::json;
use std::sync::Arc;

use crate::context::Cx;
use crate::doc;

pub(super) fn claim(cx: &Cx<'_>, tree: &mut Tree) {
    protect(tree, "kubernetes.io/pvc-protection");
    let old_style = doc::get(tree, "metadata.annotations").get("volume.beta.kubernetes.io/storage-class").is_some();
    if doc::has(tree, "spec.storageClassName") || old_style {
        return;
    }
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if let Some(class) = default_of(cx, "storage.k8s.io", "storageclasses", &marks) {
        doc::set(tree, "spec.storageClassName", class);
    }
}

pub(super) fn ingress_class(cx: &Cx<'_>, tree: &mut Tree) {
    let old_style = doc::get(tree, "metadata.annotations").get("kubernetes.io/ingress.class").is_some();
    if doc::has(tree, "spec.ingressClassName") || old_style {
        return;
    }
    let marks = ["ingressclass.kubernetes.io/is-default-class"];
    if let Some(class) = default_of(cx, "networking.k8s.io", "ingressclasses", &marks) {
        doc::set(tree, "spec.ingressClassName", class);
    }
}

pub(super) fn protect(tree: &mut Tree, finalizer: &str) {
    let finalizers = doc::list_mut(tree, "metadata.finalizers");
    if !finalizers.contains(&json!(finalizer)) {
        finalizers.push(json!(finalizer));
    }
}

/// Of several defaults the newest, then the first by name.
fn default_of(cx: &Cx<'_>, group: &str, resource: &str, marks: &[&str]) -> Option<String> {
    let is_default = |object: &Arc<Object>| {
        let tree = object.tree();
        let annotations = doc::get(&tree, "metadata.annotations");
        marks.iter().any(|mark| annotations.get(*mark).is_some_and(|value| value == "true"))
    };
    let mut defaults: Vec<Arc<Object>> = cx.list(group, resource, None).into_iter().filter(is_default).collect();
    defaults.sort_by(|a, b| b.header.created.cmp(&a.header.created).then_with(|| a.key.cmp(&b.key)));
    defaults.first().map(|object| object.key.name.to_string())
}
