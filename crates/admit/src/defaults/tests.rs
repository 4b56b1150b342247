//! Defaults that depend on other fields.

use api::Tree;
use serde_json::json;

fn defaulted(mut tree: Tree) -> Tree {
    let gvk = api::Gvk::parse(crate::doc::text(&tree, "apiVersion"), crate::doc::text(&tree, "kind")).unwrap();
    let registry = api::builtin::registry();
    let kind = registry.kind(&gvk).unwrap();
    super::apply(kind, &mut tree);
    let once = tree.clone();
    super::apply(kind, &mut tree);
    assert_eq!(tree, once, "defaults run twice");
    tree
}

#[test]
fn pods_get_policies_by_tag_and_requests_from_limits() {
    let pod = defaulted(json!({"apiVersion": "v1", "kind": "Pod", "spec": {"hostNetwork": true, "containers": [
        {"name": "a", "image": "reg:5000/x", "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 80}]},
        {"name": "b", "image": "x:1", "livenessProbe": {"httpGet": {"port": 1}}},
        {"name": "c", "image": "x@sha256:00"},
    ], "volumes": [{"name": "v"}, {"name": "s", "secret": {}}]}}));
    let containers = &pod["spec"]["containers"];
    assert_eq!(containers[0]["imagePullPolicy"], "Always");
    assert_eq!(containers[0]["resources"]["requests"]["cpu"], "1");
    assert_eq!(containers[0]["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
    assert_eq!(containers[1]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(containers[1]["livenessProbe"]["httpGet"], json!({"path": "/", "port": 1, "scheme": "HTTP"}));
    assert_eq!(containers[2]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(pod["spec"]["volumes"][0]["emptyDir"], json!({}));
    assert_eq!(pod["spec"]["volumes"][1]["secret"]["defaultMode"], 420);
}

#[test]
fn jobs_and_services_and_secrets() {
    let job = defaulted(json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"parallelism": 2, "template": {}}}));
    assert!(job["spec"].get("completions").is_none());
    let service = defaulted(json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}));
    assert_eq!(service["spec"]["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
    let secret = defaulted(json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}}));
    assert_eq!((&secret["data"]["a"], secret.get("stringData")), (&json!("Yg=="), None));
}
