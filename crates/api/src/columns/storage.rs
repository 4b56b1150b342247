//! Volumes, claims, classes, devices.

use serde_json::json;

use super::{NONE, or, plain, size, texts};
use crate::{Tree, meta};

/// `RWO,RWX` for the modes of a volume.
fn access_modes(modes: &[Tree]) -> String {
    let modes = texts(modes);
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let held = short.iter().filter(|(long, _)| modes.contains(long)).map(|(_, short)| *short);
    held.collect::<Vec<_>>().join(",")
}

fn class_of(object: &Tree) -> String {
    let annotation = meta::annotation(object, "volume.beta.kubernetes.io/storage-class");
    annotation.unwrap_or_else(|| meta::str_at(object, "spec.storageClassName")).to_owned()
}

fn attributes_class(object: &Tree) -> &str {
    or(meta::str_at(object, "spec.volumeAttributesClassName"), "<unset>")
}

fn phase(object: &Tree) -> &str {
    if meta::deletion_timestamp(object).is_empty() { meta::str_at(object, "status.phase") } else { "Terminating" }
}

fn mode(object: &Tree) -> &str {
    or(meta::str_at(object, "spec.volumeMode"), "<unset>")
}

/// Capacity, Access Modes, Status, Claim, StorageClass, VolumeAttributesClass, VolumeMode.
pub(super) fn volume(object: &Tree) -> Vec<Tree> {
    let claim = meta::tree_at(object, "spec.claimRef").map_or_else(String::new, |claim| {
        format!("{}/{}", meta::str_at(claim, "namespace"), meta::str_at(claim, "name"))
    });
    vec![
        json!(meta::tree_at(object, "spec.capacity.storage").map_or_else(|| "0".to_owned(), plain)),
        json!(access_modes(meta::list_at(object, "spec.accessModes"))),
        json!(phase(object)),
        json!(claim),
        json!(class_of(object)),
        json!(attributes_class(object)),
        json!(mode(object)),
    ]
}

/// Status, Capacity, Access Modes, StorageClass, VolumeAttributesClass, VolumeMode.
pub(super) fn claim(object: &Tree) -> Vec<Tree> {
    let bound = !meta::str_at(object, "spec.volumeName").is_empty();
    let capacity = meta::tree_at(object, "status.capacity.storage").filter(|_| bound).map(plain);
    let modes = if bound { access_modes(meta::list_at(object, "status.accessModes")) } else { String::new() };
    vec![
        json!(phase(object)),
        json!(capacity.unwrap_or_default()),
        json!(modes),
        json!(class_of(object)),
        json!(attributes_class(object)),
        json!(mode(object)),
    ]
}

/// ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion. The default class is marked in its name by [`class_name`].
pub(super) fn class(object: &Tree) -> Vec<Tree> {
    vec![
        json!(or(meta::str_at(object, "reclaimPolicy"), "Delete")),
        json!(or(meta::str_at(object, "volumeBindingMode"), "Immediate")),
        json!(meta::bool_at(object, "allowVolumeExpansion")),
    ]
}

/// `standard (default)`: the default class says so beside its name.
pub(super) fn class_name(object: &Tree) -> String {
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let default = marks.iter().any(|mark| meta::annotation(object, mark) == Some("true"));
    format!("{}{}", meta::name(object), if default { " (default)" } else { "" })
}

/// TokenRequests, Modes.
pub(super) fn driver(object: &Tree) -> Vec<Tree> {
    let audiences = meta::list_at(object, "spec.tokenRequests").iter().map(|one| meta::str_at(one, "audience"));
    let audiences: Vec<&str> = audiences.collect();
    let modes = texts(meta::list_at(object, "spec.volumeLifecycleModes")).join(",");
    vec![json!(or(&audiences.join(","), "<unset>")), json!(or(&modes, NONE))]
}

/// PV, Attached.
pub(super) fn attachment(object: &Tree) -> Vec<Tree> {
    vec![
        json!(meta::str_at(object, "spec.source.persistentVolumeName")),
        json!(meta::bool_at(object, "status.attached")),
    ]
}

/// State.
pub(super) fn resource_claim(object: &Tree) -> Vec<Tree> {
    let mut states = Vec::new();
    if !meta::deletion_timestamp(object).is_empty() {
        states.push("deleted");
    }
    if size(object, "status.allocation") == 0 {
        states.push("pending");
    } else {
        states.push("allocated");
        states.push(if meta::list_at(object, "status.reservedFor").is_empty() { "" } else { "reserved" });
    }
    states.retain(|state| !state.is_empty());
    vec![json!(states.join(","))]
}
