//! HorizontalPodAutoscalers: what `autoscaling/v1` has no field for travels in annotations, spelt as upstream spells it,
//! so that other clients of the first version read and keep it.

use serde_json::{Map, json};

use crate::{Tree, meta};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// What the first version meant where it named no metric.
const CPU_PERCENT_DEFAULT: i64 = 80;

/// One field of a metric: its path in v2, its name in v1.
type Pair = (&'static str, &'static str);

/// Sources with their fields in a spec and in a status.
const SOURCES: [(&str, &[Pair], &[Pair]); 5] = [
    (
        "resource",
        &[
            ("name", "name"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
        &[
            ("name", "name"),
            ("current.averageUtilization", "currentAverageUtilization"),
            ("current.averageValue", "currentAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
        &[
            ("name", "name"),
            ("container", "container"),
            ("current.averageUtilization", "currentAverageUtilization"),
            ("current.averageValue", "currentAverageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("target.averageValue", "targetAverageValue"),
        ],
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("current.averageValue", "currentAverageValue"),
        ],
    ),
    (
        "object",
        &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "averageValue"),
        ],
        &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("current.value", "currentValue"),
            ("current.averageValue", "averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "targetAverageValue"),
        ],
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("current.value", "currentValue"),
            ("current.averageValue", "currentAverageValue"),
        ],
    ),
];

pub(super) fn to_v1(tree: &mut Tree) {
    let metrics = take_list(tree, "spec", "metrics");
    let current = take_list(tree, "status", "currentMetrics");
    let percent = |metric: &Tree, side: &str| -> Option<Tree> {
        let cpu = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
        let percent = metric["resource"][side].get("averageUtilization").filter(|percent| percent.is_number());
        percent.filter(|_| cpu).cloned()
    };
    if let Some(percent) = metrics.iter().find_map(|metric| percent(metric, "target")) {
        tree["spec"]["targetCPUUtilizationPercentage"] = percent;
    }
    if let Some(percent) = current.iter().find_map(|metric| percent(metric, "current")) {
        tree["status"]["currentCPUUtilizationPercentage"] = percent;
    }
    let others = metrics.iter().filter(|metric| percent(metric, "target").is_none());
    let others: Vec<Tree> = others.map(|metric| old_metric(metric, false)).collect();
    // Statuses go whole: the first version's field keeps less than they say.
    let current: Vec<Tree> = current.iter().map(|metric| old_metric(metric, true)).collect();
    let conditions = take_list(tree, "status", "conditions");
    let behavior = meta::remove_at(tree, "spec.behavior").map(|behavior| recased(behavior, char::to_ascii_uppercase));
    for name in [METRICS, CONDITIONS, CURRENT, BEHAVIOR] {
        drop_annotation(tree, name);
    }
    let list = |list: Vec<Tree>| (!list.is_empty()).then_some(Tree::Array(list));
    let notes =
        [(METRICS, list(others)), (CURRENT, list(current)), (CONDITIONS, list(conditions)), (BEHAVIOR, behavior)];
    for (name, value) in notes {
        if let Some(value) = value {
            tree["metadata"]["annotations"][name] = json!(value.to_string());
        }
    }
}

pub(super) fn to_v2(tree: &mut Tree) {
    let mut take = |name: &str| -> Option<Tree> {
        let text = drop_annotation(tree, name)?;
        // What does not parse says nothing, as upstream has it.
        serde_json::from_str(text.as_str()?).ok()
    };
    let list = |value: Option<Tree>| value.and_then(|value| value.as_array().cloned());
    let (metrics, current) = (list(take(METRICS)), list(take(CURRENT)));
    let (behavior, conditions) = (take(BEHAVIOR), list(take(CONDITIONS)));
    if let Some(spec) = tree.get_mut("spec").and_then(Tree::as_object_mut) {
        let mut all: Vec<Tree> = metrics.iter().flatten().map(|metric| new_metric(metric, false)).collect();
        let percent = spec.remove("targetCPUUtilizationPercentage").filter(Tree::is_number);
        let percent = percent.or_else(|| all.is_empty().then_some(json!(CPU_PERCENT_DEFAULT)));
        if let Some(percent) = percent {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        spec.insert("metrics".into(), Tree::Array(all));
        let behavior = behavior.map(|behavior| recased(behavior, char::to_ascii_lowercase));
        spec.extend(behavior.filter(Tree::is_object).map(|behavior| ("behavior".to_owned(), behavior)));
    }
    if let Some(status) = tree.get_mut("status").and_then(Tree::as_object_mut) {
        let percent = status.remove("currentCPUUtilizationPercentage").filter(Tree::is_number);
        let all: Vec<Tree> = match current {
            Some(current) => current.iter().map(|metric| new_metric(metric, true)).collect(),
            None => percent.into_iter().map(cpu_status).collect(),
        };
        status.extend((!all.is_empty()).then(|| ("currentMetrics".to_owned(), Tree::Array(all))));
        status.extend(conditions.map(|conditions| ("conditions".to_owned(), Tree::Array(conditions))));
    }
}

fn cpu_status(percent: Tree) -> Tree {
    json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}})
}

