//! Who may do what: RBAC rules and the node's own graph.

use serde_json::json;

use super::{Attributes, Decision, authorize, rules_for};
use crate::testing::World;
use crate::{Config, User, bootstrap};

fn world() -> World {
    let world = World::new(api::builtin::registry());
    bootstrap::objects(&Config::default()).iter().for_each(|object| world.seed(object));
    world
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.into(), groups: groups.iter().map(|group| (*group).into()).collect(), ..User::default() }
}

/// `verb resource[/sub] [namespace] [name]`, or `verb /path`.
fn ask(world: &World, user: &User, line: &str) -> (bool, String) {
    let words: Vec<&str> = line.split(' ').collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let path = if word(1).starts_with('/') { word(1) } else { "" };
    let (resource, subresource) = word(1).split_once('/').unwrap_or((word(1), ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let attributes = Attributes {
        user,
        verb: word(0),
        group,
        version: "v1",
        resource: if path.is_empty() { resource } else { "" },
        subresource: if path.is_empty() { subresource } else { "" },
        namespace: word(2),
        name: word(3),
        path,
    };
    let decision = authorize(&attributes, world);
    let why = match &decision {
        Decision::NoOpinion(why) | Decision::Deny(why) | Decision::Allow(why) => why.clone(),
    };
    (decision.is_allowed(), attributes.forbidden(&why).message)
}

#[test]
fn roles_allow_what_they_name() {
    let world = world();
    world.seed(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "a"}, {"kind": "Group", "name": "ann"}]}));
    let bot = user("system:serviceaccount:a:bot", &["system:authenticated"]);
    for allowed in
        ["list pods a", "get pods/log a", "get /healthz", "get /apis/apps/v1", "get deployments.apps/scale a"]
    {
        assert!(ask(&world, &bot, allowed).0, "{allowed}");
    }
    for refused in ["list pods b", "list secrets a", "create pods a", "get /metrics", "list pods"] {
        assert!(!ask(&world, &bot, refused).0, "{refused}");
    }
    // A user is not the group of the same name.
    let (allowed, message) = ask(&world, &user("ann", &[]), "list pods a");
    assert!(!allowed);
    assert_eq!(
        message,
        "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"a\""
    );
    assert_eq!(
        ask(&world, &user("ann", &[]), "get /metrics").1,
        "forbidden: User \"ann\" cannot get path \"/metrics\""
    );
    assert!(rules_for(&bot, "a", &world).rules.len() > rules_for(&bot, "b", &world).rules.len());
    assert!(ask(&world, &user("root", &["system:masters"]), "escalate clusterroles").0);
}

#[test]
fn a_node_reads_what_its_pods_refer_to() {
    let world = world();
    world.seed(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
        "spec": {"nodeName": "n1", "serviceAccountName": "bot", "volumes": [{"name": "s", "secret": {"secretName": "mine"}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}}],
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "conf"}}]}]}}));
    world.seed(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {"claimRef": {"namespace": "a", "name": "disk"}}}));
    let node = user("system:node:n1", &["system:nodes", "system:authenticated"]);
    let other = user("system:node:n2", &["system:nodes", "system:authenticated"]);
    for line in [
        "get secrets a mine",
        "get configmaps a conf",
        "get persistentvolumeclaims a disk",
        "get persistentvolumes  pv",
        "create serviceaccounts/token a bot",
        "get configmaps a kube-root-ca.crt",
    ] {
        assert!(ask(&world, &node, line).0, "{line}");
        assert!(!ask(&world, &other, line).0, "{line} for the other node");
    }
    assert!(ask(&world, &node, "update leases.coordination.k8s.io kube-node-lease n1").0);
    assert!(!ask(&world, &other, "update leases.coordination.k8s.io kube-node-lease n1").0);
    assert!(ask(&world, &node, "patch nodes/status  n1").0);
    let (allowed, message) = ask(&world, &node, "get secrets a other");
    assert!(!allowed && message.ends_with("no relationship found between node 'n1' and this object"), "{message}");
}
