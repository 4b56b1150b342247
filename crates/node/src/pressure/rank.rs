//! Which pod leaves first, and what it is told. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use api::Quantity;
use k8s_openapi::api::core::v1 as core;

use super::decide::Starved;
use super::usage::PodUsage;
use super::{Condition, Signal};
use crate::admission::is_critical;
use crate::pod::Outcome;
use crate::spec::resources;

/// Seconds that a pod gets which leaves because the node runs short.
pub const GRACE_SECONDS: i64 = 1;

/// A pod that could leave.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    pub pod: Arc<core::Pod>,
    pub usage: PodUsage,
}

/// Where the pods' writable layers lie relative to the other files of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    /// One file system holds both.
    One,
    /// Images and layers have a file system of their own.
    Two,
}

/// The pods in the order in which they leave: first those above their request, of these the less important, of these the
/// greedier. What keeps the node alive never leaves.
pub fn order(mut candidates: Vec<Candidate>, signal: Signal, disks: Disks) -> Vec<Candidate> {
    candidates.retain(|candidate| !is_critical(&candidate.pod));
    candidates.sort_by_key(|candidate| {
        let used = used(&candidate.usage, signal, disks);
        let priority = candidate.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        let request = match signal.resource() {
            // Nobody asks for inodes or processes.
            "inodes" | "pids" => return (false, priority, Reverse(used)),
            resource => request(&candidate.pod, resource),
        };
        (used <= request, priority, Reverse(used - request))
    });
    candidates
}

/// What a pod takes of the thing that is short.
fn used(usage: &PodUsage, signal: Signal, disks: Disks) -> i64 {
    let layers = |of: fn(&super::usage::ContainerUsage) -> i64| usage.containers.values().map(of).sum::<i64>();
    let volumes = |of: fn(&super::usage::Du) -> i64| usage.empty_dirs.values().map(of).sum::<i64>();
    match (signal, disks) {
        (Signal::MemoryAvailable, _) => layers(|one| one.memory_bytes),
        (Signal::PidAvailable, _) => usage.processes,
        (Signal::NodeFsAvailable | Signal::ImageFsAvailable, Disks::One) => {
            layers(|one| one.layer.bytes + one.logs.bytes) + volumes(|one| one.bytes)
        }
        (Signal::NodeFsAvailable, Disks::Two) => layers(|one| one.logs.bytes) + volumes(|one| one.bytes),
        (Signal::ImageFsAvailable, Disks::Two) => layers(|one| one.layer.bytes),
        (Signal::NodeFsInodesFree | Signal::ImageFsInodesFree, Disks::One) => {
            layers(|one| one.layer.inodes + one.logs.inodes) + volumes(|one| one.inodes)
        }
        (Signal::NodeFsInodesFree, Disks::Two) => layers(|one| one.logs.inodes) + volumes(|one| one.inodes),
        (Signal::ImageFsInodesFree, Disks::Two) => layers(|one| one.layer.inodes),
    }
}

fn request(pod: &core::Pod, resource: &str) -> i64 {
    api::fit::requests(pod).get(resource)
}

// === what the pod is told ===

/// The end of a pod that leaves for what is short.
pub fn outcome(candidate: &Candidate, starved: &Starved) -> Outcome {
    let resource = starved.signal.resource();
    let mut message = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        written(starved.signal, starved.least),
        written(starved.signal, starved.available),
    );
    let spec = candidate.pod.spec.as_ref();
    for container in spec.into_iter().flat_map(|spec| &spec.containers) {
        let Some(usage) = candidate.usage.containers.get(&container.name) else { continue };
        let used = match starved.signal.resource() {
            "memory" => usage.memory_bytes,
            "ephemeral-storage" => usage.layer.bytes + usage.logs.bytes,
            _ => continue,
        };
        let requests = container.resources.as_ref().and_then(|all| all.requests.as_ref());
        let request = requests.and_then(|requests| requests.get(resource)).map_or("0", |quantity| quantity.0.as_str());
        if resources::whole(requests, resource).unwrap_or_default() < used {
            message.push_str(&format!(
                "Container {} was using {}, request is {request}, has larger consumption of {resource}. ",
                container.name,
                written(starved.signal, used),
            ));
        }
    }
    evicted(message)
}

/// An end that the node decides for its own sake.
pub fn evicted(message: String) -> Outcome {
    Outcome { reason: "Evicted".into(), message, grace_seconds: Some(GRACE_SECONDS), disruption: true }
}

fn written(signal: Signal, amount: i64) -> String {
    if signal.is_bytes() && amount % 1024 == 0 {
        Quantity::from_bytes(amount).to_string()
    } else {
        Quantity::from_units(amount).to_string()
    }
}

impl Condition {
    /// Reason and message of the node's condition.
    pub fn words(self, on: bool) -> (&'static str, &'static str) {
        match (self, on) {
            (Condition::Memory, true) => ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            (Condition::Memory, false) => ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            (Condition::Disk, true) => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            (Condition::Disk, false) => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            (Condition::Pid, true) => ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            (Condition::Pid, false) => ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::usage::{ContainerUsage, Du};
    use serde_json::json;

    const MIB: i64 = 1 << 20;

    /// `name priority request used`, memory and disk alike in MiB.
    fn candidates(script: &str) -> Vec<Candidate> {
        let one = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| words[at].parse::<i64>().unwrap();
            let requests =
                json!({"memory": format!("{}Mi", number(2)), "ephemeral-storage": format!("{}Mi", number(2))});
            let pod = json!({
                "metadata": {"name": words[0]},
                "spec": {"priority": number(1), "containers": [{"name": "c", "resources": {"requests": requests}}]},
            });
            let used = number(3) * MIB;
            let logs = Du { bytes: used, inodes: number(3) };
            let container = ContainerUsage { memory_bytes: used, logs, ..ContainerUsage::default() };
            let usage = PodUsage { containers: [("c".to_owned(), container)].into(), ..PodUsage::default() };
            Candidate { pod: Arc::new(serde_json::from_value(pod).unwrap()), usage }
        };
        script.lines().map(one).collect()
    }

    fn check(script: &str, signal: Signal, wanted: &str) {
        let ordered = order(candidates(script), signal, Disks::One);
        let names: Vec<String> = ordered.iter().filter_map(|one| one.pod.metadata.name.clone()).collect();
        assert_eq!(names.join(" "), wanted);
    }

    #[test]
    fn who_takes_more_than_asked_leaves_first() {
        let script = "modest 0 100 90\ngreedy 0 10 50\ngreedier 0 10 80\nimportant 1000 0 500\nvital 2000000000 0 900";
        check(script, Signal::MemoryAvailable, "greedier greedy important modest");
        check(script, Signal::NodeFsAvailable, "greedier greedy important modest");
        // Inodes are not asked for: importance, then use.
        check(script, Signal::NodeFsInodesFree, "modest greedier greedy important");
    }

    #[test]
    fn the_message_names_what_was_short_and_who_took_it() {
        let starved = Starved { signal: Signal::MemoryAvailable, least: 100 * MIB, available: 50 * MIB };
        let said = outcome(&candidates("p 0 10 64")[0], &starved);
        assert_eq!(
            said.message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 64Mi, \
             request is 10Mi, has larger consumption of memory. "
        );
        assert_eq!((said.reason.as_str(), said.grace_seconds), ("Evicted", Some(1)));
    }
}
