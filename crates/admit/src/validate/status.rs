//! What upstream asks of a status: counts that are no less than zero and fit each other, addresses told apart.

use std::collections::BTreeSet;

use api::Tree;
use serde_json::json;

use crate::causes::{At, Causes};
use crate::context::Cx;
use crate::doc;

/// Counts of a status by kind.
const COUNTS: [(&str, &[&str]); 9] = [
    (
        "Deployment",
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ],
    ),
    ("ReplicaSet", &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"]),
    (
        "ReplicationController",
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
    ),
    (
        "StatefulSet",
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
    ),
    (
        "DaemonSet",
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
    ),
    ("Job", &["active", "succeeded", "failed", "terminating"]),
    ("HorizontalPodAutoscaler", &["currentReplicas", "desiredReplicas"]),
    ("PodDisruptionBudget", &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]),
    ("CronJob", &[]),
];
/// Parts of `replicas`.
const PARTS: [&str; 5] =
    ["fullyLabeledReplicas", "updatedReplicas", "currentReplicas", "readyReplicas", "availableReplicas"];

pub(super) fn object(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let (group, kind) = (cx.kind.gvk.group.as_str(), cx.kind.gvk.kind.as_str());
    let status = doc::get(tree, "status");
    let at = At::of("status");
    let counts = COUNTS.iter().find(|(name, _)| *name == kind).map(|(_, counts)| *counts).unwrap_or_default();
    for field in counts {
        if let Some(count) = doc::int(status, field).filter(|count| *count < 0) {
            causes.invalid(&at.child(field), &json!(count), "must be greater than or equal to 0");
        }
    }
    let count = |field: &str| doc::int(status, field).unwrap_or(0);
    if matches!(kind, "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet") {
        for field in PARTS.into_iter().filter(|field| counts.contains(field) && count(field) > count("replicas")) {
            causes.invalid(&at.child(field), &json!(count(field)), "cannot be greater than status.replicas");
        }
        if count("availableReplicas") > count("readyReplicas") {
            let available = json!(count("availableReplicas"));
            causes.invalid(&at.child("availableReplicas"), &available, "cannot be greater than readyReplicas");
        }
    }
    let fell =
        old.and_then(|old| doc::int(old, "status.collisionCount")).is_some_and(|had| count("collisionCount") < had);
    if fell && counts.contains(&"collisionCount") {
        causes.invalid(&at.child("collisionCount"), &json!(count("collisionCount")), "cannot be decremented");
    }
    match (group, kind) {
        ("", "Node") => addresses(status, &at, causes),
        ("", "Namespace") => phase(tree, causes),
        ("certificates.k8s.io", _) => super::certificate::object(cx, tree, old, causes),
        _ => {}
    }
}

fn addresses(status: &Tree, at: &At, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (index, address) in doc::items(status, "addresses").iter().enumerate() {
        if !seen.insert((doc::text(address, "type"), doc::text(address, "address"))) {
            causes.duplicate(&at.child("addresses").index(index), address);
        }
    }
}

fn phase(tree: &Tree, causes: &mut Causes) {
    let (phase, going) = (doc::text(tree, "status.phase"), doc::has(tree, "metadata.deletionTimestamp"));
    let (want, when) = if going { ("Terminating", "is not empty") } else { ("Active", "is empty") };
    if !phase.is_empty() && phase != want {
        let why = format!("may only be '{want}' if `deletionTimestamp` {when}");
        causes.invalid_text(&At::of("status.Phase"), phase, &why);
    }
}
