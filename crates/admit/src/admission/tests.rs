//! The built-in admission plugins, each by a request it must change or refuse.

use serde_json::json;

use crate::testing::World;
use crate::{User, doc};

fn world() -> World {
    let world = World::new(api::builtin::registry());
    world.seed(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    world.seed(
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
    );
    world
}

fn pod(name: &str) -> api::Tree {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "a", "image": "x:1"}]}})
}

#[test]
fn a_pod_gets_its_account_and_tolerations() {
    let world = world();
    let made = world.create(&pod("p")).unwrap().object;
    assert_eq!(doc::text(&made, "spec.serviceAccountName"), "default");
    let volume = &made["spec"]["volumes"][0];
    assert!(doc::text(volume, "name").starts_with("kube-api-access-"), "{made}");
    assert_eq!(made["spec"]["containers"][0]["volumeMounts"][0]["name"], volume["name"]);
    assert_eq!(doc::items(&made, "spec.tolerations").len(), 2);
    assert_eq!(made["spec"]["priority"], 0);
    assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
}

#[test]
fn namespaces_and_accounts_must_exist() {
    let world = world();
    let mut elsewhere = pod("p");
    elsewhere["metadata"]["namespace"] = json!("nowhere");
    assert_eq!(world.create(&elsewhere).unwrap_err().message, "namespaces \"nowhere\" not found");
    let mut other = pod("p");
    other["spec"]["serviceAccountName"] = json!("bot");
    let refused = world.create(&other).unwrap_err();
    assert_eq!(
        refused.message,
        "pods \"p\" is forbidden: error looking up service account default/bot: serviceaccount \"bot\" not found"
    );
    let default = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    assert_eq!(world.delete(&default).unwrap_err().code, 403);
}

#[test]
fn quotas_are_spent_and_given_back_with_the_object() {
    let world = world();
    world.seed(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "default"},
        "spec": {"hard": {"configmaps": "1"}}, "status": {"hard": {"configmaps": "1"}, "used": {"configmaps": "0"}}}));
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let first = world.create(&map("a")).unwrap().object;
    let refused = world.create(&map("b")).unwrap_err();
    assert_eq!(
        refused.message,
        "configmaps \"b\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1"
    );
    world.delete(&first).unwrap();
    world.create(&map("b")).unwrap();
}

#[test]
fn restricted_namespaces_refuse_loose_pods() {
    let world = world();
    world.seed(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default",
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}));
    let refused = world.create(&pod("p")).unwrap_err().message;
    assert!(refused.starts_with("pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"a\" must set"), "{refused}");
}

#[test]
fn a_node_writes_only_itself() {
    let mut world = world();
    world.user = User { name: "system:node:n1".into(), groups: vec!["system:nodes".into()], ..User::default() };
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let made = world.create(&node("n1")).unwrap().object;
    assert_eq!(made["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    assert!(world.create(&node("n2")).unwrap_err().message.contains("is not allowed to modify node \"n2\""));
    assert!(world.create(&pod("p")).unwrap_err().message.contains("can only create mirror pods"));
}

#[test]
fn a_node_gives_itself_no_role() {
    let mut world = world();
    world.user = User { name: "system:node:n1".into(), groups: vec!["system:nodes".into()], ..User::default() };
    let node =
        |labels: api::Tree| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}});
    let refused = world.create(&node(json!({"node-role.kubernetes.io/control-plane": ""}))).unwrap_err().message;
    assert!(
        refused.contains("is not allowed to set the following labels: node-role.kubernetes.io/control-plane"),
        "{refused}"
    );
    let fine =
        json!({"kubernetes.io/os": "linux", "node.kubernetes.io/x": "y", "example.com/disk": "ssd", "plain": "z"});
    let mut made = world.create(&node(fine)).unwrap().object;
    made["metadata"]["labels"]["a.node-restriction.kubernetes.io/b"] = json!("c");
    let refused = world.update(&made).unwrap_err().message;
    assert!(refused.contains("is not allowed to modify labels: a.node-restriction.kubernetes.io/b"), "{refused}");
}

#[test]
fn nobody_grants_what_they_lack() {
    let mut world = world();
    world.user = User { name: "bob".into(), ..User::default() };
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let refused = world.create(&role).unwrap_err().message;
    assert!(refused.ends_with("is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}"), "{refused}");
}
