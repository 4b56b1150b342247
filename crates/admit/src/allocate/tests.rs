//! Service addresses, node ports and pod ranges: taken once, given back, never twice.

use api::{PatchType, Tree};
use serde_json::json;

use crate::testing::World;
use crate::{Reader, doc};

fn world() -> World {
    let world = World::new(api::builtin::registry());
    world.seed(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    world
}

fn service(name: &str, spec: Tree) -> Tree {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn claims(world: &World, storage: &str) -> usize {
    world.list(storage, None).len()
}

#[test]
fn a_service_claims_and_releases() {
    let world = world();
    let ports = json!([{"port": 53, "protocol": "TCP", "name": "t"}, {"port": 53, "protocol": "UDP", "name": "u"}]);
    let made = world.create(&service("dns", json!({"type": "NodePort", "ports": ports}))).unwrap().object;
    assert!(doc::text(&made, "spec.clusterIP").starts_with("10.43."), "{made}");
    assert_eq!(made["spec"]["clusterIPs"], json!([made["spec"]["clusterIP"]]));
    assert_eq!(made["spec"]["ports"][0]["nodePort"], made["spec"]["ports"][1]["nodePort"]);
    assert_eq!((claims(&world, "networking.k8s.io/ipaddresses"), claims(&world, "_nodeports")), (1, 1));

    let patched = world.patch(&made, PatchType::Merge, &json!({"spec": {"type": "ClusterIP"}})).unwrap().object;
    assert!(patched["spec"]["ports"][0].get("nodePort").is_none(), "{patched}");
    assert_eq!((claims(&world, "networking.k8s.io/ipaddresses"), claims(&world, "_nodeports")), (1, 0));

    let taken = json!({"clusterIP": made["spec"]["clusterIP"], "ports": [{"port": 1}]});
    let refused = world.create(&service("other", taken)).unwrap_err();
    assert!(refused.message.contains("provided IP is already allocated"), "{refused}");

    world.delete(&made).unwrap();
    assert_eq!(claims(&world, "networking.k8s.io/ipaddresses"), 0);
}

#[test]
fn headless_and_external_names_claim_nothing() {
    let world = world();
    let spec = json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 1}]});
    let headless = world.create(&service("a", spec)).unwrap();
    assert_eq!(headless.object["spec"]["ipFamilies"], json!(["IPv4"]));
    let external = world.create(&service("b", json!({"type": "ExternalName", "externalName": "x.y"}))).unwrap();
    assert!(external.object["spec"].get("clusterIP").is_none());
    assert_eq!(claims(&world, "networking.k8s.io/ipaddresses"), 0);
}

#[test]
fn nodes_get_disjoint_ranges() {
    let world = world();
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let first = world.create(&node("a")).unwrap().object;
    let second = world.create(&node("b")).unwrap().object;
    assert_eq!(first["spec"]["podCIDR"], "10.42.0.0/24");
    assert_eq!(second["spec"]["podCIDRs"], json!(["10.42.1.0/24"]));
    world.delete(&first).unwrap();
    assert_eq!(world.create(&node("c")).unwrap().object["spec"]["podCIDR"], "10.42.0.0/24");
}
