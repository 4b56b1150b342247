//! The claims of a StatefulSet's pods: made before the pod, kept or given up with it as the retention policy says.

use api::snapshot::gvr_of;
use api::{Key, Object, Op, Tree};
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;

use super::{Set, Work};
use crate::kit::op;
use crate::kit::value::{list, text};

impl Set<'_> {
    /// `data-web-0`.
    pub(super) fn claim_name(&self, template: &Tree, ordinal: i64) -> String {
        format!("{}-{}-{ordinal}", text(template, "/metadata/name"), self.object.key.name)
    }

    pub(super) fn missing_claims(&self, ordinal: i64) -> Vec<Op> {
        let existing = self.snapshot.of::<PersistentVolumeClaim>();
        let namespace = &self.object.key.namespace;
        let mut ops = vec![];
        for template in list(&self.tree, "/spec/volumeClaimTemplates") {
            let name = self.claim_name(template, ordinal);
            if existing.get(&Key::new(namespace, &name)).is_some() {
                continue;
            }
            let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
            let chosen = self.tree.pointer("/spec/selector/matchLabels").and_then(Tree::as_object);
            for (key, value) in chosen.into_iter().flatten() {
                labels[key.as_str()] = value.clone();
            }
            let mut meta = json!({"name": name, "namespace": namespace, "labels": labels});
            if let Some(annotations) = template.pointer("/metadata/annotations") {
                meta["annotations"] = annotations.clone();
            }
            if self.policy("whenDeleted") == "Delete" {
                meta["ownerReferences"] = json!([self.reference()]);
            }
            let spec = template.get("spec").cloned().unwrap_or_default();
            let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec});
            ops.push(op::create::<PersistentVolumeClaim>(namespace, claim));
        }
        ops
    }

    fn policy(&self, when: &str) -> &str {
        text(&self.tree, &format!("/spec/persistentVolumeClaimRetentionPolicy/{when}"))
    }

    fn reference(&self) -> Tree {
        json!({
            "apiVersion": StatefulSet::API_VERSION, "kind": StatefulSet::KIND, "name": self.object.key.name,
            "uid": self.object.header.uid,
        })
    }

    /// Makes claims depend on the set (deleted with it) or on a condemned pod (deleted after it), or on neither.
    pub(super) fn retain_claims(&self, work: &mut Work) {
        let claims = self.snapshot.of::<PersistentVolumeClaim>();
        let with_set = self.policy("whenDeleted") == "Delete";
        let with_pod = self.policy("whenScaled") == "Delete";
        for (ordinal, pod) in &self.pods {
            for template in list(&self.tree, "/spec/volumeClaimTemplates") {
                let key = Key::new(&self.object.key.namespace, &self.claim_name(template, *ordinal));
                let Some(claim) = claims.get(&key) else { continue };
                let condemned = !self.range().contains(ordinal);
                let mut wanted = vec![];
                if with_pod && condemned {
                    wanted.push(json!({
                        "apiVersion": Pod::API_VERSION, "kind": Pod::KIND, "name": pod.object.key.name,
                        "uid": pod.object.header.uid,
                    }));
                } else if with_set {
                    wanted.push(self.reference());
                }
                work.claims.extend(self.own(claim, &pod.object, wanted));
            }
        }
    }

    /// Replaces the set's and the pod's references among a claim's owners.
    fn own(&self, claim: &Object, pod: &Object, wanted: Vec<Tree>) -> Option<Op> {
        let ours = |uid: &str| uid == self.object.header.uid || uid == pod.header.uid;
        let tree = claim.tree();
        let before = list(&tree, "/metadata/ownerReferences");
        let mut after: Vec<Tree> = before.iter().filter(|owner| !ours(text(owner, "/uid"))).cloned().collect();
        let uids = |owners: &[Tree]| owners.iter().map(|owner| text(owner, "/uid").to_owned()).collect::<Vec<_>>();
        after.extend(wanted);
        if uids(&after) == uids(before) {
            return None;
        }
        let after = if after.is_empty() { Tree::Null } else { json!(after) };
        let body = json!({"metadata": {"ownerReferences": after}});
        Some(op::merge_if_unchanged(&gvr_of::<PersistentVolumeClaim>(), claim, body))
    }
}
