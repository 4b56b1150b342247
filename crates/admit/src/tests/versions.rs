//! One stored form, several versions of it.

use api::{PatchType, Tree};
use serde_json::json;

use super::world;
use crate::doc;

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
