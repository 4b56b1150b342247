//! What runs pods: sets, deployments, jobs.

use jiff::Timestamp;
use serde_json::json;

use super::{NONE, UNKNOWN, age, containers, count, label_selector, labels, number, or, plain};
use crate::{Tree, meta};

/// Containers, Images and Selector of what has a pod template.
fn template(object: &Tree, root: &str) -> Vec<Tree> {
    let [names, images] = containers(meta::tree_at(object, &format!("{root}.template.spec")));
    let selector = meta::tree_at(object, &format!("{root}.selector"));
    // A ReplicationController selects by a plain map.
    let is_plain =
        selector.is_some_and(|one| one.get("matchLabels").is_none() && one.get("matchExpressions").is_none());
    let selector = if is_plain { labels(selector) } else { label_selector(selector) };
    vec![names, images, json!(selector)]
}

fn with_template(mut cells: Vec<Tree>, object: &Tree, root: &str) -> Vec<Tree> {
    cells.extend(template(object, root));
    cells
}

/// Desired, Current, Ready; template.
pub(super) fn replica_set(object: &Tree) -> Vec<Tree> {
    let paths = ["spec.replicas", "status.replicas", "status.readyReplicas"];
    with_template(paths.iter().map(|path| json!(number(object, path))).collect(), object, "spec")
}

/// Ready, Up-to-date, Available; template.
pub(super) fn deployment(object: &Tree) -> Vec<Tree> {
    let ready = format!("{}/{}", number(object, "status.readyReplicas"), number(object, "spec.replicas"));
    let cells = vec![
        json!(ready),
        json!(number(object, "status.updatedReplicas")),
        json!(number(object, "status.availableReplicas")),
    ];
    with_template(cells, object, "spec")
}

/// Ready; Containers, Images.
pub(super) fn stateful_set(object: &Tree) -> Vec<Tree> {
    let ready = format!("{}/{}", number(object, "status.readyReplicas"), number(object, "spec.replicas"));
    let [names, images] = containers(meta::tree_at(object, "spec.template.spec"));
    vec![json!(ready), names, images]
}

/// Desired, Current, Ready, Up-to-date, Available, Node Selector; template.
pub(super) fn daemon_set(object: &Tree) -> Vec<Tree> {
    let names = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    let mut cells: Vec<Tree> = names.iter().map(|name| json!(number(object, &format!("status.{name}")))).collect();
    cells.push(json!(labels(meta::tree_at(object, "spec.template.spec.nodeSelector"))));
    with_template(cells, object, "spec")
}

/// Status, Completions, Duration; template.
pub(super) fn job(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let succeeded = number(object, "status.succeeded");
    let completions = match (meta::i64_at(object, "spec.completions"), meta::i64_at(object, "spec.parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let time = |path: &str| meta::str_at(object, path).parse::<Timestamp>().ok();
    let duration = match (time("status.startTime"), time("status.completionTime")) {
        (None, _) => String::new(),
        (Some(start), None) => age::between(start, now),
        (Some(start), Some(end)) => age::between(start, end),
    };
    with_template(vec![json!(job_status(object)), json!(completions), json!(duration)], object, "spec")
}

fn job_status(object: &Tree) -> &'static str {
    let conditions = meta::list_at(object, "status.conditions");
    let has = |ty: &str| {
        conditions.iter().any(|one| meta::str_at(one, "type") == ty && meta::str_at(one, "status") == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !meta::deletion_timestamp(object).is_empty() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// Timezone, Suspend, Active, Last Schedule; template.
pub(super) fn cron_job(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let last = meta::tree_at(object, "status.lastScheduleTime");
    let last = last.map_or_else(|| NONE.to_owned(), |time| age::since(Some(time), now));
    let suspend = match meta::tree_at(object, "spec.suspend").and_then(Tree::as_bool) {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    let zone = or(meta::str_at(object, "spec.timeZone"), NONE);
    with_template(
        vec![json!(zone), json!(suspend), count(object, "status.active"), json!(last)],
        object,
        "spec.jobTemplate.spec",
    )
}

/// Min Available, Max Unavailable, Allowed Disruptions.
pub(super) fn disruption_budget(object: &Tree) -> Vec<Tree> {
    let bound = |path: &str| json!(meta::tree_at(object, path).map_or_else(|| "N/A".to_owned(), plain));
    let allowed = json!(number(object, "status.disruptionsAllowed"));
    vec![bound("spec.minAvailable"), bound("spec.maxUnavailable"), allowed]
}

/// Controller.
pub(super) fn controller_revision(object: &Tree) -> Vec<Tree> {
    let owners = meta::list_at(object, "metadata.ownerReferences");
    let controller = owners.iter().find(|owner| meta::bool_at(owner, "controller"));
    let text = controller.map_or_else(
        || NONE.to_owned(),
        |owner| {
            let group = meta::str_at(owner, "apiVersion").split_once('/').map_or("", |(group, _)| group);
            let kind = meta::str_at(owner, "kind").to_lowercase();
            let what = if group.is_empty() { kind } else { format!("{kind}.{group}") };
            format!("{what}/{}", or(meta::str_at(owner, "name"), UNKNOWN))
        },
    );
    vec![json!(text)]
}
