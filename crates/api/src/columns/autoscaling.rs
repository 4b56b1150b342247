//! The autoscaler's targets: what each metric is and shall be.

use serde_json::json;

use super::{UNKNOWN, number, or};
use crate::{Tree, meta};

/// Metrics that a cell shows before it only counts.
const METRICS_SHOWN: usize = 2;

/// Reference, Targets, MinPods, Replicas.
pub(super) fn autoscaler(object: &Tree) -> Vec<Tree> {
    let target = |name: &str| meta::str_at(object, &format!("spec.scaleTargetRef.{name}"));
    let min = meta::i64_at(object, "spec.minReplicas").map_or_else(|| "<unset>".to_owned(), |min| min.to_string());
    vec![
        json!(format!("{}/{}", target("kind"), target("name"))),
        json!(targets(object)),
        json!(min),
        json!(number(object, "status.currentReplicas")),
    ]
}

fn targets(object: &Tree) -> String {
    let specs = meta::list_at(object, "spec.metrics");
    let statuses = meta::list_at(object, "status.currentMetrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let mut words: Vec<String> =
        specs.iter().take(METRICS_SHOWN).enumerate().map(|(at, spec)| metric(spec, statuses.get(at))).collect();
    if specs.len() > METRICS_SHOWN {
        words.push(format!("{} more...", specs.len() - METRICS_SHOWN));
        return format!("{} + {}", words[..METRICS_SHOWN].join(", "), words[METRICS_SHOWN]);
    }
    words.join(", ")
}

fn metric(spec: &Tree, status: Option<&Tree>) -> String {
    let source = match meta::str_at(spec, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (spec, status) = (&spec[source], status.map(|status| &status[source]));
    let current = |field: &str| status.and_then(|status| meta::tree_at(status, &format!("current.{field}")));
    let text = |field: &str| or(current(field).and_then(Tree::as_str).unwrap_or_default(), UNKNOWN);
    let prefix = if matches!(source, "resource" | "containerResource") {
        format!("{}: ", meta::str_at(spec, "name"))
    } else {
        String::new()
    };
    if let Some(target) = meta::i64_at(spec, "target.averageUtilization") {
        let percent = current("averageUtilization").and_then(Tree::as_i64);
        let percent = percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{percent}%"));
        return format!("{prefix}{percent}/{target}%");
    }
    match (meta::str_at(spec, "target.averageValue"), meta::str_at(spec, "target.value")) {
        ("", value) => format!("{prefix}{}/{value}", text("value")),
        (average, _) if source == "pods" || !prefix.is_empty() => format!("{prefix}{}/{average}", text("averageValue")),
        (average, _) => format!("{}/{average} (avg)", text("averageValue")),
    }
}
