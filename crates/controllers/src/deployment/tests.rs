//! Deployments in an in-memory world: surge and availability hold at every round.

use serde_json::json;

use crate::testing::{World, run_pods};

fn put(world: &mut World, replicas: i64, image: &str) {
    world.put(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 60,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
        "status": world.get("apps/v1", "Deployment", "a/web").get("status").cloned().unwrap_or(json!({})),
    }));
}

fn world() -> World {
    let mut world = World::new(&["deployment", "replicaset"]);
    world.agent = run_pods;
    put(&mut world, 4, "v1");
    world.converge();
    world
}

fn sets(world: &World) -> Vec<(i64, String)> {
    let image = "/spec/template/spec/containers/0/image";
    let of = |set: &api::Tree| {
        let image = set.pointer(image).unwrap().as_str().unwrap().to_owned();
        (set["spec"]["replicas"].as_i64().unwrap(), image)
    };
    let mut all: Vec<_> = world.list("apps/v1", "ReplicaSet").iter().map(of).collect();
    all.sort_by(|a, b| a.1.cmp(&b.1));
    all
}

fn progressing(world: &World) -> String {
    let status = world.get("apps/v1", "Deployment", "a/web")["status"].clone();
    let found = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Progressing").cloned().unwrap();
    format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
}

#[test]
fn rolls_within_surge_and_availability() {
    roll(false);
}

#[test]
fn lost_replies_break_no_bound() {
    roll(true);
}

fn roll(lose_replies: bool) {
    let mut world = world();
    world.lose_replies = lose_replies;
    assert_eq!(sets(&world), [(4, "v1".to_owned())]);
    assert_eq!(progressing(&world), "True NewReplicaSetAvailable");
    world.agent = |world| {
        let pods = world.list("v1", "Pod");
        let active = pods.iter().filter(|pod| pod["metadata"].get("deletionTimestamp").is_none());
        assert!(active.count() <= 5, "replicas and surge");
        let ready = pods.iter().filter(|pod| pod["status"]["phase"] == "Running");
        assert!(ready.count() >= 3, "replicas less unavailable");
        run_pods(world);
    };
    put(&mut world, 4, "v2");
    world.converge();
    assert_eq!(sets(&world), [(0, "v1".to_owned()), (4, "v2".to_owned())]);
    let deployment = world.get("apps/v1", "Deployment", "a/web");
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    assert_eq!(deployment["status"]["updatedReplicas"], 4);
    assert_eq!(deployment["status"].get("unavailableReplicas"), None);
    assert_eq!(progressing(&world), "True NewReplicaSetAvailable");
}

#[test]
fn undo_takes_the_old_set_again_and_history_is_bounded() {
    let mut world = world();
    for image in ["v2", "v3", "v4", "v5"] {
        put(&mut world, 4, image);
        world.pass(1);
    }
    assert_eq!(sets(&world), [(0, "v3".to_owned()), (0, "v4".to_owned()), (4, "v5".to_owned())]);
    put(&mut world, 4, "v3");
    world.converge();
    assert_eq!(sets(&world), [(4, "v3".to_owned()), (0, "v4".to_owned()), (0, "v5".to_owned())]);
    let current = world.list("apps/v1", "ReplicaSet").into_iter().find(|set| set["spec"]["replicas"] == 4).unwrap();
    let note = |name: &str| current["metadata"]["annotations"][name].as_str().unwrap().to_owned();
    assert_eq!(note("deployment.kubernetes.io/revision"), "6");
    assert_eq!(note("deployment.kubernetes.io/revision-history"), "3");
}

#[test]
fn recreate_never_runs_two_templates() {
    let mut world = world();
    world.edit(
        "apps/v1",
        "Deployment",
        "a/web",
        json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}),
    );
    world.agent = |world| {
        let pods = world.list("v1", "Pod");
        let mut images: Vec<_> = pods.iter().map(|pod| pod["spec"]["containers"][0]["image"].to_string()).collect();
        images.dedup();
        assert!(images.len() <= 1, "{images:?}");
        run_pods(world);
    };
    let body = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    world.edit("apps/v1", "Deployment", "a/web", body);
    world.converge();
    assert_eq!(sets(&world), [(0, "v1".to_owned()), (4, "v2".to_owned())]);
}

#[test]
fn a_stuck_rollout_says_so_and_scaling_keeps_shares() {
    let mut world = world();
    world.agent = |_| {};
    put(&mut world, 4, "broken");
    world.converge();
    assert_eq!(sets(&world), [(2, "broken".to_owned()), (3, "v1".to_owned())]);
    world.pass(120);
    assert_eq!(progressing(&world), "False ProgressDeadlineExceeded");
    put(&mut world, 8, "broken");
    world.converge();
    let total: i64 = sets(&world).iter().map(|set| set.0).sum();
    assert_eq!(total, 9, "{:?}", sets(&world));
    assert!(sets(&world).iter().all(|set| set.0 >= 3), "{:?}", sets(&world));
}

#[test]
fn paused_only_scales() {
    let mut world = world();
    world.edit("apps/v1", "Deployment", "a/web", json!({"spec": {"paused": true, "replicas": 2}}));
    let body = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    world.edit("apps/v1", "Deployment", "a/web", body);
    world.converge();
    assert_eq!(sets(&world), [(2, "v1".to_owned())]);
    assert_eq!(progressing(&world), "Unknown DeploymentPaused");
    world.edit("apps/v1", "Deployment", "a/web", json!({"spec": {"paused": false}}));
    world.converge();
    assert_eq!(sets(&world), [(0, "v1".to_owned()), (2, "v2".to_owned())]);
}
