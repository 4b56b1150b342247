//! Whether a pod that was bound here can run here, in upstream's order and words. Pure.
//!
//! The scheduler has asked before, but it may have been wrong by now, and a pod may name its node without it. What does
//! not fit fails at once: its owner makes another, which the scheduler places anew.

use std::sync::Arc;

use api::fit::{self, Amounts, Labels, Taint, Toleration};
use base::SmolStr;
use k8s_openapi::api::core::v1 as core;

use crate::pod::Outcome;
use crate::pressure::Condition;
use crate::spec::qos::{self, Qos};

/// Pods of this priority and above keep the node itself alive (`SystemCriticalPriority`).
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;
const OS: &str = "linux";

/// What a new pod finds.
#[derive(Clone, Debug, Default)]
pub struct Room {
    pub node: SmolStr,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub allocatable: Amounts,
    /// Pods that hold their part of it.
    pub others: Vec<Arc<core::Pod>>,
    pub pressure: Vec<Condition>,
    /// Sysctls beyond the safe ones that pods may set: names, or beginnings that end with `*`.
    pub sysctls: Vec<String>,
    /// The kernel enforces AppArmor profiles.
    pub apparmor: bool,
    /// The runtime knows `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
}

/// Why the pod cannot run here; None where it can.
pub fn judge(pod: &core::Pod, room: &Room) -> Option<Outcome> {
    system(pod, room)
        .or_else(|| confined(pod, room))
        .or_else(|| sysctls(pod, room))
        .or_else(|| pressed(pod, room))
        .or_else(|| resources(pod, room))
        .or_else(|| general(pod, room))
}

pub fn is_critical(pod: &core::Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| CRITICAL_PRIORITY <= priority)
}

fn refusal(reason: &str, message: impl Into<String>) -> Option<Outcome> {
    Some(Outcome { reason: reason.to_owned(), message: message.into(), ..Outcome::default() })
}

