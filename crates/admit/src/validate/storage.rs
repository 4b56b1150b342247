//! PersistentVolumes, their claims and classes.

use api::Tree;

use super::affinity;
use super::pod::one_of;
use crate::causes::{At, Causes};
use crate::doc;
use crate::vocabulary::quantity;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Fields of a volume's spec that are not its source.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeMode",
    "volumeAttributesClassName",
];

pub(super) fn object(kind: &str, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let at = At::of("spec");
    let modes = doc::items(tree, "spec.accessModes");
    if modes.is_empty() {
        causes.required(&at.child("accessModes"), "at least 1 access mode is required");
    }
    for mode in modes.iter().filter(|mode| !mode.as_str().is_some_and(|mode| MODES.contains(&mode))) {
        causes.not_supported(&at.child("accessModes"), mode, &MODES);
    }
    one_of(doc::get(tree, "spec"), "volumeMode", &["Block", "Filesystem"], &at, causes);
    if kind == "PersistentVolume" { volume(tree, old, &at, causes) } else { claim(tree, old, &at, causes) }
}

fn volume(tree: &Tree, old: Option<&Tree>, at: &At, causes: &mut Causes) {
    let spec = doc::get(tree, "spec");
    if !doc::has(spec, "capacity.storage") {
        causes.required(&at.child("capacity"), "");
    }
    one_of(spec, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], at, causes);
    let sources = |spec: &Tree| -> Vec<(String, Tree)> {
        let fields = spec.as_object().into_iter().flatten().filter(|(name, _)| !NOT_SOURCES.contains(&name.as_str()));
        fields.map(|(name, source)| (name.clone(), source.clone())).collect()
    };
    match sources(spec).as_slice() {
        [] => causes.required(at, "must specify a volume type"),
        [(kind, _)] => {
            if kind == "local" && !doc::has(spec, "nodeAffinity.required") {
                causes.required(&at.child("nodeAffinity"), "Local volume requires node affinity");
            }
        }
        [_, rest @ ..] => {
            rest.iter()
                .for_each(|(kind, _)| causes.forbidden(&at.child(kind), "may not specify more than 1 volume type"));
        }
    }
    affinity::node_selector(
        doc::get(spec, "nodeAffinity.required"),
        &at.child("nodeAffinity").child("required"),
        causes,
    );
    let Some(old) = old else { return };
    if sources(spec) != sources(doc::get(old, "spec")) {
        causes
            .forbidden(&at.child("persistentvolumesource"), "spec.persistentvolumesource is immutable after creation");
    }
    if doc::get(old, "spec.volumeMode") != doc::get(spec, "volumeMode") {
        causes.immutable(&at.child("volumeMode"), doc::get(spec, "volumeMode"));
    }
}

fn claim(tree: &Tree, old: Option<&Tree>, at: &At, causes: &mut Causes) {
    let size = doc::get(tree, "spec.resources.requests.storage");
    let at_size = at.child("resources").key("storage");
    if size.is_null() {
        causes.required(&at_size, "");
    } else if quantity(size).nanos <= 0 {
        causes.invalid(&at_size, size, "must be greater than zero");
    }
    let Some(old) = old else { return };
    let bound = doc::text(old, "status.phase") == "Bound";
    let frozen = |tree: &Tree| {
        let mut spec = doc::get(tree, "spec").clone();
        // The binder names the volume once; a bound claim may grow.
        if doc::text(old, "spec.volumeName").is_empty() {
            doc::remove(&mut spec, "volumeName");
        }
        if bound {
            doc::remove(&mut spec, "resources");
            doc::remove(&mut spec, "volumeAttributesClassName");
        }
        if doc::get(old, "spec.storageClassName").is_null() {
            doc::remove(&mut spec, "storageClassName");
        }
        spec
    };
    if frozen(tree) != frozen(old) {
        causes.forbidden(
            at,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let had = doc::get(old, "spec.resources.requests.storage");
    if bound
        && !size.is_null()
        && quantity(size) < quantity(doc::get(old, "status.capacity.storage"))
        && quantity(size) < quantity(had)
    {
        causes.forbidden(
            &at.child("resources").child("requests").child("storage"),
            "field can not be less than status.capacity",
        );
    }
}

/// Kinds of `storage.k8s.io`.
pub(super) fn class(kind: &str, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    if kind != "StorageClass" {
        return;
    }
    if doc::text(tree, "provisioner").is_empty() {
        causes.required(&At::of("provisioner"), "");
    }
    one_of(tree, "reclaimPolicy", &["Delete", "Retain"], &At::root(), causes);
    one_of(tree, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], &At::root(), causes);
    let Some(old) = old else { return };
    for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        if doc::get(tree, field) != doc::get(old, field) {
            match field {
                "volumeBindingMode" => causes.immutable(&At::of(field), doc::get(tree, field)),
                _ => causes.forbidden(&At::of(field), &format!("updates to {field} are forbidden.")),
            }
        }
    }
}
