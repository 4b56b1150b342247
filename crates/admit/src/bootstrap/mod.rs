//! What exists from the first start: namespaces, roles and bindings, priorities, flow control, the Service range.
//!
//! The facts are tables of ours (`*.txt`, one line a fact); a test holds them against what upstream answers.

mod flow;
mod rbac;

use api::Tree;
use serde_json::json;

use crate::ports::Config;

/// All bootstrap objects, each after what it needs.
pub fn objects(config: &Config) -> Vec<Tree> {
    let mut objects = namespaces();
    objects.extend(rbac::cluster_roles());
    objects.extend(rbac::cluster_role_bindings());
    objects.extend(rbac::roles());
    objects.extend(rbac::role_bindings());
    objects.extend(priority_classes());
    objects.extend(flow::levels());
    objects.extend(flow::schemas());
    objects.push(service_range(config));
    objects
}

/// A bootstrap cluster role by name.
pub(crate) fn cluster_role(name: &str) -> Option<Tree> {
    rbac::cluster_roles().into_iter().find(|role| crate::doc::text(role, "metadata.name") == name)
}

fn namespaces() -> Vec<Tree> {
    let namespace = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]},
        })
    };
    ["default", "kube-system", "kube-public", "kube-node-lease"].into_iter().map(namespace).collect()
}

fn priority_classes() -> Vec<Tree> {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": "PreemptLowerPriority", "description": description,
        })
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

fn service_range(config: &Config) -> Tree {
    let cidrs: Vec<String> = config.service_cidrs.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": cidrs},
    })
}

#[cfg(test)]
mod tests;
