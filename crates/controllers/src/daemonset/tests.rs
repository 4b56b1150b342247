//! DaemonSets in an in-memory world: eligibility, surge, lost replies.

use api::Tree;
use serde_json::json;

use crate::testing::{World, run_pods};

fn node(world: &mut World, name: &str, labels: Tree, taints: Tree) {
    world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}}));
}

fn put(world: &mut World, image: &str, strategy: Tree) {
    world.put(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "log", "namespace": "a"},
        "spec": {
            "selector": {"matchLabels": {"app": "log"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "log"}},
                         "spec": {"nodeSelector": {"os": "linux"}, "containers": [{"name": "c", "image": image}]}},
        },
        "status": world.get("apps/v1", "DaemonSet", "a/log").get("status").cloned().unwrap_or(json!({})),
    }));
    world.converge();
}

/// Runs each pod on the node that its affinity names.
fn agent(world: &mut World) {
    for mut pod in world.list("v1", "Pod") {
        if pod["spec"]["nodeName"].is_null() {
            let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
            let name = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0].clone();
            pod["spec"]["nodeName"] = name;
            world.put(pod);
        }
    }
    run_pods(world);
}

fn pods(world: &World) -> Vec<String> {
    let of = |pod: &Tree| {
        format!(
            "{} {}",
            pod["spec"]["nodeName"].as_str().unwrap(),
            pod["spec"]["containers"][0]["image"].as_str().unwrap()
        )
    };
    let mut all: Vec<String> = world.list("v1", "Pod").iter().map(of).collect();
    all.sort();
    all
}

fn world() -> World {
    let mut world = World::new(&["daemonset"]);
    world.agent = agent;
    for name in ["n1", "n2", "n3"] {
        node(&mut world, name, json!({"os": "linux"}), json!([]));
    }
    node(&mut world, "w1", json!({"os": "windows"}), json!([]));
    node(&mut world, "t1", json!({"os": "linux"}), json!([{"key": "gpu", "effect": "NoSchedule"}]));
    world
}

#[test]
fn one_pod_on_each_node_that_suits() {
    let mut world = world();
    put(&mut world, "v1", json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}));
    assert_eq!(pods(&world), ["n1 v1", "n2 v1", "n3 v1"]);
    node(
        &mut world,
        "n4",
        json!({"os": "linux"}),
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]),
    );
    node(&mut world, "n1", json!({"os": "bsd"}), json!([]));
    world.converge();
    assert_eq!(pods(&world), ["n2 v1", "n3 v1", "n4 v1"]);
    let status = world.get("apps/v1", "DaemonSet", "a/log")["status"].clone();
    assert_eq!((&status["desiredNumberScheduled"], &status["numberReady"]), (&json!(3), &json!(3)));
    assert_eq!(status["numberMisscheduled"], 0);
}

#[test]
fn rolls_one_by_one() {
    roll(false);
}

#[test]
fn lost_replies_break_no_bound() {
    roll(true);
}

fn roll(lose_replies: bool) {
    let mut world = world();
    world.lose_replies = lose_replies;
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
    put(&mut world, "v1", strategy.clone());
    world.agent = |world| {
        let running = world.list("v1", "Pod").iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        assert!(running >= 2, "one at a time");
        agent(world);
    };
    put(&mut world, "v2", strategy);
    assert_eq!(pods(&world), ["n1 v2", "n2 v2", "n3 v2"]);
    assert_eq!(world.list("apps/v1", "ControllerRevision").len(), 2);
    put(&mut world, "v3", json!({"type": "OnDelete"}));
    assert_eq!(pods(&world), ["n1 v2", "n2 v2", "n3 v2"]);
}

#[test]
fn surge_brings_the_new_pod_first() {
    let mut world = world();
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    put(&mut world, "v1", strategy.clone());
    world.agent = |world| {
        let all = world.list("v1", "Pod");
        let ready = all
            .iter()
            .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"].get("deletionTimestamp").is_none());
        assert!(ready.count() >= 3 && all.len() <= 5);
        agent(world);
    };
    put(&mut world, "v2", strategy);
    assert_eq!(pods(&world), ["n1 v2", "n2 v2", "n3 v2"]);
}

#[test]
fn a_node_that_refuses_its_pod_is_asked_later_and_later() {
    let mut world = World::new(&["daemonset"]);
    node(&mut world, "n1", json!({"os": "linux"}), json!([]));
    // Each pod is refused as soon as it comes.
    world.agent = |world: &mut World| {
        for mut pod in world.list("v1", "Pod") {
            if pod["status"]["phase"].is_null() && pod["metadata"]["deletionTimestamp"].is_null() {
                pod["spec"]["nodeName"] = json!("n1");
                pod["status"] = json!({"phase": "Failed", "reason": "OutOfcpu"});
                world.put(pod);
            }
        }
        run_pods(world);
    };
    put(&mut world, "i:1", json!({"type": "RollingUpdate"}));
    let made = |world: &World| world.events.iter().filter(|event| event.contains("SuccessfulCreate")).count();
    let mut seen = vec![];
    for _ in 0..8 {
        world.pass(1);
        seen.push(made(&world));
    }
    // After 1, 2 and 4 seconds more.
    assert_eq!(seen, [2, 2, 3, 3, 3, 3, 4, 4]);
}
