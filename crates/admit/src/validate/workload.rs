//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController, Job, CronJob, PodTemplate.

use api::{Header, LabelSelector, Tree};
use serde_json::json;

use super::pod::{one_of, spec_with as pod_spec};
use crate::causes::{At, Causes};
use crate::{doc, meta};

/// A CronJob's name leaves room for the suffix of its jobs.
const CRON_NAME_BYTES_MAX: usize = 52;

pub(super) fn object(kind: &str, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let at = At::of("spec");
    match kind {
        "PodTemplate" => template(doc::get(tree, "template"), &[], &At::of("template"), causes),
        "CronJob" => cron_job(tree, &at, old, causes),
        "Job" => job(tree, &at, old, causes),
        "ControllerRevision" => {
            if old.is_some_and(|old| old.get("data") != tree.get("data")) {
                causes.immutable(&At::of("data"), doc::get(tree, "data"));
            }
        }
        _ => set(kind, tree, old, &at, causes),
    }
}

/// `claims` names the volumes that the owner's claim templates become.
fn template(template: &Tree, claims: &[&str], at: &At, causes: &mut Causes) {
    meta::labels(doc::get(template, "metadata.labels"), &at.child("metadata").child("labels"), causes);
    pod_spec(doc::get(template, "spec"), claims, &at.child("spec"), causes);
}

/// Kinds that keep pods running.
fn set(kind: &str, tree: &Tree, old: Option<&Tree>, at: &At, causes: &mut Causes) {
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(tree, field, at, causes);
    }
    selector(kind, tree, at, causes);
    let restart = doc::text(tree, "spec.template.spec.restartPolicy");
    let template_at = at.child("template");
    if doc::has(tree, "spec.template") {
        let claims = doc::items(tree, "spec.volumeClaimTemplates").iter();
        let claims: Vec<&str> = claims.map(|claim| doc::text(claim, "metadata.name")).collect();
        template(doc::get(tree, "spec.template"), &claims, &template_at, causes);
    } else {
        causes.required(&template_at, "");
    }
    if !restart.is_empty() && restart != "Always" {
        causes.not_supported(&template_at.child("spec").child("restartPolicy"), &json!(restart), &["Always"]);
    }
    if doc::has(tree, "spec.template.spec.activeDeadlineSeconds") {
        let at = template_at.child("spec").child("activeDeadlineSeconds");
        causes.forbidden(&at, &format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
    strategy(kind, tree, at, causes);
    if let Some(old) = old {
        immutable(kind, tree, old, at, causes);
    }
}

fn selector(kind: &str, tree: &Tree, at: &At, causes: &mut Causes) {
    let at_selector = at.child("selector");
    let selector = doc::get(tree, "spec.selector");
    let bare = selector.as_object().is_none_or(serde_json::Map::is_empty);
    let wrapped = if kind == "ReplicationController" { json!({"matchLabels": selector}) } else { selector.clone() };
    match LabelSelector::from_tree(&wrapped) {
        _ if selector.is_null() || bare && kind == "ReplicationController" => causes.required(&at_selector, ""),
        _ if bare => {
            causes.invalid(&at_selector, selector, &format!("empty selector is invalid for {}", kind.to_lowercase()));
        }
        Err(error) => causes.invalid(&at_selector, selector, &error.message),
        Ok(parsed) => {
            let template = doc::get(tree, "spec.template");
            if !parsed.matches(&Header::of(template).labels) {
                let at = at.child("template").child("metadata").child("labels");
                let labels = doc::at(template, "metadata.labels").cloned().unwrap_or_else(|| json!({}));
                causes.invalid(&at, &labels, "`selector` does not match template `labels`");
            }
        }
    }
}

fn strategy(kind: &str, tree: &Tree, at: &At, causes: &mut Causes) {
    let (path, supported): (&str, &[&str]) = match kind {
        "Deployment" => ("strategy", &["Recreate", "RollingUpdate"]),
        "StatefulSet" | "DaemonSet" => ("updateStrategy", &["OnDelete", "RollingUpdate"]),
        _ => return,
    };
    let strategy = doc::get(tree, &format!("spec.{path}"));
    let at = at.child(path);
    one_of(strategy, "type", supported, &at, causes);
    if doc::text(strategy, "type") != "RollingUpdate" && doc::has(strategy, "rollingUpdate") {
        let why = format!("may not be specified when strategy `type` is '{}'", doc::text(strategy, "type"));
        causes.forbidden(&at.child("rollingUpdate"), &why);
    }
    let both_zero = ["maxUnavailable", "maxSurge"].iter().all(
        |field| matches!(doc::get(strategy, &format!("rollingUpdate.{field}")), value if *value == 0 || *value == "0%"),
    );
    if both_zero && kind != "StatefulSet" && doc::has(strategy, "rollingUpdate.maxSurge") {
        let at = at.child("rollingUpdate").child("maxUnavailable");
        let why =
            if kind == "Deployment" { "may not be 0 when `maxSurge` is 0" } else { "cannot be 0 when maxSurge is 0" };
        causes.invalid(&at, doc::get(strategy, "rollingUpdate.maxUnavailable"), why);
    }
}

fn immutable(kind: &str, tree: &Tree, old: &Tree, at: &At, causes: &mut Causes) {
    if kind != "ReplicationController"
        && doc::get(tree, "spec.selector") != doc::get(old, "spec.selector")
        && kind != "StatefulSet"
    {
        causes.immutable(&at.child("selector"), doc::get(tree, "spec.selector"));
    }
    if kind != "StatefulSet" {
        return;
    }
    const OPEN: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let frozen = |tree: &Tree| {
        let mut spec = doc::get(tree, "spec").clone();
        OPEN.iter().for_each(|field| drop(doc::remove(&mut spec, field)));
        spec
    };
    if frozen(tree) != frozen(old) {
        causes.forbidden(at, "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
    }
}

fn not_negative(tree: &Tree, field: &str, at: &At, causes: &mut Causes) {
    if let Some(value) = doc::int(tree, &format!("spec.{field}")).filter(|value| *value < 0) {
        causes.invalid(&at.child(field), &json!(value), "must be greater than or equal to 0");
    }
}

fn job(tree: &Tree, at: &At, old: Option<&Tree>, causes: &mut Causes) {
    job_spec(doc::get(tree, "spec"), at, causes);
    let Some(old) = old else { return };
    let changed = |path: &str| doc::get(tree, path) != doc::get(old, path);
    if changed("spec.completions") && doc::text(tree, "spec.completionMode") != "Indexed" {
        causes.immutable(&at.child("completions"), doc::get(tree, "spec.completions"));
    }
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        if changed(&format!("spec.{field}")) {
            causes.immutable(&at.child(field), doc::get(tree, &format!("spec.{field}")));
        }
    }
    // A suspended job that never started may still get its scheduling directives.
    let unstarted = doc::is_true(old, "spec.suspend") && !doc::has(old, "status.startTime");
    let frozen = |tree: &Tree| {
        let mut template = doc::get(tree, "spec.template").clone();
        if unstarted {
            for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
                doc::remove(&mut template, &format!("spec.{field}"));
            }
            doc::remove(&mut template, "metadata");
            for list in ["spec.containers", "spec.initContainers"] {
                doc::items_mut(&mut template, list).for_each(|one| drop(doc::remove(one, "resources")));
            }
        }
        template
    };
    if frozen(tree) != frozen(old) {
        causes.immutable(&at.child("template"), doc::get(tree, "spec.template"));
    }
}

