//! Versions of one kind that share a storage: the stored form and the others, which are codecs at this edge.
//!
//! Custom kinds convert by their `apiVersion` alone (conversion `None`). Among the built-in kinds, events are stored as
//! the core group's and HorizontalPodAutoscalers as `autoscaling/v2`.

use api::kind::KindRef;
use api::{Gvk, Kind, Object, Registry, Tree};
use serde_json::{Map, json};

/// True where this row's form is not the stored one.
pub(super) fn is_needed(kind: &Kind) -> bool {
    let (group, _) = kind.storage.rsplit_once('/').unwrap_or_default();
    kind.gvk.version != kind.storage_version || kind.gvk.group != group
}

/// The row of the stored form.
pub(super) fn stored_kind(registry: &Registry, kind: &KindRef) -> KindRef {
    if !is_needed(kind) {
        return kind.clone();
    }
    let (group, resource) = kind.storage.rsplit_once('/').unwrap_or_default();
    let stored = registry.resource(&api::Gvr::new(group, &kind.storage_version, resource));
    stored.cloned().unwrap_or_else(|| kind.clone())
}

/// The served tree of an object in the form of a row.
pub(super) fn served(kind: &Kind, object: &Object) -> Tree {
    let tree = object.tree();
    if is_needed(kind) { convert(tree, &kind.gvk) } else { tree }
}

/// A document in another version of its kind.
pub(super) fn convert(mut tree: Tree, to: &Gvk) -> Tree {
    let from = tree["apiVersion"].as_str().unwrap_or_default().to_owned();
    if from == to.api_version() {
        return tree;
    }
    match (to.group.as_str(), to.version.as_str(), to.kind.as_str()) {
        ("events.k8s.io", _, "Event") => event_to_new(&mut tree),
        ("", _, "Event") => event_to_core(&mut tree),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => autoscaler_to_v1(&mut tree),
        ("autoscaling", "v2", "HorizontalPodAutoscaler") => autoscaler_to_v2(&mut tree),
        _ => {}
    }
    if let Some(map) = tree.as_object_mut() {
        map.insert("apiVersion".into(), json!(to.api_version()));
        map.insert("kind".into(), json!(to.kind));
    }
    tree
}

/// Members of an event that the two groups name differently: core, then `events.k8s.io`.
const EVENT_NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn event_to_new(tree: &mut Tree) {
    rename(tree, EVENT_NAMES.into_iter());
}

fn event_to_core(tree: &mut Tree) {
    rename(tree, EVENT_NAMES.into_iter().map(|(core, new)| (new, core)));
}

fn rename(tree: &mut Tree, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = tree.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu_utilisation(metric: &Tree) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

/// What v1 cannot say travels in annotations, as upstream does it.
fn autoscaler_to_v1(tree: &mut Tree) {
    let mut notes: Vec<(&str, Tree)> = Vec::new();
    if let Some(spec) = tree["spec"].as_object_mut() {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let (cpu, others) =
            split_metrics(metrics, |metric| metric["resource"]["target"]["averageUtilization"].is_number());
        if let Some(cpu) = cpu {
            let percent = cpu["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".into(), percent);
        }
        notes.extend((!others.is_empty()).then_some((METRICS, Tree::Array(others))));
        notes.extend(spec.remove("behavior").map(|behavior| (BEHAVIOR, behavior)));
    }
    if let Some(status) = tree.get_mut("status").and_then(Tree::as_object_mut) {
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        let (cpu, others) =
            split_metrics(metrics, |metric| metric["resource"]["current"]["averageUtilization"].is_number());
        if let Some(cpu) = cpu {
            let percent = cpu["resource"]["current"]["averageUtilization"].clone();
            status.insert("currentCPUUtilizationPercentage".into(), percent);
        }
        notes.extend((!others.is_empty()).then_some((CURRENT, Tree::Array(others))));
        notes.extend(status.remove("conditions").map(|conditions| (CONDITIONS, conditions)));
    }
    for (name, value) in notes {
        tree["metadata"]["annotations"][name] = json!(value.to_string());
    }
}

fn split_metrics(metrics: Tree, has_percent: impl Fn(&Tree) -> bool) -> (Option<Tree>, Vec<Tree>) {
    let Tree::Array(metrics) = metrics else { return (None, Vec::new()) };
    let (mut cpu, others): (Vec<Tree>, Vec<Tree>) =
        metrics.into_iter().partition(|metric| is_cpu_utilisation(metric) && has_percent(metric));
    (cpu.pop(), others)
}

fn autoscaler_to_v2(tree: &mut Tree) {
    let mut take = |name: &str| -> Option<Tree> {
        let annotations = tree.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
        let text = annotations.remove(name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let (metrics, behavior, current, conditions) = (take(METRICS), take(BEHAVIOR), take(CURRENT), take(CONDITIONS));
    if let Some(spec) = tree.get_mut("spec").and_then(Tree::as_object_mut) {
        let mut list: Vec<Tree> = metrics.and_then(|metrics| metrics.as_array().cloned()).unwrap_or_default();
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            list.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        put_list(spec, "metrics", list);
        spec.extend(behavior.map(|behavior| ("behavior".to_owned(), behavior)));
    }
    if let Some(status) = tree.get_mut("status").and_then(Tree::as_object_mut) {
        let mut list: Vec<Tree> = current.and_then(|metrics| metrics.as_array().cloned()).unwrap_or_default();
        if let Some(percent) = status.remove("currentCPUUtilizationPercentage") {
            let current = json!({"averageUtilization": percent});
            list.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": current}}));
        }
        put_list(status, "currentMetrics", list);
        status.extend(conditions.map(|conditions| ("conditions".to_owned(), conditions)));
    }
}

fn put_list(into: &mut Map<String, Tree>, name: &str, list: Vec<Tree>) {
    if !list.is_empty() {
        into.insert(name.into(), Tree::Array(list));
    }
}

#[cfg(test)]
mod tests {
    use super::convert;
    use api::Gvk;
    use serde_json::json;

    #[test]
    fn autoscalers_keep_everything_over_v1() {
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a", "annotations": {}},
            "spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Max"}}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 50}}},
            ]},
            "status": {"currentReplicas": 1},
        });
        let v1 = convert(v2.clone(), &Gvk::new("autoscaling", "v1", "HorizontalPodAutoscaler"));
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(convert(v1, &Gvk::new("autoscaling", "v2", "HorizontalPodAutoscaler")), v2);
    }

    #[test]
    fn events_change_their_words() {
        let core =
            json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "p"}, "message": "m", "count": 2});
        let new = convert(core.clone(), &Gvk::new("events.k8s.io", "v1", "Event"));
        assert_eq!(new["regarding"]["name"], "p");
        assert_eq!(new["note"], "m");
        assert_eq!(convert(new, &Gvk::new("", "v1", "Event")), core);
    }
}
