//! Defaults of the kinds that extend or govern the cluster: RBAC, storage, scheduling, admission, CRDs, flow control.

use api::Tree;
use serde_json::json;

use crate::doc;

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn apply(group: &str, kind: &str, tree: &mut Tree) {
    match (group, kind) {
        (RBAC, "RoleBinding" | "ClusterRoleBinding") => binding(tree),
        ("storage.k8s.io", "StorageClass") => {
            doc::fill(tree, "reclaimPolicy", "Delete");
            doc::fill(tree, "volumeBindingMode", "Immediate");
        }
        ("storage.k8s.io", "CSIDriver") => csi_driver(tree),
        ("scheduling.k8s.io", "PriorityClass") => doc::fill(tree, "preemptionPolicy", "PreemptLowerPriority"),
        ("apiextensions.k8s.io", _) => crd(tree),
        ("apiregistration.k8s.io", _) if doc::has(tree, "spec.service") => doc::fill(tree, "spec.service.port", 443),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            let mutating = kind.starts_with("Mutating");
            doc::items_mut(tree, "webhooks").for_each(|webhook| self::webhook(webhook, mutating));
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") => {
            doc::fill(tree, "spec.failurePolicy", "Fail");
            matching(doc::at_mut(tree, "spec.matchConstraints"));
        }
        ("admissionregistration.k8s.io", _) => matching(doc::at_mut(tree, "spec.matchResources")),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema")
            if doc::int(tree, "spec.matchingPrecedence").unwrap_or(0) == 0 =>
        {
            doc::set(tree, "spec.matchingPrecedence", 1000);
        }
        ("flowcontrol.apiserver.k8s.io", _) => priority_level(tree),
        ("resource.k8s.io", "ResourceClaim") => claim(doc::at_mut(tree, "spec")),
        ("resource.k8s.io", "ResourceClaimTemplate") => claim(doc::at_mut(tree, "spec.spec")),
        _ => {}
    }
}

fn binding(tree: &mut Tree) {
    doc::fill_text(tree, "roleRef.apiGroup", RBAC);
    for subject in doc::items_mut(tree, "subjects") {
        if matches!(doc::text(subject, "kind"), "User" | "Group") {
            doc::fill_text(subject, "apiGroup", RBAC);
        }
    }
}

fn csi_driver(tree: &mut Tree) {
    doc::fill(tree, "spec.attachRequired", true);
    doc::fill(tree, "spec.fsGroupPolicy", "ReadWriteOnceWithFSType");
    doc::fill(tree, "spec.volumeLifecycleModes", json!(["Persistent"]));
    for field in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
        doc::fill(tree, &format!("spec.{field}"), false);
    }
}

fn crd(tree: &mut Tree) {
    let kind = doc::text(tree, "spec.names.kind").to_owned();
    if !kind.is_empty() {
        doc::fill_text(tree, "spec.names.singular", &kind.to_lowercase());
        doc::fill_text(tree, "spec.names.listKind", &format!("{kind}List"));
    }
    doc::fill(tree, "spec.conversion.strategy", "None");
    if doc::has(tree, "spec.conversion.webhook.clientConfig.service") {
        doc::fill(tree, "spec.conversion.webhook.clientConfig.service.port", 443);
    }
    for version in doc::items_mut(tree, "spec.versions") {
        for column in doc::items_mut(version, "additionalPrinterColumns") {
            doc::remove_if(column, "priority", |value| *value == 0);
        }
    }
}

fn webhook(webhook: &mut Tree, mutating: bool) {
    doc::fill(webhook, "failurePolicy", "Fail");
    doc::fill(webhook, "matchPolicy", "Equivalent");
    doc::fill(webhook, "namespaceSelector", json!({}));
    doc::fill(webhook, "objectSelector", json!({}));
    doc::fill(webhook, "timeoutSeconds", 10);
    if mutating {
        doc::fill(webhook, "reinvocationPolicy", "Never");
    }
    for rule in doc::items_mut(webhook, "rules") {
        doc::fill(rule, "scope", "*");
    }
    if doc::has(webhook, "clientConfig.service") {
        doc::fill(webhook, "clientConfig.service.port", 443);
    }
}

fn matching(resources: Option<&mut Tree>) {
    let Some(resources) = resources else { return };
    doc::fill(resources, "matchPolicy", "Equivalent");
    doc::fill(resources, "namespaceSelector", json!({}));
    doc::fill(resources, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in doc::items_mut(resources, list) {
            doc::fill(rule, "scope", "*");
        }
    }
}

fn priority_level(tree: &mut Tree) {
    if doc::has(tree, "spec.limited") {
        doc::fill(tree, "spec.limited.nominalConcurrencyShares", 30);
        doc::fill(tree, "spec.limited.lendablePercent", 0);
        if doc::has(tree, "spec.limited.limitResponse.queuing") {
            for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                doc::fill(tree, &format!("spec.limited.limitResponse.queuing.{field}"), value);
            }
        }
    }
    if doc::has(tree, "spec.exempt") {
        doc::fill(tree, "spec.exempt.nominalConcurrencyShares", 0);
        doc::fill(tree, "spec.exempt.lendablePercent", 0);
    }
}

fn claim(spec: Option<&mut Tree>) {
    let Some(spec) = spec else { return };
    for request in doc::items_mut(spec, "devices.requests").filter(|request| doc::has(request, "exactly")) {
        doc::fill(request, "exactly.allocationMode", "ExactCount");
        if doc::text(request, "exactly.allocationMode") == "ExactCount" {
            doc::fill(request, "exactly.count", 1);
        }
    }
}
