//! Where a Service's traffic may go: EndpointSlices, the older Endpoints, and slices that mirror manual Endpoints.

mod classic;
mod mirror;
mod slices;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Snapshot, Tree};
use base::SmolStr;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::kit::pod::PodRef;
use crate::kit::{keys, value::list};

pub use classic::controller as endpoints;
pub use mirror::controller as mirroring;
pub use slices::controller as slices;

const HEADLESS: &str = "service.kubernetes.io/headless";

fn enqueue_pods(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<Service>() {
        return keys::own(old, new);
    }
    if *gvr != gvr_of::<Pod>() {
        return vec![];
    }
    let services = snapshot.of::<Service>();
    let both = [old, new].into_iter().flatten();
    let mut keys: Vec<Key> = both.flat_map(|pod| keys::selecting(&services, keys::map_selector, pod)).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// A pod as an endpoint of a Service.
struct Backend {
    pod: PodRef,
    ready: bool,
    serving: bool,
    terminating: bool,
    hostname: Option<String>,
    /// The Service's ports as this pod has them (`name`, `port`, `protocol`, `appProtocol`).
    ports: Vec<Tree>,
}

/// Pods that the Service selects and that have not ended, by name.
fn backends(snapshot: &Snapshot, key: &Key, service: &Tree) -> Vec<Backend> {
    let Some(selector) = service.pointer("/spec/selector").and_then(keys::map_selector) else { return vec![] };
    let pods = snapshot.of::<Pod>();
    let chosen = pods.in_namespace(&key.namespace).filter(|pod| selector.matches(&pod.header.labels));
    let live = chosen.filter_map(PodRef::of).filter(|pod| !pod.finished());
    live.map(|pod| Backend::of(pod, key, service)).collect()
}

impl Backend {
    fn of(pod: PodRef, key: &Key, service: &Tree) -> Backend {
        let publish = service.pointer("/spec/publishNotReadyAddresses").and_then(Tree::as_bool) == Some(true);
        let spec = pod.pod.spec.as_ref();
        let named = spec.filter(|spec| spec.subdomain.as_deref() == Some(key.name.as_str()));
        Backend {
            ready: publish || pod.ready() && !pod.terminating(),
            serving: pod.ready(),
            terminating: pod.terminating(),
            hostname: named.and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty()),
            ports: list(service, "/spec/ports").iter().filter_map(|port| resolve(port, &pod)).collect(),
            pod,
        }
    }

    /// The pod's address of a family (`IPv4`, `IPv6`).
    fn address(&self, family: &str) -> Option<&str> {
        let status = self.pod.pod.status.as_ref()?;
        let all = status.pod_ips.iter().flatten().map(|address| address.ip.as_str());
        let mut all = all.chain(status.pod_ip.as_deref()).filter(|address| !address.is_empty());
        all.find(|address| address.contains(':') == (family == "IPv6"))
    }

    fn target(&self) -> Tree {
        let object = &self.pod.object;
        json!({"kind": "Pod", "namespace": object.key.namespace, "name": object.key.name, "uid": object.header.uid})
    }
}

/// A Service port on one pod; None where the pod has no container port of that name.
fn resolve(port: &Tree, pod: &PodRef) -> Option<Tree> {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let number = match serde_json::from_value(port["targetPort"].clone()).unwrap_or_default() {
        IntOrString::Int(0) => port["port"].as_i64()?,
        IntOrString::Int(number) => i64::from(number),
        IntOrString::String(name) if name.is_empty() => port["port"].as_i64()?,
        IntOrString::String(name) => named_port(pod, &name, protocol)?,
    };
    let mut made = json!({"name": port["name"].as_str().unwrap_or_default(), "port": number, "protocol": protocol});
    if let Some(word) = port["appProtocol"].as_str() {
        made["appProtocol"] = json!(word);
    }
    Some(made)
}

fn named_port(pod: &PodRef, name: &str, protocol: &str) -> Option<i64> {
    let spec = pod.pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let right = |port: &&k8s_openapi::api::core::v1::ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.find(right).map(|port| i64::from(port.container_port))
}

/// The node's zone, for routing close by.
fn zone(snapshot: &Snapshot, node: &str) -> Option<SmolStr> {
    snapshot.of::<Node>().get(&Key::cluster(node))?.header.labels.get("topology.kubernetes.io/zone").cloned()
}

fn is_headless(service: &Tree) -> bool {
    service.pointer("/spec/clusterIP").and_then(Tree::as_str) == Some("None")
}

/// The Service's own labels, less the one that says headless, plus it where it is.
fn service_labels(object: &Object, service: &Tree) -> BTreeMap<SmolStr, SmolStr> {
    let mut labels = object.header.labels.clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), SmolStr::default());
    }
    labels
}

fn has_selector(service: &Tree) -> bool {
    let selector = service.pointer("/spec/selector").and_then(Tree::as_object);
    selector.is_some_and(|selector| !selector.is_empty())
        && service.pointer("/spec/type").and_then(Tree::as_str) != Some("ExternalName")
}
