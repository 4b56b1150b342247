//! In-place resize: cpu and memory of containers that run. Pure.
//!
//! The pod that a worker holds has the resources this node has promised; what its record asks for beyond them is pending
//! until it fits. What a container was last given is on its run; where that differs from the promise, work is left.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use crate::admission::{self, Room};
use crate::spec::resources;

/// A resize that waits (`PodResizePending`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    pub message: String,
}

/// How far a container is with what it should be given.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Resizing {
    #[default]
    Idle,
    Working,
    /// The runtime refused; tried again at the next tick after.
    Failed {
        message: String,
        retry_at: jiff::Timestamp,
    },
}

const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// The resources, of those a resize may touch, that differ.
pub fn changes(
    one: Option<&core::ResourceRequirements>,
    other: Option<&core::ResourceRequirements>,
) -> Vec<&'static str> {
    let amounts = |all: Option<&core::ResourceRequirements>, name: &str| {
        let of = |map: Option<&BTreeMap<_, _>>| map.and_then(|map| map.get(name)).map(resources::quantity);
        (of(all.and_then(|all| all.requests.as_ref())), of(all.and_then(|all| all.limits.as_ref())))
    };
    RESIZABLE.into_iter().filter(|name| amounts(one, name) != amounts(other, name)).collect()
}

/// `RestartContainer` for any resource that changes.
pub fn needs_restart(container: &core::Container, changes: &[&str]) -> bool {
    let policies = container.resize_policy.iter().flatten();
    let restarts = |policy: &core::ContainerResizePolicy| {
        policy.restart_policy == "RestartContainer" && changes.contains(&policy.resource_name.as_str())
    };
    policies.into_iter().any(restarts)
}

fn containers(pod: &core::Pod) -> impl Iterator<Item = &core::Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

/// The record with the resources that are promised already.
pub fn overlay(record: &core::Pod, held: &core::Pod) -> core::Pod {
    let promised: BTreeMap<&str, _> = containers(held).map(|one| (one.name.as_str(), &one.resources)).collect();
    with_resources(record, |container| promised.get(container.name.as_str()).map(|resources| (*resources).clone()))
}

/// The pod as an earlier process of ours had promised it: its status says what the containers were given.
pub fn adopted(record: &core::Pod) -> core::Pod {
    let status = record.status.as_ref();
    let lists = status.map(|status| [&status.container_statuses, &status.init_container_statuses]);
    let given: Vec<_> = lists.into_iter().flatten().flatten().flatten().collect();
    with_resources(record, |container| {
        let status = given.iter().find(|status| status.name == container.name)?;
        status.resources.as_ref().map(|resources| Some(resources.clone()))
    })
}

fn with_resources(
    record: &core::Pod,
    of: impl Fn(&core::Container) -> Option<Option<core::ResourceRequirements>>,
) -> core::Pod {
    let mut pod = record.clone();
    if let Some(spec) = &mut pod.spec {
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if let Some(resources) = of(container)
                && !changes(container.resources.as_ref(), resources.as_ref()).is_empty()
            {
                container.resources = resources;
            }
        }
    }
    pod
}

/// The record asks for something else than is promised.
pub fn is_wanted(record: &core::Pod, held: &core::Pod) -> bool {
    containers(record).any(|container| {
        let had = containers(held).find(|had| had.name == container.name);
        had.is_some_and(|had| !changes(container.resources.as_ref(), had.resources.as_ref()).is_empty())
    })
}

/// Why the record's resources cannot be promised now; None where they can.
pub fn judge(record: &core::Pod, room: &Room) -> Option<Pending> {
    // What the pod holds already is its own to give back: only the wish counts.
    let wish = core::Pod { status: None, ..record.clone() };
    let requests = api::fit::requests(&wish);
    for name in RESIZABLE {
        let (requested, capacity) = (requests.get(name), room.allocatable.get(name));
        if capacity < requested {
            let message =
                format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
            return Some(Pending { reason: "Infeasible", message });
        }
    }
    let lacking = admission::resources(&wish, room)?;
    Some(Pending { reason: "Deferred", message: lacking.message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pod(cpu: &str, status: Value) -> core::Pod {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"memory": "1Gi"}});
        let spec = json!({"containers": [{"name": "a", "resources": resources}, {"name": "b"}]});
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn the_promise_stays_until_the_wish_fits() {
        let (held, wish) = (pod("1", json!({})), pod("2", json!({})));
        assert!(is_wanted(&wish, &held) && !is_wanted(&pod("1000m", json!({})), &held));
        let kept = overlay(&wish, &held);
        assert!(!is_wanted(&kept, &held));
        let amounts = [("cpu", 3000), ("memory", 2 << 30), ("pods", 9)];
        let allocatable = api::fit::Amounts(amounts.into_iter().map(|(name, amount)| (name.into(), amount)).collect());
        let room = |other: &str| Room {
            allocatable: allocatable.clone(),
            others: vec![Arc::new(pod(other, json!({})))],
            ..Room::default()
        };
        assert_eq!(judge(&wish, &room("1")), None);
        let deferred = judge(&wish, &room("1001m")).unwrap();
        assert_eq!(deferred.reason, "Deferred");
        assert_eq!(
            deferred.message,
            "Node didn't have enough resource: cpu, requested: 2000, used: 1001, capacity: 3000"
        );
        assert_eq!(judge(&pod("4", json!({})), &room("1")).unwrap().reason, "Infeasible");
    }

    #[test]
    fn after_a_restart_the_status_tells_what_was_promised() {
        let given = json!({"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}});
        let status = json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true,
            "restartCount": 0, "resources": given}]});
        let held = adopted(&pod("1", status));
        let resources = held.spec.unwrap().containers[0].resources.clone();
        assert_eq!(resources.unwrap().requests.unwrap()["cpu"].0, "500m");
    }

    #[test]
    fn only_policies_of_what_changes_count() {
        let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        let container: core::Container = serde_json::from_value(json!({"name": "a", "resizePolicy": policy})).unwrap();
        assert!(needs_restart(&container, &["memory"]) && !needs_restart(&container, &["cpu"]));
    }
}
