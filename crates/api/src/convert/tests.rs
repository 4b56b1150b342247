//! Documents there and back.

use serde_json::{Value, json};

use super::convert;
use crate::{Gvk, Kind, builtin, crd};

fn row(api_version: &str, kind: &str) -> std::sync::Arc<Kind> {
    builtin::registry().kind(&Gvk::parse(api_version, kind).unwrap()).unwrap().clone()
}

fn there_and_back(object: &Value, other: &str) -> (Value, Value) {
    let kind = object["kind"].as_str().unwrap();
    let there = convert(object.clone(), &row(other, kind));
    let back = convert(there.clone(), &row(object["apiVersion"].as_str().unwrap(), kind));
    (there, back)
}

#[test]
fn autoscalers_keep_everything_over_v1() {
    let v2 = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "annotations": {"mine": "x"}},
        "spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 60}]}}, "metrics": [
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods", "pods": {"metric": {"name": "p"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "o"},
                "target": {"type": "Value", "value": "7"}}},
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "o"},
                "target": {"type": "AverageValue", "averageValue": "7"}}},
            {"type": "External", "external": {"metric": {"name": "e", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "Value", "value": "9"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
        ]},
        "status": {"currentReplicas": 1, "desiredReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}],
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 4, "averageValue": "5m"}}}]},
    });
    let (v1, back) = there_and_back(&v2, "autoscaling/v1");
    assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 80);
    assert_eq!(v1["status"]["currentCPUUtilizationPercentage"], 4);
    let notes = &v1["metadata"]["annotations"];
    let note = |name: &str| notes[format!("autoscaling.alpha.kubernetes.io/{name}")].as_str().unwrap().to_owned();
    assert!(note("metrics").contains(r#""resource":{"name":"memory","targetAverageUtilization":50}"#), "{notes}");
    assert!(note("behavior").starts_with(r#"{"ScaleDown":{"Policies":[{"PeriodSeconds":60,"#), "{notes}");
    assert_eq!(back, v2);
}

#[test]
fn an_autoscaler_of_the_first_version_means_cpu() {
    let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3}});
    let v2 = convert(v1, &row("autoscaling/v2", "HorizontalPodAutoscaler"));
    assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
}

#[test]
fn events_change_their_words() {
    let core =
        json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "p"}, "message": "m", "count": 2});
    let (new, back) = there_and_back(&core, "events.k8s.io/v1");
    assert_eq!(new["regarding"]["name"], "p");
    assert_eq!(new["note"], "m");
    assert_eq!(back, core);
}

#[test]
fn custom_kinds_lose_what_the_other_schema_does_not_know() {
    let version = |name: &str, storage: bool, fields: Value| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": fields}}}}})
    };
    let text = json!({"type": "string"});
    let definition = json!({"spec": {"group": "x.io", "scope": "Cluster", "names": {"plural": "ships", "kind": "Ship"},
        "versions": [version("v1", true, json!({"a": text, "b": text})), version("v2", false, json!({"b": text}))]}});
    let v2 = crd::kind_of(&definition, "v2", 1).unwrap();
    assert!(!v2.is_stored());
    let ship = json!({"apiVersion": "x.io/v1", "kind": "Ship", "metadata": {"name": "s", "labels": {"l": "m"}},
        "spec": {"a": "1", "b": "2"}});
    let want = json!({"apiVersion": "x.io/v2", "kind": "Ship", "metadata": {"name": "s", "labels": {"l": "m"}},
        "spec": {"b": "2"}});
    assert_eq!(convert(ship, &v2), want);
}
