//! Garbage collection and namespaces over the built-in kinds.

use api::Propagation;
use serde_json::{Value, json};

use crate::testing::{World, run_pods};

const DEPLOYMENT: [&str; 3] = ["deployment", "replicaset", "garbage-collector"];

fn deployment(world: &mut World) {
    world.agent = run_pods;
    world.put(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
        },
    }));
    world.converge();
    assert_eq!(counts(world), (1, 1, 2));
}

fn counts(world: &World) -> (usize, usize, usize) {
    let of = |version: &str, kind: &str| world.list(version, kind).len();
    (of("apps/v1", "Deployment"), of("apps/v1", "ReplicaSet"), of("v1", "Pod"))
}

#[test]
fn background_takes_all_that_depended() {
    let mut world = World::new(&DEPLOYMENT);
    deployment(&mut world);
    world.delete("apps/v1", "Deployment", "a/web", Some(Propagation::Background));
    assert_eq!(counts(&world).0, 0);
    world.pass(5);
    assert_eq!(counts(&world), (0, 0, 0));
}

#[test]
fn foreground_goes_last() {
    let mut world = World::new(&DEPLOYMENT);
    deployment(&mut world);
    world.agent = |_| {};
    world.delete("apps/v1", "Deployment", "a/web", Some(Propagation::Foreground));
    world.pass(5);
    assert_eq!(counts(&world), (1, 1, 2), "pods are still ending");
    world.agent = run_pods;
    world.pass(5);
    assert_eq!(counts(&world), (0, 0, 0));
}

#[test]
fn orphans_stay_and_are_free() {
    let mut world = World::new(&DEPLOYMENT);
    deployment(&mut world);
    world.delete("apps/v1", "Deployment", "a/web", Some(Propagation::Orphan));
    world.pass(5);
    assert_eq!(counts(&world), (0, 1, 2));
    let set = world.list("apps/v1", "ReplicaSet")[0].clone();
    assert_eq!(set["metadata"].get("ownerReferences"), None);
}

#[test]
fn an_owner_of_another_uid_is_no_owner_and_one_solid_owner_is_enough() {
    let mut world = World::new(&["garbage-collector"]);
    let owner = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let map = |name: &str, owners: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "a", "uid": format!("uid-of-{name}"), "ownerReferences": owners}});
    world.put(map("owner", json!([])));
    world.put(map("kept", json!([owner("owner", "uid-of-owner"), owner("gone", "uid-of-gone")])));
    world.put(map("stale", json!([owner("owner", "uid-of-another")])));
    world.pass(5);
    assert!(world.get("v1", "ConfigMap", "a/stale").is_null());
    let owners = world.get("v1", "ConfigMap", "a/kept")["metadata"]["ownerReferences"].clone();
    assert_eq!(owners, json!([owner("owner", "uid-of-owner")]));
}

#[test]
fn a_namespace_empties_itself_and_goes() {
    let mut world = World::new(&["namespace", "garbage-collector"]);
    world.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}}));
    world.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "a"}}));
    world.put(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a", "finalizers": ["x/y"]}}));
    world.converge();
    world.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["keep"]}, "spec": {"finalizers": ["kubernetes"]}}));
    world.pass(10);
    assert!(world.list("v1", "ConfigMap").is_empty());
    let conditions = world.get("v1", "Namespace", "a")["status"]["conditions"].clone();
    let told = conditions.as_array().unwrap().iter().find(|c| c["type"] == "NamespaceFinalizersRemaining").unwrap();
    assert_eq!(told["message"], "Some content in the namespace has finalizers remaining: x/y in 1 resource instances");
    world.edit("v1", "Secret", "a/s", json!({"metadata": {"finalizers": null}}));
    world.pass(10);
    assert!(world.get("v1", "Namespace", "a").is_null());
}
