//! Persistent volumes: bound to claims, protected while in use, made on demand, released and reclaimed.

mod binder;
mod local_path;
mod protection;
mod reclaim;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use api::{Index, Key, Object, Snapshot, Tree};
use base::{SmolStr, format_smolstr};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::kit::value::{annotation, text};

pub use binder::{claims, volumes};
pub use local_path::{classes, provisioner};
pub use protection::{claim_protection, volume_protection};
pub use reclaim::reclaimer;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// Volumes by the claim they are reserved for: `namespace/name`.
const BY_CLAIM: Index = Index {
    name: "claim",
    words: |object| {
        let tree = object.tree();
        let name = text(&tree, "/spec/claimRef/name");
        let key = format_smolstr!("{}/{name}", text(&tree, "/spec/claimRef/namespace"));
        if name.is_empty() { vec![] } else { vec![key] }
    },
};

/// A claim's class; None where it names none, empty where it wants none.
fn class_of(claim: &Tree) -> Option<SmolStr> {
    let legacy = annotation(claim, "volume.beta.kubernetes.io/storage-class");
    let named = claim.pointer("/spec/storageClassName").and_then(Tree::as_str);
    legacy.or(named).map(SmolStr::from)
}

/// The class of claims that name none: of several defaults the newest, then the first by name.
fn default_class(snapshot: &Snapshot) -> Option<SmolStr> {
    const MARK: &str = "storageclass.kubernetes.io/is-default-class";
    let classes = snapshot.of::<StorageClass>();
    let defaults = classes.iter().filter(|class| annotation(&class.tree(), MARK) == Some("true"));
    let newest = defaults.min_by_key(|class| (Reverse(class.header.created), class.key.clone()));
    newest.map(|class| class.key.name.clone())
}

/// The claim a volume is reserved for.
fn reserved_for(volume: &Tree) -> Option<(Key, SmolStr)> {
    let reference = volume.pointer("/spec/claimRef")?;
    let key = Key::new(text(reference, "/namespace"), text(reference, "/name"));
    Some((key, text(reference, "/uid").into()))
}

fn is_reserved_for(volume: &Tree, claim: &Object) -> bool {
    reserved_for(volume).is_some_and(|(key, uid)| key == claim.key && (uid.is_empty() || uid == claim.header.uid))
}
