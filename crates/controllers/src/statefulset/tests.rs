//! StatefulSets in an in-memory world: order, partitions, claims.

use serde_json::{Value, json};

use crate::testing::{World, run_pods};

fn set(replicas: i64, image: &str, more: &Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "a"},
        "spec": {
            "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}],
        },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        set["spec"][name] = value.clone();
    }
    set
}

fn put(world: &mut World, replicas: i64, image: &str, more: &Value) {
    let mut object = set(replicas, image, more);
    object["status"] = world.get("apps/v1", "StatefulSet", "a/db").get("status").cloned().unwrap_or(json!({}));
    world.put(object);
    world.converge();
}

fn images(world: &World) -> String {
    world.table("v1", "Pod", &["/spec/containers/0/image"])
}

#[test]
fn pods_come_in_order_with_claims() {
    let mut world = World::new(&["statefulset"]);
    put(&mut world, 3, "v1", &json!({}));
    assert_eq!(images(&world), "db-0 v1\n", "the second waits for the first");
    world.agent = run_pods;
    world.converge();
    assert_eq!(images(&world), "db-0 v1\ndb-1 v1\ndb-2 v1\n");
    let pod = world.get("v1", "Pod", "a/db-1");
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-1");
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-1"), &json!("db")));
    assert_eq!(world.list("v1", "PersistentVolumeClaim").len(), 3);
    put(&mut world, 1, "v1", &json!({}));
    assert_eq!(images(&world), "db-0 v1\n");
    assert_eq!(world.list("v1", "PersistentVolumeClaim").len(), 3, "claims stay by default");
    let status = world.get("apps/v1", "StatefulSet", "a/db")["status"].clone();
    assert_eq!(
        (&status["replicas"], &status["readyReplicas"], &status["availableReplicas"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn rolls_from_the_top_down_to_the_partition() {
    roll(false);
}

#[test]
fn lost_replies_break_no_order() {
    roll(true);
}

fn roll(lose_replies: bool) {
    let mut world = World::new(&["statefulset"]);
    world.lose_replies = lose_replies;
    world.agent = |world| {
        let running = world.list("v1", "Pod").iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        assert!(world.now == crate::testing::start() || running >= 2, "one at a time");
        run_pods(world);
    };
    put(&mut world, 3, "v1", &json!({}));
    world.pass(1);
    let strategy = |partition: i64| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
    put(&mut world, 3, "v2", &strategy(2));
    assert_eq!(images(&world), "db-0 v1\ndb-1 v1\ndb-2 v2\n");
    world.delete("v1", "Pod", "a/db-0", None);
    world.converge();
    assert_eq!(images(&world), "db-0 v1\ndb-1 v1\ndb-2 v2\n", "below the partition the old template stays");
    put(&mut world, 3, "v2", &strategy(0));
    assert_eq!(images(&world), "db-0 v2\ndb-1 v2\ndb-2 v2\n");
    assert_eq!(world.list("apps/v1", "ControllerRevision").len(), 2);
    put(&mut world, 3, "v1", &json!({}));
    assert_eq!(world.list("apps/v1", "ControllerRevision").len(), 2, "the old revision is used again");
}

#[test]
fn on_delete_waits_for_a_person_and_parallel_does_not_wait() {
    let mut world = World::new(&["statefulset"]);
    let more = json!({"podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"}, "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}});
    put(&mut world, 3, "v1", &more);
    assert_eq!(world.list("v1", "Pod").len(), 3);
    world.agent = run_pods;
    put(&mut world, 3, "v2", &more);
    assert_eq!(images(&world), "db-0 v1\ndb-1 v1\ndb-2 v1\n");
    world.delete("v1", "Pod", "a/db-1", None);
    world.converge();
    assert_eq!(images(&world), "db-0 v1\ndb-1 v2\ndb-2 v1\n");
    let owner = |world: &World, name: &str| {
        world.get("v1", "PersistentVolumeClaim", name)["metadata"]["ownerReferences"][0]["kind"].clone()
    };
    assert_eq!(owner(&world, "a/data-db-0"), "StatefulSet");
    world.agent = |_| {};
    put(&mut world, 2, "v2", &more);
    assert_eq!(owner(&world, "a/data-db-2"), "Pod");
}
