//! Defaults of Services, EndpointSlices, NetworkPolicies.

use api::Tree;
use serde_json::json;

use crate::doc;

/// Three hours, as upstream keeps a client with its pod.
const AFFINITY_SECONDS: i64 = 10_800;

pub(super) fn apply(kind: &str, tree: &mut Tree) {
    match kind {
        "EndpointSlice" => {
            for port in doc::items_mut(tree, "ports") {
                doc::fill(port, "name", "");
                doc::fill(port, "protocol", "TCP");
            }
        }
        "NetworkPolicy" => network_policy(tree),
        _ => {}
    }
}

pub(super) fn service(tree: &mut Tree) {
    doc::fill_text(tree, "spec.sessionAffinity", "None");
    doc::fill_text(tree, "spec.type", "ClusterIP");
    let kind = doc::text(tree, "spec.type").to_owned();
    if doc::text(tree, "spec.sessionAffinity") == "ClientIP" {
        doc::fill(tree, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", AFFINITY_SECONDS);
    } else {
        doc::remove(tree, "spec.sessionAffinityConfig");
    }
    for port in doc::items_mut(tree, "spec.ports") {
        doc::fill_text(port, "protocol", "TCP");
        let target = doc::get(port, "targetPort");
        if target.is_null() || *target == 0 || *target == "" {
            doc::copy_within(port, "port", "targetPort");
        }
    }
    let outside = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && !doc::items(tree, "spec.externalIPs").is_empty();
    if outside {
        doc::fill_text(tree, "spec.externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        doc::fill_text(tree, "spec.internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        doc::fill(tree, "spec.allocateLoadBalancerNodePorts", true);
    }
    doc::fill(tree, "status.loadBalancer", json!({}));
}

fn network_policy(tree: &mut Tree) {
    for (list, peers) in [("spec.ingress", "ports"), ("spec.egress", "ports")] {
        for rule in doc::items_mut(tree, list) {
            for port in doc::items_mut(rule, peers) {
                doc::fill(port, "protocol", "TCP");
            }
        }
    }
    if doc::items(tree, "spec.policyTypes").is_empty() {
        let both = !doc::items(tree, "spec.egress").is_empty();
        doc::set(tree, "spec.policyTypes", if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    }
}
