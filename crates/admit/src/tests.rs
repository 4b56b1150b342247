//! Whole writes through all stages.

use api::{PatchType, Tree};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::testing::{World, body};
use crate::{FieldValidation, WriteVerb, doc};

fn world() -> World {
    let world = World::new(api::builtin::registry());
    world.seed(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    world.seed(
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
    );
    world
}

fn map(name: &str, data: Tree) -> Tree {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(replicas: i64) -> Tree {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}]}]}}}})
}

#[test]
fn a_life_from_create_to_delete() {
    let world = world();
    let made = world.create(&deployment(2)).unwrap();
    assert!(made.created);
    assert_eq!(made.object["metadata"]["generation"], 1);
    assert_eq!(made.object["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert_eq!(world.create(&deployment(2)).unwrap_err().message, "deployments.apps \"web\" already exists");

    let mut scaled = made.object.clone();
    scaled["spec"]["replicas"] = json!(3);
    scaled["status"] = json!({"replicas": 9});
    let updated = world.update(&scaled).unwrap().object;
    assert_eq!(updated["metadata"]["generation"], 2);
    assert_eq!(updated["status"], json!({}));
    let stale = world.update(&scaled).unwrap_err();
    assert_eq!(
        stale.message,
        "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let same = world.update(&updated).unwrap();
    assert_eq!(same.object["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);

    let gone = world.delete(&updated).unwrap();
    assert!(gone.deleted);
    assert_eq!(gone.object["status"], "Success");
    assert_eq!(world.delete(&updated).unwrap_err().message, "deployments.apps \"web\" not found");
}

#[test]
fn generate_name_and_finalizers() {
    let world = world();
    let mut tree = map("", json!({}));
    tree["metadata"] = json!({"generateName": "job-", "finalizers": ["example.com/hold"]});
    let made = world.create(&tree).unwrap().object;
    assert_eq!(doc::text(&made, "metadata.name").len(), 9);
    let begun = world.delete(&made).unwrap();
    assert!(!begun.deleted && doc::has(&begun.object, "metadata.deletionTimestamp"));
    let freed = world.patch(&made, PatchType::Merge, &json!({"metadata": {"finalizers": null}})).unwrap();
    assert!(freed.deleted);
    assert!(world.objects.lock().unwrap().values().all(|object| object.key != begun_key(&made)));
}

fn begun_key(tree: &Tree) -> api::Key {
    api::Key::new("default", doc::text(tree, "metadata.name"))
}

#[test]
fn unknown_fields_warn_or_fail() {
    let world = world();
    let mut tree = deployment(1);
    tree["spec"]["foo"] = json!(1);
    tree["spec"]["template"]["spec"]["containers"][0]["bar"] = json!(1);
    let warned = world.create(&tree).unwrap();
    assert_eq!(
        warned.warnings,
        ["unknown field \"spec.foo\"", "unknown field \"spec.template.spec.containers[0].bar\""]
    );
    let mut strict = world.request(&tree, "", WriteVerb::Create(body(&tree)));
    strict.options.field_validation = FieldValidation::Strict;
    let refused = world.run(strict).unwrap_err();
    assert_eq!(refused.code, 400);
    assert_eq!(
        refused.message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\", unknown field \"spec.template.spec.containers[0].bar\""
    );
    let mut wrong = deployment(1);
    wrong["spec"]["replicas"] = json!("two");
    assert_eq!(
        world.create(&wrong).unwrap_err().message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
}

#[test]
fn strategic_merge_knows_keys_and_directives() {
    let world = world();
    let made = world.create(&deployment(1)).unwrap().object;
    let patch = |patch: Tree| world.patch(&made, PatchType::Strategic, &patch).unwrap().object;
    let added = patch(json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        "containers": [{"name": "b", "image": "y:1"}, {"name": "a", "image": "x:2"}]}}}}));
    let names = |tree: &Tree| -> Vec<String> {
        doc::items(tree, "spec.template.spec.containers").iter().map(|c| doc::text(c, "name").to_owned()).collect()
    };
    assert_eq!(names(&added), ["b", "a"]);
    assert_eq!(added["spec"]["template"]["spec"]["containers"][1]["ports"][0]["containerPort"], 80);
    let removed = patch(json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "$patch": "delete"}]}}}}));
    assert_eq!(names(&removed), ["a"]);
    let recreate = patch(json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn apply_owns_conflicts_and_gives_up() {
    let world = world();
    let config = |replicas: Option<i64>, image: &str| {
        let mut tree = deployment(1);
        tree["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        match replicas {
            Some(replicas) => tree["spec"]["replicas"] = json!(replicas),
            None => drop(doc::remove(&mut tree, "spec.replicas")),
        }
        tree
    };
    let made = world.apply(&config(Some(2), "x:1"), "ann", false).unwrap();
    assert!(made.created);
    let entry = &made.object["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("ann"), &json!("Apply")));
    let container = &entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"];
    assert_eq!(
        container["f:ports"]["k:{\"containerPort\":80,\"protocol\":\"TCP\"}"],
        json!({".": {}, "f:containerPort": {}})
    );

    // Applying again changes nothing at all.
    let again = world.apply(&config(Some(2), "x:1"), "ann", false).unwrap();
    assert_eq!(again.object["metadata"]["resourceVersion"], made.object["metadata"]["resourceVersion"]);

    let conflict = world.apply(&config(Some(5), "x:1"), "bob", false).unwrap_err();
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"ann\": .spec.replicas");
    assert_eq!(conflict.details.unwrap().causes[0].reason, "FieldManagerConflict");
    let forced = world.apply(&config(Some(5), "x:1"), "bob", true).unwrap().object;
    assert_eq!(forced["spec"]["replicas"], 5);

    // Bob gives replicas up: nobody owns them now, so the default comes back.
    let dropped = world.apply(&config(None, "x:1"), "bob", false).unwrap().object;
    assert_eq!(dropped["spec"]["replicas"], 1);
    let ann = dropped["metadata"]["managedFields"].as_array().unwrap().iter().find(|e| e["manager"] == "ann").unwrap();
    assert!(ann["fieldsV1"]["f:spec"].get("f:replicas").is_none());
}

#[test]
fn updates_take_ownership_from_appliers() {
    let world = world();
    world.apply(&map("m", json!({"a": "1", "b": "1"})), "ann", false).unwrap();
    let of = map("m", json!({}));
    world.patch(&of, PatchType::Merge, &json!({"data": {"a": "2"}})).unwrap();
    let conflict = world.apply(&map("m", json!({"a": "1", "b": "1"})), "ann", false).unwrap_err();
    assert_eq!(
        conflict.message,
        "Apply failed with 1 conflict: conflict with \"test\" using v1 at 2026-01-02T03:04:05Z: .data.a"
    );
    // What ann no longer applies goes, what the updater set stays.
    let left = world.apply(&map("m", json!({})), "ann", false).unwrap().object;
    assert_eq!(left["data"], json!({"a": "2"}));
    let reset = world.patch(&of, PatchType::Merge, &json!({"metadata": {"managedFields": [{}]}})).unwrap().object;
    assert!(!doc::has(&reset, "metadata.managedFields"));
}

#[test]
fn created_objects_record_their_fields_as_upstream_does() {
    let world = world();
    let made = world.create(&deployment(1)).unwrap().object;
    let fields = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(fields["f:metadata"], json!({"f:labels": {".": {}, "f:app": {}}}));
    let spec = &fields["f:spec"];
    assert_eq!(spec["f:replicas"], json!({}));
    assert_eq!(spec["f:strategy"]["f:rollingUpdate"], json!({".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}));
    assert!(spec.get(".").is_none() && spec["f:template"]["f:spec"]["f:containers"].get(".").is_none());
}

#[test]
fn an_update_as_it_was_created_changes_nothing() {
    let world = world();
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}});
    let job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}});
    let made = world.create(&job).unwrap().object;
    assert_eq!(made["metadata"]["labels"]["job-name"], "j");
    assert!(world.update(&made).unwrap().admitted.is_none());
    let revision =
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "revision": 1});
    let made = world.create(&revision).unwrap().object;
    assert!(made.get("status").is_none(), "{made}");
}

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

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/~0-9$-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z$]{1,6}", inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn any_patch() -> impl Strategy<Value = Value> {
    let op = prop_oneof!["add", "remove", "replace", "move", "copy", "test", "x"].prop_map(|op| op.to_string());
    let path = prop_oneof![Just("/data/a".to_owned()), Just("/metadata".to_owned()), "(/[a-z0-9~-]{0,4}){0,4}"];
    let step = (op, path.clone(), path, prop::option::of(any_json())).prop_map(|(op, path, from, value)| {
        let mut step = json!({"op": op, "path": path, "from": from});
        if let Some(value) = value {
            step["value"] = value;
        }
        step
    });
    prop::collection::vec(step, 0..6).prop_map(Value::from)
}