/// A metric in the words of v1.
fn old_metric(metric: &Tree, status: bool) -> Tree {
    let mut old = json!({"type": metric["type"]});
    for (source, spec, now) in SOURCES {
        let Some(from) = metric.get(source) else { continue };
        let mut to = Map::new();
        for (new, name) in if status { now } else { spec } {
            to.extend(meta::tree_at(from, new).map(|value| ((*name).to_owned(), value.clone())));
        }
        // The two values of v1 that are no pointers.
        let always = if status { "currentValue" } else { "targetValue" };
        if source == "object" {
            to.entry(always).or_insert(json!("0"));
        }
        old[source] = Tree::Object(to);
    }
    old
}

/// A metric in the words of v2.
fn new_metric(metric: &Tree, status: bool) -> Tree {
    let mut new = json!({"type": metric["type"]});
    for (source, spec, now) in SOURCES {
        let Some(from) = metric.get(source) else { continue };
        let mut to = json!({});
        for (path, name) in if status { now } else { spec } {
            // An average makes an object's plain value a zero that only the first version had to write.
            let idle = source == "object" && name.ends_with("Value") && *name != "averageValue";
            if idle && from.get("averageValue").is_some() {
                continue;
            }
            if let Some(value) = from.get(*name) {
                meta::set_at(&mut to, path, value.clone());
            }
        }
        if !status {
            let kind = target_type(&to["target"]);
            meta::set_at(&mut to, "target.type", json!(kind));
        }
        new[source] = to;
    }
    new
}

fn target_type(target: &Tree) -> &'static str {
    match (target.get("averageUtilization"), target.get("averageValue")) {
        (Some(_), _) => "Utilization",
        (None, Some(_)) => "AverageValue",
        (None, None) => "Value",
    }
}

fn take_list(tree: &mut Tree, part: &str, name: &str) -> Vec<Tree> {
    let taken = tree.get_mut(part).and_then(Tree::as_object_mut).and_then(|part| part.remove(name));
    if let Some(Tree::Array(list)) = taken { list } else { Vec::new() }
}

fn drop_annotation(tree: &mut Tree, name: &str) -> Option<Tree> {
    let annotations = tree.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    let taken = annotations.remove(name);
    if annotations.is_empty() && taken.is_some() {
        meta::remove_at(tree, "metadata.annotations");
    }
    taken
}

/// Behaviour is written with the names of upstream's Go fields, which differ in the first letter.
fn recased(value: Tree, case: fn(&char) -> char) -> Tree {
    match value {
        Tree::Object(map) => {
            let recase = |name: String| {
                let mut letters = name.chars();
                letters.next().map(|first| case(&first)).into_iter().chain(letters).collect()
            };
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Tree::Object(kept.map(|(name, value)| (recase(name), recased(value, case))).collect())
        }
        Tree::Array(items) => Tree::Array(items.into_iter().map(|item| recased(item, case)).collect()),
        other => other,
    }
}
