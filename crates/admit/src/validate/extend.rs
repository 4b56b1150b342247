//! Short rules of the remaining kinds.

use api::Tree;
use serde_json::json;

use super::network::selector;
use super::pod::one_of;
use crate::causes::{At, Causes};
use crate::{doc, names};

/// Priorities above are the system's own.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn core(kind: &str, tree: &Tree, causes: &mut Causes) {
    match kind {
        "Node" => taints(tree, causes),
        "LimitRange" => {
            for (index, limit) in doc::items(tree, "spec.limits").iter().enumerate() {
                if doc::text(limit, "type").is_empty() {
                    causes.required(&At::of("spec.limits").index(index).child("type"), "");
                }
            }
        }
        "ResourceQuota" => {
            for (resource, amount) in doc::entries(tree, "spec.hard") {
                if crate::vocabulary::quantity(amount).nanos < 0 {
                    causes.invalid(&At::of("spec.hard").key(resource), amount, "must be greater than or equal to 0");
                }
            }
        }
        _ => {}
    }
}

fn taints(tree: &Tree, causes: &mut Causes) {
    let at = At::of("metadata.taints");
    let mut seen = std::collections::BTreeSet::new();
    for (index, taint) in doc::items(tree, "spec.taints").iter().enumerate() {
        let at = at.index(index);
        let (key, effect) = (doc::text(taint, "key"), doc::text(taint, "effect"));
        names::qualified(key).iter().for_each(|why| causes.invalid_text(&at.child("key"), key, why));
        if effect.is_empty() {
            causes.required(&at.child("effect"), "");
        } else {
            one_of(taint, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], &at, causes);
        }
        if !seen.insert((key.to_owned(), effect.to_owned())) {
            causes.duplicate(&at, taint);
        }
    }
}

pub(super) fn object(group: &str, kind: &str, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    match (group, kind) {
        ("policy", "PodDisruptionBudget") => budget(tree, causes),
        ("autoscaling", _) => super::autoscaler::object(tree, causes),
        ("scheduling.k8s.io", "PriorityClass") => priority(tree, old, causes),
        ("coordination.k8s.io", "Lease") => lease(tree, causes),
        ("apiextensions.k8s.io", _) => definition(tree, old, causes),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            webhooks(tree, causes);
        }
        ("node.k8s.io", "RuntimeClass") => {
            if doc::text(tree, "handler").is_empty() {
                causes.required(&At::of("handler"), "");
            }
            if old.is_some_and(|old| doc::get(old, "handler") != doc::get(tree, "handler")) {
                causes.immutable(&At::of("handler"), doc::get(tree, "handler"));
            }
        }
        _ => {}
    }
}