fn any_data() -> impl Strategy<Value = Tree> {
    prop::collection::btree_map("[a-e]", "[x-z]{0,2}", 0..5).prop_map(|data| json!(data))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_patch_panics(patch in prop_oneof![any_patch(), any_json()]) {
        let world = world();
        let of = world.create(&map("m", json!({"a": "b"}))).unwrap().object;
        for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            let _ = world.patch(&of, kind, &patch);
        }
        let _ = world.create(&patch_as_kind(&patch));
    }

    #[test]
    fn apply_is_idempotent(first in any_data(), second in any_data()) {
        let world = world();
        world.apply(&map("m", first), "ann", true).unwrap();
        let once = world.apply(&map("m", second.clone()), "bob", true).unwrap().object;
        let twice = world.apply(&map("m", second.clone()), "bob", false).unwrap().object;
        prop_assert_eq!(once, twice.clone());
        for (key, value) in doc::entries(&json!({"d": second}), "d") {
            prop_assert_eq!(&twice["data"][key], value);
        }
    }

    #[test]
    fn strategic_merge_reaches_what_it_says(names in prop::collection::btree_set("[a-f]", 1..5), image in "[a-z]{1,5}") {
        let world = world();
        let made = world.create(&deployment(1)).unwrap().object;
        let containers: Vec<Tree> = names.iter().map(|name| json!({"name": name, "image": image})).collect();
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let patched = world.patch(&made, PatchType::Strategic, &patch).unwrap().object;
        let found = doc::items(&patched, "spec.template.spec.containers");
        for name in &names {
            let container = found.iter().find(|container| doc::text(container, "name") == name).unwrap();
            prop_assert_eq!(doc::text(container, "image"), image.as_str());
        }
        let again = world.patch(&made, PatchType::Strategic, &patch).unwrap().object;
        prop_assert_eq!(patched, again);
    }
}

