//! Claims meet volumes: binding, provisioning, protection.

use api::Tree;
use api::local_path::{FINALIZER, PROVISIONED_BY, PROVISIONER, RECLAIM, RECLAIMED};
use serde_json::json;

use crate::testing::{World, gvr};

const ALL: [&str; 7] = [
    "persistentvolumeclaim-binder",
    "persistentvolume-binder",
    "persistentvolumeclaim-protection",
    "persistentvolume-protection",
    "local-path-reclaimer",
    "local-path-provisioner",
    "local-path-class",
];

fn claim(class: &str) -> Tree {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "a"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                 "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn phases(world: &World) -> (String, String) {
    let claims = world.table("v1", "PersistentVolumeClaim", &["/status/phase", "/spec/volumeName"]);
    (claims, world.table("v1", "PersistentVolume", &["/status/phase", "/spec/claimRef/name"]))
}

#[test]
fn a_claim_waits_for_its_pod_then_gets_a_folder() {
    let mut world = World::new(&ALL);
    world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
    world.put(claim("local-path"));
    world.converge();
    let class = world.get("storage.k8s.io/v1", "StorageClass", "local-path");
    assert_eq!(class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"], "true");
    assert_eq!(phases(&world), ("data Pending null\n".to_owned(), String::new()));
    let body = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}});
    world.edit("v1", "PersistentVolumeClaim", "a/data", body);
    world.converge();
    let uid = world.get("v1", "PersistentVolumeClaim", "a/data")["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(phases(&world), (format!("data Bound pvc-{uid}\n"), format!("pvc-{uid} Bound data\n")));
    let volume = world.get("v1", "PersistentVolume", &format!("pvc-{uid}"));
    assert_eq!(volume["spec"]["hostPath"]["type"], "DirectoryOrCreate");

    // In use: the claim stays until its pod is gone, then the volume goes too.
    world.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "status": {"phase": "Running"},
        "spec": {"nodeName": "n1", "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
    }));
    world.delete("v1", "PersistentVolumeClaim", "a/data", None);
    world.converge();
    assert!(world.get("v1", "PersistentVolumeClaim", "a/data").is_object());
    world.edit("v1", "Pod", "a/p", json!({"status": {"phase": "Succeeded"}}));
    world.converge();
    assert!(world.get("v1", "PersistentVolumeClaim", "a/data").is_null());
    // The volume goes after its folder, for which the node is asked; it may be away for long.
    let folder = format!("pvc-{uid}_a_data");
    let asked = |world: &World| world.get("v1", "Node", "n1")["metadata"]["annotations"][RECLAIM].clone();
    assert_eq!(asked(&world), json!(folder));
    assert_eq!(world.list("v1", "PersistentVolume").len(), 1);
    world.edit("v1", "Node", "n1", json!({"metadata": {"annotations": {RECLAIMED: folder}}}));
    world.converge();
    assert!(world.list("v1", "PersistentVolume").is_empty());
    assert!(asked(&world).is_null(), "nothing is left to ask");
}

/// A volume whose claim is gone and that somebody deletes.
fn left_over(policy: &str) -> World {
    let mut world = World::new(&ALL);
    world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
    world.put(json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "v", "annotations": {"volume.kubernetes.io/selected-node": "n1", PROVISIONED_BY: PROVISIONER},
                     "finalizers": ["kubernetes.io/pv-protection", FINALIZER]},
        "spec": {"persistentVolumeReclaimPolicy": policy, "hostPath": {"path": "/s/pvc-1_a_b"},
                 "claimRef": {"namespace": "a", "name": "b", "uid": "gone"}},
        "status": {"phase": "Bound"},
    }));
    world.converge();
    world
}

#[test]
fn a_retained_volume_goes_without_its_folder() {
    let mut world = left_over("Retain");
    assert_eq!(world.list("v1", "PersistentVolume").len(), 1);
    world.delete("v1", "PersistentVolume", "v", None);
    world.converge();
    assert!(world.list("v1", "PersistentVolume").is_empty());
    assert!(world.get("v1", "Node", "n1")["metadata"]["annotations"].is_null());
}

#[test]
fn a_node_that_left_the_cluster_holds_no_volume() {
    let mut world = left_over("Delete");
    assert_eq!(world.list("v1", "PersistentVolume").len(), 1);
    world.delete("v1", "Node", "n1", None);
    world.converge();
    assert!(world.list("v1", "PersistentVolume").is_empty());
}

#[test]
fn a_claim_older_than_the_default_class_gets_it() {
    let mut world = World::new(&ALL);
    let mut bare = claim("");
    bare["spec"].as_object_mut().unwrap().remove("storageClassName");
    world.put(bare);
    world.converge();
    assert!(world.get("v1", "PersistentVolumeClaim", "a/data")["spec"]["storageClassName"].is_null());
    world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
    world.converge();
    assert_eq!(world.get("v1", "PersistentVolumeClaim", "a/data")["spec"]["storageClassName"], "local-path");
}

#[test]
fn the_smallest_volume_that_fits_is_taken_and_released() {
    let mut world = World::new(&ALL);
    for (name, size) in [("big", "10Gi"), ("fits", "2Gi"), ("small", "1Mi")] {
        world.put(json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                     "persistentVolumeReclaimPolicy": "Retain"},
        }));
    }
    world.converge();
    world.put(claim(""));
    world.converge();
    let (claims, volumes) = phases(&world);
    assert_eq!(claims, "data Bound fits\n");
    assert_eq!(volumes, "big Available null\nfits Bound data\nsmall Available null\n");
    world.delete("v1", "PersistentVolumeClaim", "a/data", None);
    world.converge();
    assert_eq!(phases(&world).1, "big Available null\nfits Released data\nsmall Available null\n");
    assert!(world.tree(&gvr("v1", "PersistentVolume"), &api::Key::cluster("fits")).is_some());
}