fn job_spec(spec: &Tree, at: &At, causes: &mut Causes) {
    for field in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        if let Some(value) = doc::int(spec, field).filter(|value| *value < 0) {
            causes.invalid(&at.child(field), &json!(value), "must be greater than or equal to 0");
        }
    }
    one_of(spec, "completionMode", &["Indexed", "NonIndexed"], at, causes);
    if doc::text(spec, "completionMode") == "Indexed" && !doc::has(spec, "completions") {
        causes.required(&at.child("completions"), "when completion mode is Indexed");
    }
    let at_template = at.child("template");
    template(doc::get(spec, "template"), &[], &at_template, causes);
    let restart = doc::text(spec, "template.spec.restartPolicy");
    if !matches!(restart, "Never" | "OnFailure") {
        let at = at_template.child("spec").child("restartPolicy");
        if restart == "Always" || restart.is_empty() {
            causes.required(&at, "valid values: \"OnFailure\", \"Never\"");
        }
    }
}

fn cron_job(tree: &Tree, at: &At, old: Option<&Tree>, causes: &mut Causes) {
    let name = doc::text(tree, "metadata.name");
    if old.is_none() && name.len() > CRON_NAME_BYTES_MAX {
        let why = format!("must be no more than {CRON_NAME_BYTES_MAX} characters");
        causes.invalid_text(&At::of("metadata.name"), name, &why);
    }
    let schedule = doc::text(tree, "spec.schedule");
    if schedule.is_empty() {
        causes.required(&at.child("schedule"), "");
    } else if let Some(why) = bad_schedule(schedule) {
        causes.invalid_text(&at.child("schedule"), schedule, &why);
    }
    let zone = doc::text(tree, "spec.timeZone");
    if doc::has(tree, "spec.timeZone") && jiff::tz::TimeZone::get(zone).is_err() {
        causes.invalid_text(&at.child("timeZone"), zone, &format!("unknown time zone {zone}"));
    }
    one_of(doc::get(tree, "spec"), "concurrencyPolicy", &["Allow", "Forbid", "Replace"], at, causes);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(tree, field, at, causes);
    }
    job_spec(doc::get(tree, "spec.jobTemplate.spec"), &at.child("jobTemplate").child("spec"), causes);
}

/// Five fields, a `@name`, or `@every` with a duration.
fn bad_schedule(schedule: &str) -> Option<String> {
    if schedule.contains("TZ") {
        return Some("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    if let Some(every) = schedule.strip_prefix("@every ") {
        return (!super::raw::is_format("duration", every)).then(|| format!("failed to parse duration {schedule}"));
    }
    let fields = schedule.split_whitespace().count();
    if !schedule.starts_with('@') && fields != 5 {
        let list: Vec<&str> = schedule.split_whitespace().collect();
        return Some(format!("expected exactly 5 fields, found {fields}: [{}]", list.join(" ")));
    }
    schedule.parse::<croner::Cron>().err().map(|error| error.to_string())
}