fn system(pod: &core::Pod, room: &Room) -> Option<Outcome> {
    let labels = pod.metadata.labels.as_ref();
    if labels.and_then(|labels| labels.get("kubernetes.io/os")).is_some_and(|os| os != OS) {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return refusal("PodOSSelectorNodeLabelDoesNotMatch", message);
    }
    let spec = pod.spec.as_ref()?;
    if spec.os.as_ref().is_some_and(|os| os.name != OS) {
        return refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    let policy = spec.security_context.as_ref().and_then(|context| context.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !room.strict_groups {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return refusal("SupplementalGroupsPolicyNotSupported", message);
    }
    None
}

/// A profile that nobody enforces would be a promise broken in silence.
fn confined(pod: &core::Pod, room: &Room) -> Option<Outcome> {
    let spec = pod.spec.as_ref()?;
    let whole = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let each = containers.filter_map(|container| container.security_context.as_ref()?.app_armor_profile.as_ref());
    let wanted = whole.into_iter().chain(each).any(|profile| profile.type_ != "Unconfined");
    if wanted && !room.apparmor {
        return refusal("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
    None
}

/// Kernel settings that stay within the pod. Any other would change the node for everybody.
fn sysctls(pod: &core::Pod, room: &Room) -> Option<Outcome> {
    let spec = pod.spec.as_ref()?;
    let forbidden = |why: String| refusal("SysctlForbidden", format!("forbidden sysctl: {why}"));
    for sysctl in spec.security_context.as_ref()?.sysctls.iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        let allowed = room.sysctls.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == *allowed,
        });
        if !allowed && !SAFE_SYSCTLS.contains(&name.as_str()) {
            return forbidden(format!("{:?} not allowlisted", sysctl.name));
        }
        if name.starts_with("net.") && spec.host_network == Some(true) {
            return forbidden(format!("{:?} not allowed with host net enabled", sysctl.name));
        }
        if name.starts_with("kernel.shm") && spec.host_ipc == Some(true) {
            return forbidden(format!("{:?} not allowed with host ipc enabled", sysctl.name));
        }
    }
    None
}

/// Upstream's list.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Under memory pressure only pods without requests are refused, and those that tolerate it are not.
fn pressed(pod: &core::Pod, room: &Room) -> Option<Outcome> {
    if room.pressure.is_empty() || is_critical(pod) {
        return None;
    }
    if room.pressure == [Condition::Memory] {
        let taint = Taint {
            key: Condition::Memory.taint().into(),
            value: SmolStr::default(),
            effect: SmolStr::new_static("NoSchedule"),
        };
        if qos::class(pod) != Qos::BestEffort || tolerations(pod).iter().any(|one| one.tolerates(&taint)) {
            return None;
        }
    }
    let names: Vec<&str> = room.pressure.iter().map(|condition| condition.name()).collect();
    refusal("Evicted", format!("The node had condition: [{}]. ", names.join(" ")))
}

/// What of resources the pod lacks.
pub fn resources(pod: &core::Pod, room: &Room) -> Option<Outcome> {
    let mut used = Amounts::default();
    room.others.iter().for_each(|other| used.add(&fit::requests(other)));
    let requests = fit::requests(pod);
    // In upstream's order: the first that lacks is named.
    const FIRST: [&str; 4] = ["pods", "cpu", "memory", "ephemeral-storage"];
    let rest = requests.0.keys().map(SmolStr::as_str).filter(|name| !FIRST.contains(name));
    for name in FIRST.into_iter().chain(rest) {
        let (requested, used, capacity) = (requests.get(name), used.get(name), room.allocatable.get(name));
        // An extended resource that the node does not know is some cluster-wide thing's business.
        let foreign = name.contains('/') && !room.allocatable.0.contains_key(name);
        if 0 < requested && !foreign && capacity < used + requested {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return refusal(&format!("OutOf{name}"), message);
        }
    }
    None
}

fn general(pod: &core::Pod, room: &Room) -> Option<Outcome> {
    let spec = pod.spec.as_ref()?;
    let failed = |predicate: &str, why: &str| refusal(predicate, format!("Predicate {predicate} failed: {why}"));
    if !fit::selected(spec, &room.node, &room.labels) {
        return failed(NODE_AFFINITY, "node(s) didn't match Pod's node affinity/selector");
    }
    let wanted = fit::host_ports(pod);
    let mut taken = room.others.iter().flat_map(|other| fit::host_ports(other));
    if taken.any(|taken| wanted.iter().any(|wanted| fit::clash(wanted, &taken))) {
        return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    let tolerations = tolerations(pod);
    let mut hard = room.taints.iter().filter(|taint| taint.effect == "NoExecute");
    if hard.any(|taint| !tolerations.iter().any(|toleration| toleration.tolerates(taint))) {
        return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    None
}

/// The refusal that a look at the node's newest labels may lift.
pub const NODE_AFFINITY: &str = "NodeAffinity";

fn tolerations(pod: &core::Pod) -> Vec<Toleration> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.tolerations.iter().flatten()).map(Toleration::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Arc<core::Pod> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap())
    }

    fn asking(requests: &Value) -> Value {
        json!({"containers": [{"name": "a", "resources": {"requests": requests}}]})
    }

    fn room() -> Room {
        let amounts = [("cpu", 2000), ("memory", 1 << 30), ("pods", 2), ("ephemeral-storage", 1 << 30)];
        Room {
            node: "n1".into(),
            labels: Labels::from([("disk".into(), "ssd".into())]),
            allocatable: Amounts(amounts.into_iter().map(|(name, amount)| (name.into(), amount)).collect()),
            others: vec![pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1500m"}},
                "ports": [{"containerPort": 80, "hostPort": 8080}]}]}))],
            ..Room::default()
        }
    }

    fn check(spec: Value, wanted: &str) {
        let said = judge(&pod(spec), &room()).map(|outcome| format!("{}: {}", outcome.reason, outcome.message));
        assert_eq!(said.unwrap_or_default(), wanted);
    }

    #[test]
    fn what_fits_is_taken() {
        check(asking(&json!({"cpu": "500m", "memory": "1Gi"})), "");
        check(asking(&json!({"example.com/unknown": "1"})), "");
        check(json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), "");
    }

    #[test]
    fn what_lacks_is_named_as_upstream_names_it() {
        let lacks = "Node didn't have enough resource:";
        check(
            asking(&json!({"cpu": "501m"})),
            &format!("OutOfcpu: {lacks} cpu, requested: 501, used: 1500, capacity: 2000"),
        );
        check(
            asking(&json!({"memory": "2Gi"})),
            &format!("OutOfmemory: {lacks} memory, requested: 2147483648, used: 0, capacity: 1073741824"),
        );
        check(
            asking(&json!({"ephemeral-storage": "2Gi"})),
            &format!(
                "OutOfephemeral-storage: {lacks} ephemeral-storage, requested: 2147483648, used: 0, capacity: 1073741824"
            ),
        );
        let mut full = room();
        full.others.push(pod(json!({"containers": []})));
        let said = judge(&pod(json!({"containers": []})), &full).unwrap();
        assert_eq!(said.reason, "OutOfpods");
        assert_eq!(said.message, format!("{lacks} pods, requested: 1, used: 2, capacity: 2"));
    }

    #[test]
    fn selectors_ports_systems_and_taints() {
        let affinity = "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        check(json!({"containers": [], "nodeSelector": {"disk": "tape"}}), affinity);
        let port = json!({"containers": [{"name": "b", "ports": [{"containerPort": 1, "hostPort": 8080}]}]});
        let ports = "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        check(port, ports);
        let os = "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS";
        check(json!({"containers": [], "os": {"name": "windows"}}), os);
        let mut tainted = room();
        tainted.taints = vec![Taint { key: "k".into(), value: "".into(), effect: "NoExecute".into() }];
        assert_eq!(judge(&pod(json!({"containers": []})), &tainted).unwrap().reason, "TaintToleration");
        assert!(judge(&pod(json!({"containers": [], "tolerations": [{"operator": "Exists"}]})), &tainted).is_none());
    }

    #[test]
    fn what_the_kernel_cannot_keep_apart_or_enforce_is_refused() {
        let sysctl =
            |name: &str| json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        check(sysctl("net.ipv4.tcp_syncookies"), "");
        check(sysctl("kernel.msgmax"), "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
        let allowing = Room { sysctls: vec!["net.core.*".into()], ..room() };
        assert!(judge(&pod(sysctl("net.core.somaxconn")), &allowing).is_none());
        assert!(judge(&pod(sysctl("net.corex")), &allowing).is_some());
        let mut host = sysctl("net/ipv4/tcp_syncookies");
        host["hostNetwork"] = json!(true);
        let why = "SysctlForbidden: forbidden sysctl: \"net/ipv4/tcp_syncookies\" not allowed with host net enabled";
        check(host, why);
        let profile =
            |kind: &str| json!({"containers": [{"name": "a", "securityContext": {"appArmorProfile": {"type": kind}}}]});
        check(profile("Unconfined"), "");
        check(profile("RuntimeDefault"), "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }

    #[test]
    fn pressure_refuses_those_it_would_take_first() {
        let pressed = |conditions: &[Condition], spec: Value| {
            judge(&pod(spec), &Room { pressure: conditions.to_vec(), ..room() }).map(|outcome| outcome.message)
        };
        let bare = || json!({"containers": [{"name": "a"}]});
        let memory = Some("The node had condition: [MemoryPressure]. ".to_owned());
        assert_eq!(pressed(&[Condition::Memory], bare()), memory);
        assert_eq!(pressed(&[Condition::Memory], asking(&json!({"memory": "1Mi"}))), None);
        assert!(pressed(&[Condition::Disk], asking(&json!({"memory": "1Mi"}))).is_some());
        let mut critical = bare();
        critical["priority"] = json!(CRITICAL_PRIORITY);
        assert_eq!(pressed(&[Condition::Disk], critical), None);
    }
}
