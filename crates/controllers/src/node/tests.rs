//! Node lifecycle: lost leases, taints, evictions, pod ranges.

use api::Tree;
use serde_json::json;

use crate::testing::World;

fn node(name: &str, ready: &str) -> Tree {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
    })
}

fn pod(name: &str, tolerations: Tree) -> Tree {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"},
        "spec": {"nodeName": "n1", "containers": [], "tolerations": tolerations},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn taints(world: &World) -> Vec<String> {
    let node = world.get("v1", "Node", "n1");
    let of = |taint: &Tree| format!("{} {}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap());
    node["spec"]["taints"].as_array().map(|all| all.iter().map(of).collect()).unwrap_or_default()
}

#[test]
fn a_silent_node_is_given_up_and_comes_back() {
    let mut world = World::new(&["node-lifecycle", "taint-eviction"]);
    let patient = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}]);
    world.put(node("n1", "True"));
    world.put(pod("patient", patient));
    world.put(pod("daemon", json!([{"operator": "Exists"}])));
    world.put(pod("hasty", json!([])));
    world.converge();
    assert!(taints(&world).is_empty());
    world.pass(41);
    let expected = ["node.kubernetes.io/unreachable NoSchedule", "node.kubernetes.io/unreachable NoExecute"];
    assert_eq!(taints(&world), expected);
    let ready = |world: &World, name: &str| world.get("v1", "Pod", name)["status"]["conditions"][0]["status"].clone();
    assert_eq!(ready(&world, "a/patient"), "False");
    let leaving =
        |world: &World, name: &str| world.get("v1", "Pod", name)["metadata"].get("deletionTimestamp").is_some();
    assert!(leaving(&world, "a/hasty") && !leaving(&world, "a/patient"));
    world.pass(290);
    assert!(!leaving(&world, "a/patient"));
    world.pass(20);
    assert!(leaving(&world, "a/patient") && !leaving(&world, "a/daemon"));
    world.edit("v1", "Node", "n1", json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": crate::kit::value::time(world.now)}]}}));
    world.converge();
    assert!(taints(&world).is_empty(), "{:?}", taints(&world));
}

/// A pod as admission leaves it, of an owner of this kind.
fn owned(name: &str, kind: &str, volumes: Tree) -> Tree {
    let wait = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let both = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].map(wait);
    let mut pod = pod(name, json!(both));
    let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "o", "controller": true});
    pod["metadata"]["ownerReferences"] = json!([owner]);
    pod["spec"]["volumes"] = volumes;
    pod
}

fn lost(world: &World, status: &str) -> Tree {
    let at = crate::kit::value::time(world.now);
    json!({"type": crate::LOST, "status": status, "lastTransitionTime": at})
}

#[test]
fn of_a_lost_node_what_others_can_replace_leaves_at_once() {
    let mut world = World::new(&["node-lifecycle", "taint-eviction"]);
    world.put(node("n1", "True"));
    world.put(owned("web", "ReplicaSet", json!([{"name": "tmp", "emptyDir": {}}])));
    world.put(owned("data", "ReplicaSet", json!([{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}])));
    world.put(owned("db-0", "StatefulSet", json!([])));
    let mut patient = owned("patient", "ReplicaSet", json!([]));
    patient["spec"]["tolerations"][1]["tolerationSeconds"] = json!(301);
    world.put(patient);
    world.put(pod("bare", json!([{"operator": "Exists", "tolerationSeconds": 300}])));
    world.pass(25);
    assert!(taints(&world).is_empty(), "an old lease alone is no reason yet");
    let mut said = world.get("v1", "Node", "n1");
    let condition = lost(&world, "True");
    said["status"]["conditions"].as_array_mut().unwrap().push(condition);
    world.put(said);
    world.converge();
    assert_eq!(taints(&world).len(), 2);
    let leaving =
        |world: &World, name: &str| world.get("v1", "Pod", name)["metadata"].get("deletionTimestamp").is_some();
    assert!(leaving(&world, "a/web"));
    for name in ["a/data", "a/db-0", "a/patient", "a/bare"] {
        assert!(!leaving(&world, name), "{name} waits as upstream has it wait");
    }
    world.pass(302);
    assert!(leaving(&world, "a/db-0") && leaving(&world, "a/patient"));
}

#[test]
fn a_node_that_shows_itself_is_lost_no_more() {
    let mut world = World::new(&["node-lifecycle", "taint-eviction"]);
    world.put(node("n1", "True"));
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1", "namespace": "kube-node-lease"}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
    world.put(lease);
    world.pass(25);
    let condition = lost(&world, "True");
    world.pass(1);
    // It renews its lease before the servers have looked again.
    world.edit(
        "coordination.k8s.io/v1",
        "Lease",
        "kube-node-lease/n1",
        json!({"spec": {"renewTime": "2026-01-01T00:00:26.000000Z"}}),
    );
    let mut said = world.get("v1", "Node", "n1");
    said["status"]["conditions"].as_array_mut().unwrap().push(condition);
    world.put(said);
    world.converge();
    assert!(taints(&world).is_empty());
}

#[test]
fn a_lease_keeps_a_node_alive_and_conditions_taint() {
    let mut world = World::new(&["node-lifecycle"]);
    world.put(node("n1", "True"));
    let renewed = "2026-01-01T00:02:00.000000Z";
    world.put(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1", "namespace": "kube-node-lease"}, "spec": {"renewTime": renewed}}));
    world.pass(100);
    assert!(taints(&world).is_empty());
    world.edit("v1", "Node", "n1", json!({"spec": {"unschedulable": true}}));
    world.converge();
    assert_eq!(taints(&world), ["node.kubernetes.io/unschedulable NoSchedule"]);
    world.edit("v1", "Node", "n1", json!({"spec": {"unschedulable": null}}));
    world.converge();
    assert!(taints(&world).is_empty());
}

#[test]
fn ranges_are_given_once() {
    let mut world = World::new(&["node-ipam"]);
    for name in ["n1", "n2", "n3"] {
        world.put(node(name, "True"));
    }
    world.converge();
    assert_eq!(world.table("v1", "Node", &["/spec/podCIDR"]), "n1 10.42.0.0/24\nn2 10.42.1.0/24\nn3 10.42.2.0/24\n");
    world.delete("v1", "Node", "n2", None);
    world.put(node("n4", "True"));
    world.converge();
    assert_eq!(world.get("v1", "Node", "n4")["spec"]["podCIDRs"], json!(["10.42.1.0/24"]));
}