fn budget(tree: &Tree, causes: &mut Causes) {
    let at = At::of("spec");
    if doc::has(tree, "spec.minAvailable") && doc::has(tree, "spec.maxUnavailable") {
        causes.invalid(&at, doc::get(tree, "spec"), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let value = doc::get(doc::get(tree, "spec"), field);
        let negative = value.as_i64().is_some_and(|value| value < 0);
        let odd =
            value.as_str().is_some_and(|text| text.strip_suffix('%').and_then(|n| n.parse::<u32>().ok()).is_none());
        if negative {
            causes.invalid(&at.child(field), value, "must be greater than or equal to 0");
        } else if odd {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            causes.invalid(&at.child(field), value, why);
        }
    }
    selector(doc::get(tree, "spec.selector"), &at.child("selector"), causes);
    one_of(doc::get(tree, "spec"), "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], &at, causes);
}

fn priority(tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let (name, value) = (doc::text(tree, "metadata.name"), doc::int(tree, "value").unwrap_or(0));
    let known = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
    if old.is_none() && name.starts_with("system-") && !known.contains(&(name, value)) {
        let why = "priority class names with 'system-' prefix are reserved for system use only. error: only system-node-critical and system-cluster-critical are known";
        causes.forbidden(&At::of("metadata.name"), why);
    } else if old.is_none() && !name.starts_with("system-") && value > USER_PRIORITY_MAX {
        let why = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        causes.forbidden(&At::of("value"), &why);
    }
    let Some(old) = old else { return };
    for field in ["value", "preemptionPolicy"] {
        if doc::get(old, field) != doc::get(tree, field) {
            causes.invalid(&At::of(field), doc::get(tree, field), "field is immutable");
        }
    }
}

fn lease(tree: &Tree, causes: &mut Causes) {
    for (field, low) in [("leaseDurationSeconds", 1), ("leaseTransitions", 0)] {
        let value = doc::int(tree, &format!("spec.{field}"));
        if let Some(value) = value.filter(|value| *value < low) {
            let why = if low == 1 { "must be greater than 0" } else { "must be greater than or equal to 0" };
            causes.invalid(&At::of("spec").child(field), &json!(value), why);
        }
    }
}

fn definition(tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let at = At::of("spec");
    let (group, plural) = (doc::text(tree, "spec.group"), doc::text(tree, "spec.names.plural"));
    let (name, want) = (doc::text(tree, "metadata.name"), format!("{plural}.{group}"));
    if name != want {
        causes.invalid_text(&At::of("metadata.name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.is_empty() {
        causes.required(&at.child("group"), "");
    } else if !group.contains('.') {
        causes.invalid_text(&at.child("group"), group, "should be a domain with at least one dot");
    }
    for field in ["plural", "kind"] {
        if doc::text(tree, &format!("spec.names.{field}")).is_empty() {
            causes.required(&at.child("names").child(field), "");
        }
    }
    one_of(doc::get(tree, "spec"), "scope", &["Cluster", "Namespaced"], &at, causes);
    if !doc::has(tree, "spec.scope") {
        causes.required(&at.child("scope"), "");
    }
    let versions = doc::items(tree, "spec.versions");
    if versions.iter().filter(|version| doc::is_true(version, "storage")).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.invalid(&at.child("versions"), &json!(versions), why);
    }
    for version in versions {
        if let Err(found) = api::crd::kind_of(tree, doc::text(version, "name"), 0) {
            causes.extend(found);
        }
    }
    let Some(old) = old else { return };
    for field in ["spec.scope", "spec.group", "spec.names.plural", "spec.names.kind"] {
        if doc::get(old, field) != doc::get(tree, field) {
            causes.immutable(&At::of(field), doc::get(tree, field));
        }
    }
    let known = |name: &Tree| versions.iter().any(|version| doc::get(version, "name") == name);
    for (index, stored) in doc::items(tree, "status.storedVersions").iter().enumerate().filter(|(_, name)| !known(name))
    {
        let why = format!(
            "missing from spec.versions; {} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {} and removes {} from status.storedVersions",
            plain(stored),
            plain(stored),
            plain(stored)
        );
        causes.invalid(&At::of("status.storedVersions").index(index), stored, &why);
    }
}

fn plain(value: &Tree) -> &str {
    value.as_str().unwrap_or_default()
}

fn webhooks(tree: &Tree, causes: &mut Causes) {
    for (index, webhook) in doc::items(tree, "webhooks").iter().enumerate() {
        let at = At::of("webhooks").index(index);
        let name = doc::text(webhook, "name");
        if name.split('.').count() < 3 || !names::subdomain(name).is_empty() {
            causes.invalid_text(
                &at.child("name"),
                name,
                "should be a domain with at least three segments separated by dots",
            );
        }
        if doc::items(webhook, "admissionReviewVersions").is_empty() {
            causes.required(&at.child("admissionReviewVersions"), "must specify one of v1, v1beta1");
        }
        if !matches!(doc::text(webhook, "sideEffects"), "None" | "NoneOnDryRun") {
            causes.not_supported(&at.child("sideEffects"), doc::get(webhook, "sideEffects"), &["None", "NoneOnDryRun"]);
        }
        if doc::has(webhook, "clientConfig.url") == doc::has(webhook, "clientConfig.service") {
            causes.required(&at.child("clientConfig"), "exactly one of url or service is required");
        }
    }
}