/// Arbitrary JSON as the spec of a Deployment.
fn patch_as_kind(spec: &Value) -> Tree {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec})
}

#[test]
fn other_versions_decode_apply_and_record_in_their_own_words() {
    let world = world();
    let v1 = |name: &str, spec: Tree| {
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec})
    };
    let target = json!({"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"});
    let made = world
        .create(&v1("a", json!({"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 60})));
    let made = made.unwrap().object;
    assert_eq!(made["apiVersion"], "autoscaling/v2");
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(entry["apiVersion"], "autoscaling/v1");
    assert_eq!(entry["fieldsV1"]["f:spec"]["f:targetCPUUtilizationPercentage"], json!({}));

    let of = v1("a", json!({}));
    for (patch, body, percent) in [
        (PatchType::Json, json!([{"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 61}]), 61),
        (PatchType::Merge, json!({"spec": {"targetCPUUtilizationPercentage": 62}}), 62),
        (PatchType::Strategic, json!({"spec": {"targetCPUUtilizationPercentage": 63}}), 63),
    ] {
        let patched = world.patch(&of, patch, &body).unwrap().object;
        assert_eq!(patched["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], percent);
    }
    let wrong = world.patch(&of, PatchType::Merge, &json!({"spec": {"metrics": []}})).unwrap();
    assert_eq!(wrong.warnings, ["unknown field \"spec.metrics\""]);

    // What one version's manager owns, another version's applier meets.
    let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "namespace": "default"}, "spec": {"metrics": [{"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}});
    let conflict = world.apply(&v2, "bob", false).unwrap_err();
    assert!(conflict.message.contains("conflict with \"test\" using autoscaling/v1"), "{}", conflict.message);
    let forced = world.apply(&v2, "bob", true).unwrap().object;
    let owners = |tree: &Tree, field: &str| -> Vec<String> {
        let entries = doc::items(tree, "metadata.managedFields").iter();
        let owns = entries.filter(|entry| doc::get(entry, "fieldsV1.f:spec").get(field).is_some());
        owns.map(|entry| doc::text(entry, "manager").to_owned()).collect()
    };
    assert_eq!(owners(&forced, "f:targetCPUUtilizationPercentage"), Vec::<String>::new());
    assert_eq!(owners(&forced, "f:metrics"), ["bob"]);

    // Applied in one version, given up in the other.
    let applied = world.apply(&v1("a", json!({"minReplicas": 2})), "eve", true).unwrap().object;
    assert_eq!(applied["spec"]["minReplicas"], 2);
    let mut given_up = v2.clone();
    given_up["spec"] = json!({"maxReplicas": 3});
    let given_up = world.apply(&given_up, "eve", false).unwrap().object;
    assert_eq!(given_up["spec"]["minReplicas"], 1, "the default came back");
}

#[test]
fn events_of_the_new_group_are_judged_by_its_rules() {
    let world = world();
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "type": "Normal"});
    let refused = world.create(&event).unwrap_err();
    assert_eq!(refused.message, "Event \"e\" is invalid: eventTime: Required value");
    let mut whole = event;
    for (field, value) in [
        ("eventTime", "2026-01-01T00:00:00.000000Z"),
        ("action", "Test"),
        ("reason", "Tested"),
        ("reportingController", "example.com/t"),
        ("reportingInstance", "t-1"),
        ("note", "well"),
    ] {
        whole[field] = json!(value);
    }
    let made = world.create(&whole).unwrap().object;
    assert_eq!((&made["apiVersion"], &made["message"]), (&json!("v1"), &json!("well")));
    let refused = world.patch(&whole, PatchType::Merge, &json!({"note": "other"})).unwrap_err();
    assert_eq!(refused.message, "Event \"e\" is invalid: message: Invalid value: \"other\": field is immutable");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    let patched = world.patch(&whole, PatchType::Strategic, &series).unwrap().object;
    assert_eq!(patched["series"]["count"], 2);
    assert_eq!(patched["metadata"]["managedFields"][0]["apiVersion"], "events.k8s.io/v1");
}

#[test]
fn an_applied_scale_owns_the_replicas() {
    let world = world();
    let made = world.create(&deployment(1)).unwrap().object;
    let scale = |replicas: i64, force: bool| {
        let body = body(&json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
            "spec": {"replicas": replicas}}));
        let verb = WriteVerb::Patch { patch: PatchType::Apply { force }, body };
        let mut request = world.request(&made, "web", verb);
        request.subresource = request.kind.subresource("scale").cloned();
        request.options.field_manager = "scaler".into();
        world.run(request)
    };
    let refused = scale(4, false).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"test\" using apps/v1 at 2026-01-02T03:04:05Z: .spec.replicas"
    );
    assert_eq!(scale(4, true).unwrap().object["spec"]["replicas"], 4);
    let place = crate::context::place_of("apps", "deployments", "default", "web");
    let stored = crate::Reader::get(&world, &place).unwrap().tree();
    let entries = doc::items(&stored, "metadata.managedFields");
    let entry = entries.iter().find(|entry| doc::text(entry, "manager") == "scaler").unwrap();
    assert_eq!((doc::text(entry, "operation"), doc::text(entry, "subresource")), ("Apply", "scale"));
    assert_eq!(entry["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn custom_versions_are_views_of_the_stored_one() {
    let mut world = world();
    let text = json!({"type": "string"});
    let version = |name: &str, fields: Tree| {
        json!({"name": name, "served": true, "storage": name == "v1", "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}}})
    };
    let definition = json!({"spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "ships", "kind": "Ship"},
        "versions": [version("v1", json!({"a": text, "b": text})),
            version("v2", json!({"b": text, "c": {"type": "string", "default": "new"}}))]}});
    for kind in api::crd::kinds(&definition, 1).unwrap() {
        world.registry.insert(std::sync::Arc::new(kind));
    }
    let ship = |version: &str, spec: Tree| json!({"apiVersion": format!("x.io/{version}"), "kind": "Ship", "metadata": {"name": "s"}, "spec": spec});
    let made = world.create(&ship("v2", json!({"a": "1", "b": "2"}))).unwrap();
    assert_eq!(made.warnings, ["unknown field \"spec.a\""], "judged by the version it came in");
    assert_eq!((&made.object["apiVersion"], &made.object["spec"]), (&json!("x.io/v1"), &json!({"b": "2"})));
    assert_eq!(made.object["metadata"]["managedFields"][0]["apiVersion"], "x.io/v2");
    world.patch(&ship("v1", json!({})), PatchType::Merge, &json!({"spec": {"a": "1"}})).unwrap();
    let patched = world.patch(&ship("v2", json!({})), PatchType::Merge, &json!({"spec": {"b": "3"}})).unwrap().object;
    // As upstream has it without a conversion webhook: what a version does not know is lost when it writes.
    assert_eq!(patched["spec"], json!({"b": "3"}));
    let conflict = world.apply(&ship("v1", json!({"b": "4"})), "bob", false).unwrap_err();
    assert!(conflict.message.contains("conflict with \"test\" using x.io/v2"), "{}", conflict.message);
}
