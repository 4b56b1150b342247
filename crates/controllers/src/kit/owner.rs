//! Ownership: controller references, adoption of matching orphans, release of what no longer matches.

use std::sync::Arc;

use api::{LabelSelector, Object, Op, Stream, Tree};
use k8s_openapi::Resource;
use serde_json::json;

use super::keys::ORPHAN;
use super::op;

/// The `ownerReferences` entry that makes `owner` the controller of a child.
pub fn reference<T: Resource>(owner: &Object) -> Tree {
    json!({
        "apiVersion": T::API_VERSION, "kind": T::KIND, "name": owner.key.name, "uid": owner.header.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Children of an owner as they are after the operations have run.
pub struct Claim {
    /// Owned now, or adopted by `ops`; without those that `ops` release.
    pub owned: Vec<Arc<Object>>,
    pub ops: Vec<Op>,
}

/// Claims children of type `C` for an owner of type `O`. `adoptable` says which orphans may be taken.
pub fn claim<O: Resource, C: Resource>(
    owner: &Object,
    selector: &LabelSelector,
    children: &Stream,
    adoptable: impl Fn(&Object) -> bool,
) -> Claim {
    let mut claim = Claim { owned: Vec::new(), ops: Vec::new() };
    let leaving = owner.header.deletion.is_some();
    for child in children.by("controller", &owner.header.uid) {
        // A child that is going keeps its owner: releasing it would change nothing but its events.
        if selector.matches(&child.header.labels) || leaving || child.header.deletion.is_some() {
            claim.owned.push(child.clone());
        } else {
            let drop = json!({"$patch": "delete", "uid": owner.header.uid});
            claim.ops.push(op::strategic::<C>(child, None, json!({"metadata": {"ownerReferences": [drop]}})));
        }
    }
    if leaving || selector.is_empty() {
        return claim;
    }
    for orphan in children.by(ORPHAN.name, &owner.key.namespace) {
        let ours = selector.matches(&orphan.header.labels) && orphan.header.deletion.is_none() && adoptable(orphan);
        if ours {
            let body = json!({"metadata": {"ownerReferences": [reference::<O>(owner)]}});
            claim.ops.push(op::strategic::<C>(orphan, None, body));
            claim.owned.push(orphan.clone());
        }
    }
    claim
}
