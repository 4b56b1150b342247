//! Slices and endpoints follow Services and their pods.

use api::Tree;
use serde_json::json;

use crate::testing::World;

fn pod(name: &str, ip: &str, ready: bool) -> Tree {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    })
}

fn service(selector: Tree) -> Tree {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "selector": selector, "clusterIP": "10.43.0.7", "ipFamilies": ["IPv4"],
            "ports": [{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    })
}

fn world() -> World {
    let mut world = World::new(&["endpoints", "endpointslice", "endpointslice-mirroring"]);
    let labels = json!({"topology.kubernetes.io/zone": "z1"});
    world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}}));
    world
}

/// `address ready serving terminating` of every endpoint of every slice, sorted.
fn endpoints(world: &World) -> Vec<String> {
    let slices = world.list("discovery.k8s.io/v1", "EndpointSlice");
    let lines = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    let word = |endpoint: &Tree, name: &str| endpoint["conditions"][name].to_string();
    let line = |e: Tree| {
        let address = e["addresses"][0].as_str().unwrap();
        format!("{address} {} {} {}", word(&e, "ready"), word(&e, "serving"), word(&e, "terminating"))
    };
    let mut lines: Vec<String> = lines.map(line).collect();
    lines.sort();
    lines
}

#[test]
fn slices_and_endpoints_follow_the_pods() {
    let mut world = world();
    world.put(service(json!({"app": "web"})));
    world.converge();
    let slices = world.list("discovery.k8s.io/v1", "EndpointSlice");
    assert_eq!(slices.len(), 1, "a Service without pods has one empty slice");
    world.put(pod("p1", "10.42.0.1", true));
    world.put(pod("p2", "10.42.0.2", false));
    world.converge();
    assert_eq!(endpoints(&world), ["10.42.0.1 true true false", "10.42.0.2 false false false"]);
    let slices = world.list("discovery.k8s.io/v1", "EndpointSlice");
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0]["ports"], json!([{"name": "web", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(slices[0]["endpoints"][0]["zone"], "z1");
    let subsets = world.get("v1", "Endpoints", "a/web")["subsets"].clone();
    assert_eq!(subsets[0]["addresses"][0]["ip"], "10.42.0.1");
    assert_eq!(subsets[0]["notReadyAddresses"][0]["ip"], "10.42.0.2");
    world.edit("v1", "Pod", "a/p1", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z"}}));
    world.converge();
    assert_eq!(endpoints(&world), ["10.42.0.1 false true true", "10.42.0.2 false false false"]);
    world.delete("v1", "Service", "a/web", None);
    world.converge();
    assert!(world.list("discovery.k8s.io/v1", "EndpointSlice").is_empty());
    assert!(world.list("v1", "Endpoints").is_empty());
}

#[test]
fn a_slice_holds_a_hundred() {
    let mut world = world();
    world.put(service(json!({"app": "web"})));
    for n in 0..250 {
        world.put(pod(&format!("p{n:03}"), &format!("10.42.{}.{}", n / 200, n % 200), true));
    }
    world.converge();
    let sizes = |world: &World| {
        let slices = world.list("discovery.k8s.io/v1", "EndpointSlice");
        let mut all: Vec<usize> = slices.iter().map(|slice| slice["endpoints"].as_array().unwrap().len()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(sizes(&world), [50, 100, 100]);
    world.edit("v1", "Pod", "a/p007", json!({"status": {"phase": "Succeeded"}}));
    world.converge();
    assert_eq!(sizes(&world).iter().sum::<usize>(), 249);
}

#[test]
fn manual_endpoints_are_mirrored() {
    let mut world = world();
    world.put(service(json!(null)));
    world.put(json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "a"},
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432}]}],
    }));
    world.converge();
    assert_eq!(endpoints(&world), ["192.0.2.7 true null null"]);
    world.edit(
        "v1",
        "Endpoints",
        "a/web",
        json!({"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}}),
    );
    world.converge();
    assert!(world.list("discovery.k8s.io/v1", "EndpointSlice").is_empty());
}
