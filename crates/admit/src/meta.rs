//! `metadata`: what the server sets, what it keeps, what it checks, on creation and on update.

use std::collections::BTreeSet;

use api::{Status, Tree};
use base::Revision;

use crate::causes::{At, Causes};
use crate::context::{Cx, MODIFIED, Old, bad_request};
use crate::{doc, names};

/// All annotations of one object together (upstream's `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// Names, namespace and system fields of a new object.
///
/// # Errors
/// A name or namespace that contradicts the URL; no name at all.
pub(crate) fn begin_create(cx: &Cx<'_>, tree: &mut Tree) -> Result<(), Status> {
    doc::object_mut(tree, "metadata");
    settle_namespace(cx, tree)?;
    let name = doc::text(tree, "metadata.name").to_owned();
    if !cx.request.name.is_empty() && !name.is_empty() && cx.request.name != name {
        return Err(name_mismatch(&name, &cx.request.name));
    }
    if name.is_empty() && !cx.request.name.is_empty() {
        doc::set(tree, "metadata.name", cx.request.name.as_str());
    } else if name.is_empty() {
        let prefix = doc::text(tree, "metadata.generateName").to_owned();
        if prefix.is_empty() {
            let mut causes = Causes::default();
            causes.required(&At::of("metadata.name"), "name or generateName is required");
            return Err(cx.invalid("", causes.into_vec()));
        }
        doc::set(tree, "metadata.name", names::generate(&prefix, cx.ports.rng));
    }
    if !doc::text(tree, "metadata.resourceVersion").is_empty() {
        return Err(bad_request("resourceVersion should not be set on objects to be created"));
    }
    for gone in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        doc::remove(tree, &format!("metadata.{gone}"));
    }
    doc::set(tree, "metadata.uid", names::uid(cx.ports.rng));
    doc::set(tree, "metadata.creationTimestamp", cx.stamp());
    Ok(())
}

/// What an update may not change is taken from the state it replaces.
///
/// # Errors
/// A name, uid or version that contradicts the URL or the state.
pub(crate) fn begin_update(cx: &Cx<'_>, tree: &mut Tree, old: &Old) -> Result<(), Status> {
    doc::object_mut(tree, "metadata");
    settle_namespace(cx, tree)?;
    let name = doc::text(tree, "metadata.name").to_owned();
    if name.is_empty() {
        doc::set(tree, "metadata.name", cx.request.name.as_str());
    } else if name != cx.request.name {
        return Err(name_mismatch(&name, &cx.request.name));
    }
    check_revision(cx, tree, old)?;
    let (uid, have) = (doc::text(tree, "metadata.uid"), doc::text(&old.tree, "metadata.uid"));
    if !uid.is_empty() && uid != have {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}");
        return Err(cx.conflict(&cx.request.name, &why));
    }
    for kept in KEPT_ON_UPDATE {
        doc::copy(&old.tree, tree, &format!("metadata.{kept}"));
    }
    doc::remove(tree, "metadata.selfLink");
    Ok(())
}

const KEPT_ON_UPDATE: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName"];

fn check_revision(cx: &Cx<'_>, tree: &Tree, old: &Old) -> Result<(), Status> {
    let sent = doc::text(tree, "metadata.resourceVersion");
    if sent.is_empty() || sent == "0" {
        if needs_revision(cx) && matches!(cx.request.verb, crate::WriteVerb::Update(_)) {
            let mut causes = Causes::default();
            let at = At::of("metadata.resourceVersion");
            causes.push("FieldValueInvalid", &at, "Invalid value: 0: must be specified for an update".to_owned());
            return Err(cx.invalid(&cx.request.name, causes.into_vec()));
        }
        return Ok(());
    }
    match sent.parse::<Revision>() {
        Ok(revision) if revision == old.revision => Ok(()),
        Ok(_) => Err(cx.conflict(&cx.request.name, MODIFIED)),
        Err(_) => {
            let mut causes = Causes::default();
            causes.invalid_text(&At::of("metadata.resourceVersion"), sent, "must be a decimal number");
            Err(cx.invalid(&cx.request.name, causes.into_vec()))
        }
    }
}

/// Kinds that refuse an unconditional PUT (upstream's `AllowUnconditionalUpdate` is false).
fn needs_revision(cx: &Cx<'_>) -> bool {
    const STRICT: [&str; 13] = [
        "apiextensions.k8s.io/CustomResourceDefinition",
        "apiregistration.k8s.io/APIService",
        "coordination.k8s.io/Lease",
        "policy/PodDisruptionBudget",
        "storage.k8s.io/CSINode",
        "storage.k8s.io/CSIDriver",
        "storage.k8s.io/VolumeAttachment",
        "node.k8s.io/RuntimeClass",
        "admissionregistration.k8s.io/MutatingWebhookConfiguration",
        "admissionregistration.k8s.io/ValidatingWebhookConfiguration",
        "admissionregistration.k8s.io/ValidatingAdmissionPolicy",
        "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding",
        "storage.k8s.io/CSIStorageCapacity",
    ];
    cx.kind.custom || STRICT.contains(&format!("{}/{}", cx.kind.gvk.group, cx.kind.gvk.kind).as_str())
}

fn settle_namespace(cx: &Cx<'_>, tree: &mut Tree) -> Result<(), Status> {
    let want = if cx.kind.is_namespaced() { cx.request.namespace.as_str() } else { "" };
    let have = doc::text(tree, "metadata.namespace");
    if have == want {
        return Ok(());
    }
    if !have.is_empty() {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(bad_request(message));
    }
    doc::set(tree, "metadata.namespace", want);
    Ok(())
}

fn name_mismatch(body: &str, url: &str) -> Status {
    bad_request(format!("the name of the object ({body}) does not match the name on the URL ({url})"))
}

