//! Defaults of workloads: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, HorizontalPodAutoscaler.

use api::Tree;
use serde_json::json;

use super::core::template;
use crate::doc;

const HISTORY: i64 = 10;

pub(super) fn apply(kind: &str, tree: &mut Tree) {
    match kind {
        "Deployment" => deployment(tree),
        "ReplicaSet" => {
            doc::fill(tree, "spec.replicas", 1);
            template(tree, "spec.template");
        }
        "StatefulSet" => stateful_set(tree),
        "DaemonSet" => daemon_set(tree),
        "Job" => job(tree),
        "CronJob" => cron_job(tree),
        "HorizontalPodAutoscaler" => autoscaler(tree),
        _ => {}
    }
}

fn deployment(tree: &mut Tree) {
    doc::fill(tree, "spec.replicas", 1);
    doc::fill_text(tree, "spec.strategy.type", "RollingUpdate");
    if doc::text(tree, "spec.strategy.type") == "RollingUpdate" {
        doc::fill(tree, "spec.strategy.rollingUpdate.maxUnavailable", "25%");
        doc::fill(tree, "spec.strategy.rollingUpdate.maxSurge", "25%");
    }
    doc::fill(tree, "spec.revisionHistoryLimit", HISTORY);
    doc::fill(tree, "spec.progressDeadlineSeconds", 600);
    template(tree, "spec.template");
}

fn stateful_set(tree: &mut Tree) {
    doc::fill(tree, "spec.replicas", 1);
    doc::fill_text(tree, "spec.podManagementPolicy", "OrderedReady");
    doc::fill_text(tree, "spec.updateStrategy.type", "RollingUpdate");
    if doc::text(tree, "spec.updateStrategy.type") == "RollingUpdate" {
        doc::fill(tree, "spec.updateStrategy.rollingUpdate.partition", 0);
    }
    doc::fill(tree, "spec.revisionHistoryLimit", HISTORY);
    doc::fill(tree, "spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Retain");
    doc::fill(tree, "spec.persistentVolumeClaimRetentionPolicy.whenScaled", "Retain");
    for claim in doc::items_mut(tree, "spec.volumeClaimTemplates") {
        doc::fill_text(claim, "apiVersion", "v1");
        doc::fill_text(claim, "kind", "PersistentVolumeClaim");
        doc::fill(claim, "spec.volumeMode", "Filesystem");
        doc::fill(claim, "status.phase", "Pending");
    }
    template(tree, "spec.template");
}

fn daemon_set(tree: &mut Tree) {
    doc::fill_text(tree, "spec.updateStrategy.type", "RollingUpdate");
    if doc::text(tree, "spec.updateStrategy.type") == "RollingUpdate" {
        doc::fill(tree, "spec.updateStrategy.rollingUpdate.maxUnavailable", 1);
        doc::fill(tree, "spec.updateStrategy.rollingUpdate.maxSurge", 0);
    }
    doc::fill(tree, "spec.revisionHistoryLimit", HISTORY);
    template(tree, "spec.template");
}

fn job(tree: &mut Tree) {
    // One of the two alone leaves the other open: a work queue.
    if !doc::has(tree, "spec.completions") && !doc::has(tree, "spec.parallelism") {
        doc::set(tree, "spec.completions", 1);
    }
    doc::fill(tree, "spec.parallelism", 1);
    let limit = if doc::has(tree, "spec.backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    doc::fill(tree, "spec.backoffLimit", limit);
    doc::fill(tree, "spec.completionMode", "NonIndexed");
    doc::fill(tree, "spec.suspend", false);
    let replaced = if doc::has(tree, "spec.podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    doc::fill(tree, "spec.podReplacementPolicy", replaced);
    for rule in doc::items_mut(tree, "spec.podFailurePolicy.rules") {
        for condition in doc::items_mut(rule, "onPodConditions") {
            doc::fill_text(condition, "status", "True");
        }
    }
    labels_from_template(tree);
    template(tree, "spec.template");
}

fn cron_job(tree: &mut Tree) {
    doc::fill_text(tree, "spec.concurrencyPolicy", "Allow");
    doc::fill(tree, "spec.suspend", false);
    doc::fill(tree, "spec.successfulJobsHistoryLimit", 3);
    doc::fill(tree, "spec.failedJobsHistoryLimit", 1);
    template(tree, "spec.jobTemplate.spec.template");
}

pub(super) fn replication_controller(tree: &mut Tree) {
    labels_from_template(tree);
    if doc::get(tree, "spec.selector").as_object().is_none_or(serde_json::Map::is_empty) {
        doc::copy_within(tree, "spec.template.metadata.labels", "spec.selector");
    }
    doc::fill(tree, "spec.replicas", 1);
    template(tree, "spec.template");
}

/// A job without labels carries those of its pods.
pub(crate) fn labels_from_template(tree: &mut Tree) {
    if doc::get(tree, "metadata.labels").as_object().is_none_or(serde_json::Map::is_empty) {
        doc::copy_within(tree, "spec.template.metadata.labels", "metadata.labels");
    }
}

fn autoscaler(tree: &mut Tree) {
    doc::fill(tree, "spec.minReplicas", 1);
    if doc::text(tree, "apiVersion") != "autoscaling/v2" {
        return;
    }
    if doc::items(tree, "spec.metrics").is_empty() {
        let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
        doc::set(tree, "spec.metrics", json!([{"type": "Resource", "resource": cpu}]));
    }
    if doc::has(tree, "spec.behavior") {
        let up = json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]);
        let down = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
        for (name, policies) in [("scaleUp", up), ("scaleDown", down)] {
            let path = format!("spec.behavior.{name}");
            doc::fill(tree, &format!("{path}.selectPolicy"), "Max");
            doc::fill(tree, &format!("{path}.policies"), policies);
        }
        doc::fill(tree, "spec.behavior.scaleUp.stabilizationWindowSeconds", 0);
    }
}
