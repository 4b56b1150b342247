//! Who owns what: server-side apply, and what updates record.

use api::PatchType;
use serde_json::json;

use super::{deployment, map, world};
use crate::testing::body;
use crate::{WriteVerb, doc};

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