/// Kinds whose objects count their generations.
pub(crate) fn has_generation(cx: &Cx<'_>) -> bool {
    const WITHOUT: [&str; 24] = [
        "/ConfigMap",
        "/Secret",
        "/ServiceAccount",
        "/Service",
        "/Endpoints",
        "/Event",
        "/Namespace",
        "/Node",
        "/PersistentVolume",
        "/PersistentVolumeClaim",
        "/LimitRange",
        "/ResourceQuota",
        "events.k8s.io/Event",
        "coordination.k8s.io/Lease",
        "storage.k8s.io/StorageClass",
        "storage.k8s.io/CSINode",
        "storage.k8s.io/VolumeAttachment",
        "certificates.k8s.io/CertificateSigningRequest",
        "node.k8s.io/RuntimeClass",
        "networking.k8s.io/IPAddress",
        "networking.k8s.io/ServiceCIDR",
        "apiregistration.k8s.io/APIService",
        "storage.k8s.io/CSIStorageCapacity",
        "/ComponentStatus",
    ];
    let group = cx.kind.gvk.group.as_str();
    group != "rbac.authorization.k8s.io" && !WITHOUT.contains(&format!("{group}/{}", cx.kind.gvk.kind).as_str())
}

/// True when something beside metadata and status differs: what a generation counts.
pub(crate) fn desired_differs(cx: &Cx<'_>, new: &Tree, old: &Tree) -> bool {
    let status_apart = !cx.kind.custom || cx.kind.subresource("status").is_some();
    let desired = |tree: &Tree| -> Tree {
        let mut tree = tree.clone();
        if let Some(object) = tree.as_object_mut() {
            object.remove("metadata");
            if status_apart {
                object.remove("status");
            }
        }
        tree
    };
    desired(new) != desired(old)
}

/// Checks metadata (`ValidateObjectMeta`, `ValidateObjectMetaUpdate`).
pub(crate) fn validate(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let at = At::of("metadata");
    let name = doc::text(tree, "metadata.name");
    if old.is_none() {
        for rule in name_rule(cx)(name) {
            causes.invalid_text(&at.child("name"), name, &rule);
        }
        for rule in if cx.kind.is_namespaced() { names::label(&cx.request.namespace) } else { Vec::new() } {
            causes.invalid_text(&at.child("namespace"), &cx.request.namespace, &rule);
        }
    }
    labels(doc::get(tree, "metadata.labels"), &at.child("labels"), causes);
    annotations(doc::get(tree, "metadata.annotations"), &at.child("annotations"), causes);
    owners(tree, &at.child("ownerReferences"), causes);
    finalizers(cx, tree, old, &at.child("finalizers"), causes);
}

pub(crate) fn labels(labels: &Tree, at: &At, causes: &mut Causes) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        for rule in names::qualified(key) {
            causes.invalid_text(at, key, &rule);
        }
        let value = value.as_str().unwrap_or_default();
        for rule in names::label_value(value) {
            causes.invalid_text(at, value, &rule);
        }
    }
}

fn annotations(annotations: &Tree, at: &At, causes: &mut Causes) {
    let mut total = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        for rule in names::qualified(&key.to_lowercase()) {
            causes.invalid_text(at, key, &rule);
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS_BYTES_MAX {
        causes.too_long(at, ANNOTATIONS_BYTES_MAX);
    }
}

fn owners(tree: &Tree, at: &At, causes: &mut Causes) {
    let mut controllers = Vec::new();
    for (index, owner) in doc::items(tree, "metadata.ownerReferences").iter().enumerate() {
        let at = at.index(index);
        let version = doc::text(owner, "apiVersion");
        if version.is_empty() || api::Gvk::parse(version, "x").is_none() {
            causes.invalid_text(&at.child("apiVersion"), version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if doc::text(owner, field).is_empty() {
                causes.invalid_text(&at.child(field), "", "must not be empty");
            }
        }
        if version == "v1" && doc::text(owner, "kind") == "Event" {
            causes.invalid(&at, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if doc::is_true(owner, "controller") {
            controllers.push(owner);
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
            doc::text(first, "name"),
            doc::text(second, "name")
        );
        causes.invalid(at, doc::get(tree, "metadata.ownerReferences"), &detail);
    }
}

fn finalizers(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, at: &At, causes: &mut Causes) {
    let all: Vec<&str> = doc::items(tree, "metadata.finalizers").iter().filter_map(Tree::as_str).collect();
    for (index, finalizer) in all.iter().enumerate() {
        for rule in names::qualified(finalizer) {
            causes.invalid_text(&at.index(index), finalizer, &rule);
        }
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.invalid(at, doc::get(tree, "metadata.finalizers"), detail);
    }
    let Some(old) = old.filter(|old| doc::has(old, "metadata.deletionTimestamp")) else { return };
    let had: BTreeSet<&str> = doc::items(old, "metadata.finalizers").iter().filter_map(Tree::as_str).collect();
    let new: Vec<String> = all.iter().filter(|name| !had.contains(**name)).map(|name| format!("{name:?}")).collect();
    if !new.is_empty() && cx.sub().is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            new.join(", ")
        );
        causes.forbidden(at, &detail);
    }
}

/// How objects of a kind may be called.
fn name_rule(cx: &Cx<'_>) -> fn(&str) -> names::Wrong {
    let (group, kind) = (cx.kind.gvk.group.as_str(), cx.kind.gvk.kind.as_str());
    match (group, kind) {
        ("", "Namespace") => names::label,
        ("", "Service") => names::label_1035,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        ("certificates.k8s.io", _) | ("apiregistration.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "IPAddress") => names::path_segment,
        _ => names::subdomain,
    }
}
