//! Defaults of pods and of the pod templates in other kinds.

use api::Tree;
use serde_json::json;

use crate::doc;

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// 0644.
const FILE_MODE: i64 = 420;
const TOKEN_SECONDS: i64 = 3600;

/// A pod itself: what a template does not get until a pod is made of it.
pub(super) fn whole(tree: &mut Tree) {
    spec(tree, "spec");
    doc::fill(tree, "spec.enableServiceLinks", true);
    if let Some(spec) = doc::at_mut(tree, "spec") {
        requests_of_pod(spec);
        for list in CONTAINER_LISTS {
            doc::items_mut(spec, list).for_each(requests_from_limits);
        }
    }
    doc::fill(tree, "status.phase", "Pending");
}

pub(crate) fn spec(holder: &mut Tree, path: &str) {
    let Some(spec) = doc::at_mut(holder, path).filter(|spec| spec.is_object()) else { return };
    doc::fill(spec, "dnsPolicy", "ClusterFirst");
    doc::fill(spec, "restartPolicy", "Always");
    doc::fill(spec, "schedulerName", "default-scheduler");
    doc::fill(spec, "terminationGracePeriodSeconds", 30);
    doc::fill(spec, "securityContext", json!({}));
    account(spec);
    let on_host = doc::is_true(spec, "hostNetwork");
    for list in CONTAINER_LISTS {
        for one in doc::items_mut(spec, list) {
            container(one, on_host);
        }
    }
    doc::items_mut(spec, "volumes").for_each(volume);
}

/// The old spelling of the account's name is kept equal to the new one.
fn account(spec: &mut Tree) {
    let name = match doc::text(spec, "serviceAccountName") {
        "" => doc::text(spec, "serviceAccount"),
        name => name,
    };
    let name = name.to_owned();
    if !name.is_empty() {
        doc::set(spec, "serviceAccountName", name.as_str());
        doc::set(spec, "serviceAccount", name.as_str());
    }
}

fn container(one: &mut Tree, on_host: bool) {
    let policy = if is_latest(doc::text(one, "image")) { "Always" } else { "IfNotPresent" };
    doc::fill(one, "imagePullPolicy", policy);
    doc::fill(one, "terminationMessagePath", "/dev/termination-log");
    doc::fill(one, "terminationMessagePolicy", "File");
    doc::fill(one, "resources", json!({}));
    for port in doc::items_mut(one, "ports") {
        doc::fill(port, "protocol", "TCP");
        if on_host && doc::int(port, "hostPort").unwrap_or(0) == 0 {
            doc::copy_within(port, "containerPort", "hostPort");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        doc::at_mut(one, name).into_iter().for_each(probe);
    }
    for name in ["lifecycle.postStart", "lifecycle.preStop"] {
        doc::at_mut(one, name).into_iter().for_each(handler);
    }
    for env in doc::items_mut(one, "env") {
        if let Some(reference) = doc::at_mut(env, "valueFrom.fieldRef") {
            doc::fill(reference, "apiVersion", "v1");
        }
        if let Some(reference) = doc::at_mut(env, "valueFrom.resourceFieldRef") {
            doc::fill(reference, "divisor", "0");
        }
    }
}

fn probe(probe: &mut Tree) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if doc::int(probe, name).unwrap_or(0) == 0 {
            doc::set(probe, name, value);
        }
    }
    if doc::has(probe, "grpc") {
        doc::fill(probe, "grpc.service", "");
    }
    handler(probe);
}

fn handler(handler: &mut Tree) {
    if let Some(get) = doc::at_mut(handler, "httpGet") {
        doc::fill_text(get, "path", "/");
        doc::fill_text(get, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Tree) {
    let bare = volume.as_object().is_some_and(|fields| fields.keys().all(|name| name == "name"));
    if bare {
        doc::set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if doc::has(volume, source) {
            doc::fill(volume, &format!("{source}.defaultMode"), FILE_MODE);
        }
    }
    downward(doc::at_mut(volume, "downwardAPI"));
    for source in doc::items_mut(volume, "projected.sources") {
        downward(doc::at_mut(source, "downwardAPI"));
        if doc::has(source, "serviceAccountToken") {
            doc::fill(source, "serviceAccountToken.expirationSeconds", TOKEN_SECONDS);
        }
    }
    if doc::has(volume, "hostPath") {
        doc::fill(volume, "hostPath.type", "");
    }
    if doc::has(volume, "ephemeral.volumeClaimTemplate.spec") {
        doc::fill(volume, "ephemeral.volumeClaimTemplate.spec.volumeMode", "Filesystem");
    }
    if doc::has(volume, "iscsi") {
        doc::fill(volume, "iscsi.iscsiInterface", "default");
    }
}

fn downward(source: Option<&mut Tree>) {
    let Some(source) = source else { return };
    for item in doc::items_mut(source, "items") {
        if let Some(reference) = doc::at_mut(item, "fieldRef") {
            doc::fill(reference, "apiVersion", "v1");
        }
        if let Some(reference) = doc::at_mut(item, "resourceFieldRef") {
            doc::fill(reference, "divisor", "0");
        }
    }
}

/// What a container may use at most it asks for, unless it says what it asks for.
fn requests_from_limits(container: &mut Tree) {
    let limits = doc::get(container, "resources.limits").clone();
    for (resource, amount) in limits.as_object().into_iter().flatten() {
        doc::object_mut(container, "resources.requests").entry(resource.clone()).or_insert_with(|| amount.clone());
    }
}

fn requests_of_pod(spec: &mut Tree) {
    if doc::has(spec, "resources.limits") {
        requests_from_limits(spec);
    }
}

/// No tag, or the tag `latest`; a digest is never the latest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}
