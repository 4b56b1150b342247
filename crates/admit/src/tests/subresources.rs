//! Writes to parts of an object, each by rules of its own.

use api::PatchType;
use serde_json::{Value, json};

use super::{deployment, world};
use crate::testing::body;
use crate::{WriteVerb, doc};

#[test]
fn pods_end_gracefully() {
    let world = world();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "image": "x:1"}]}});
    world.create(&pod).unwrap();
    let target = json!({"target": {"kind": "Node", "name": "n"}});
    let mut bind = world.request(&pod, "p", WriteVerb::Create(body(&target)));
    bind.subresource = bind.kind.subresource("binding").cloned();
    assert!(world.run(bind.clone()).unwrap().created);
    let twice = world.run(bind).unwrap_err();
    assert!(twice.message.ends_with("pod p is already assigned to node \"n\""), "{twice}");

    let begun = world.delete(&pod).unwrap();
    assert_eq!(begun.object["metadata"]["deletionTimestamp"], "2026-01-02T03:04:35Z");
    assert_eq!(begun.object["metadata"]["deletionGracePeriodSeconds"], 30);
    let verb = WriteVerb::Delete { when: api::Preconditions::default(), propagation: None, grace_seconds: Some(0) };
    assert!(world.run(world.request(&pod, "p", verb)).unwrap().deleted);
}

#[test]
fn scale_is_the_same_for_every_kind() {
    let world = world();
    let made = world.create(&deployment(1)).unwrap().object;
    let scale = json!({"spec": {"replicas": 4}});
    let verb = WriteVerb::Patch { patch: PatchType::Merge, body: body(&scale) };
    let mut request = world.request(&made, "web", verb);
    request.subresource = request.kind.subresource("scale").cloned();
    let scaled = world.run(request).unwrap().object;
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    assert_eq!(scaled["status"]["selector"], "app=web");
}

#[test]
fn a_resize_changes_cpu_and_memory_and_nothing_else() {
    let world = world();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "a", "image": "i:1",
            "resources": {"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "2"}}}]}});
    let made = world.create(&pod).unwrap().object;
    let resize = |resources: Value| {
        let change = json!({"spec": {"containers": [{"name": "a", "image": "other", "resources": resources}]}});
        let verb = WriteVerb::Patch { patch: PatchType::Strategic, body: body(&change) };
        let mut request = world.request(&made, "p", verb);
        request.subresource = request.kind.subresource("resize").cloned();
        world.run(request).map(|outcome| outcome.object)
    };
    let resized = resize(json!({"requests": {"cpu": "1500m"}})).unwrap();
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1500m");
    assert_eq!(resized["spec"]["containers"][0]["image"], "i:1", "only resources are taken over");
    for (resources, why) in [
        (json!({"requests": {"ephemeral-storage": "2Gi"}}), "only cpu and memory resources are mutable"),
        (json!({"limits": {"cpu": null}}), "resource limits cannot be removed"),
        (
            json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
            "Pod QOS Class may not change as a result of resizing",
        ),
        (json!({"requests": {"cpu": "3"}}), "must be less than or equal to cpu limit of 2"),
    ] {
        let refused = resize(resources).unwrap_err();
        assert!(refused.code == 422 && refused.message.contains(why), "{}", refused.message);
    }
}

#[test]
fn evictions_spend_their_budget() {
    let world = world();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "labels": {"a": "b"}},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    world.seed(&pod);
    let budget = |allowed: i64| {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"a": "b"}}},
        "status": {"disruptionsAllowed": allowed, "desiredHealthy": 1, "currentHealthy": 1}})
    };
    world.seed(&budget(0));
    let mut evict = world.request(&pod, "p", WriteVerb::Create(body(&json!({}))));
    evict.subresource = evict.kind.subresource("eviction").cloned();
    let refused = world.run(evict.clone()).unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    );
    world.seed(&budget(1));
    assert!(world.run(evict).unwrap().created);
    let place = crate::context::place_of("policy", "poddisruptionbudgets", "default", "b");
    let left = crate::Reader::get(&world, &place).unwrap().tree();
    assert_eq!(left["status"]["disruptionsAllowed"], 0);
    assert!(doc::has(&left, "status.disruptedPods.p"));
}
