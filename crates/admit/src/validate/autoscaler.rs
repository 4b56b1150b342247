//! HorizontalPodAutoscalers: how many, by which metrics, how fast.

use api::Tree;
use serde_json::json;

use super::pod::one_of;
use crate::causes::{At, Causes};
use crate::doc;
use crate::vocabulary::quantity;

/// Type of a metric, where it is described.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
/// Longest period of a policy and longest stabilisation, in seconds.
const PERIOD_MAX: i64 = 1800;
const STABILIZATION_MAX: i64 = 3600;

pub(super) fn object(tree: &Tree, causes: &mut Causes) {
    let at = At::of("spec");
    let (min, max) = (doc::int(tree, "spec.minReplicas").unwrap_or(1), doc::int(tree, "spec.maxReplicas").unwrap_or(0));
    if min < 1 {
        causes.invalid(&at.child("minReplicas"), &json!(min), "must be greater than or equal to 1");
    }
    if max < 1 {
        causes.invalid(&at.child("maxReplicas"), &json!(max), "must be greater than 0");
    } else if max < min {
        causes.invalid(&at.child("maxReplicas"), &json!(max), "must be greater than or equal to `minReplicas`");
    }
    for field in ["kind", "name"] {
        if doc::text(tree, &format!("spec.scaleTargetRef.{field}")).is_empty() {
            causes.required(&at.child("scaleTargetRef").child(field), "");
        }
    }
    for (index, metric) in doc::items(tree, "spec.metrics").iter().enumerate() {
        self::metric(metric, &at.child("metrics").index(index), causes);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = doc::at(tree, &format!("spec.behavior.{direction}")) {
            self::rules(rules, &at.child("behavior").child(direction), causes);
        }
    }
}

fn metric(metric: &Tree, at: &At, causes: &mut Causes) {
    let kind = doc::text(metric, "type");
    if kind.is_empty() {
        return causes.required(&at.child("type"), "must specify a metric source type");
    }
    let Some((_, source)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return causes.not_supported(&at.child("type"), &json!(kind), &SOURCES.map(|(name, _)| name));
    };
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != source && doc::has(metric, other)) {
        causes.forbidden(&at.child(other), "must populate the given metric source only");
    }
    match doc::at(metric, source) {
        None => causes.required(&at.child(source), "must populate information for the given metric source"),
        Some(described) => target(doc::get(described, "target"), source, &at.child(source).child("target"), causes),
    }
}

fn target(target: &Tree, source: &str, at: &At, causes: &mut Causes) {
    let kind = doc::text(target, "type");
    if kind.is_empty() {
        causes.required(&at.child("type"), "must specify a metric target type");
    } else if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        causes.invalid_text(&at.child("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        if doc::at(target, field).is_some_and(|amount| quantity(amount).nanos <= 0) {
            causes.invalid(&at.child(field), doc::get(target, field), "must be positive");
        }
    }
    let percent = doc::int(target, "averageUtilization");
    if let Some(percent) = percent.filter(|percent| *percent < 1) {
        causes.invalid(&at.child("averageUtilization"), &json!(percent), "must be greater than 0");
    }
    let (value, average) = (doc::has(target, "value"), doc::has(target, "averageValue"));
    match source {
        "resource" | "containerResource" => match (percent.is_some(), average) {
            (false, false) => {
                let why = "must set either a target raw value or a target utilization";
                causes.required(&at.child("averageUtilization"), why);
            }
            (true, true) => {
                let why = "may not set both a target raw value and a target utilization";
                causes.forbidden(&at.child("averageValue"), why);
            }
            _ => {}
        },
        "pods" if !average => causes.required(&at.child("averageValue"), "must specify a positive target averageValue"),
        "object" | "external" if !value && !average => {
            let why = if source == "object" {
                "must set either a target value or averageValue"
            } else {
                "must set either a target value for metric or a per-pod target"
            };
            causes.required(&at.child("averageValue"), why);
        }
        "external" if value && average => {
            causes.forbidden(&at.child("value"), "may not set both a target value for metric and a per-pod target");
        }
        _ => {}
    }
}

fn rules(rules: &Tree, at: &At, causes: &mut Causes) {
    let window = doc::int(rules, "stabilizationWindowSeconds");
    if let Some(window) = window.filter(|window| *window < 0) {
        let why = "must be greater than or equal to zero";
        causes.invalid(&at.child("stabilizationWindowSeconds"), &json!(window), why);
    } else if let Some(window) = window.filter(|window| *window > STABILIZATION_MAX) {
        let why = format!("must be less than or equal to {STABILIZATION_MAX}");
        causes.invalid(&at.child("stabilizationWindowSeconds"), &json!(window), &why);
    }
    one_of(rules, "selectPolicy", &["Disabled", "Max", "Min"], at, causes);
    for (index, policy) in doc::items(rules, "policies").iter().enumerate() {
        let at = at.child("policies").index(index);
        if !matches!(doc::text(policy, "type"), "Percent" | "Pods") {
            causes.not_supported(&at.child("type"), &json!(doc::text(policy, "type")), &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            if let Some(value) = doc::int(policy, field).filter(|value| *value <= 0) {
                causes.invalid(&at.child(field), &json!(value), "must be greater than zero");
            }
        }
        if let Some(period) = doc::int(policy, "periodSeconds").filter(|period| *period > PERIOD_MAX) {
            let why = format!("must be less than or equal to {PERIOD_MAX}");
            causes.invalid(&at.child("periodSeconds"), &json!(period), &why);
        }
    }
}
