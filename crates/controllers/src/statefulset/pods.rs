//! How a pod of an ordinal looks, and which revision it is made from.

use api::Tree;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{Set, Work};
use crate::kit::op;
use crate::kit::pod::from_template;
use crate::kit::revision::HASH_LABEL;
use crate::kit::value::{int, list, text};

impl Set<'_> {
    /// Ordinals below this keep the current revision when they must be made anew.
    pub(super) fn partition(&self) -> i64 {
        int(&self.tree, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or_default()
    }

    fn keeps_current(&self, ordinal: i64) -> bool {
        if text(&self.tree, "/spec/updateStrategy/type") == "OnDelete" || self.current == self.history.update {
            return false;
        }
        match self.partition() {
            // A rollout in its way: what has not been reached yet is still of the current revision.
            0 => ordinal < self.start + int(&self.tree, "/status/currentReplicas").unwrap_or_default(),
            partition => ordinal < self.start + partition,
        }
    }

    /// Template and revision name for a new pod of this ordinal.
    fn template(&self, ordinal: i64) -> (Tree, &str) {
        let old = self.history.all.iter().find(|revision| revision.name() == self.current);
        match old.filter(|_| self.keeps_current(ordinal)) {
            Some(revision) => (revision.template(), &self.current),
            None => (self.tree.pointer("/spec/template").cloned().unwrap_or_default(), &self.history.update),
        }
    }

    pub(super) fn create(&self, ordinal: i64, work: &mut Work) {
        let (template, revision) = self.template(ordinal);
        let name = format!("{}-{ordinal}", self.object.key.name);
        let mut pod = from_template::<StatefulSet>(self.object, &template, &name);
        let labels = &mut pod["metadata"]["labels"];
        labels["statefulset.kubernetes.io/pod-name"] = json!(name);
        labels["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
        labels[HASH_LABEL] = json!(revision);
        pod["spec"]["hostname"] = json!(name);
        let service = text(&self.tree, "/spec/serviceName");
        if !service.is_empty() {
            pod["spec"]["subdomain"] = json!(service);
        }
        self.mount_claims(&mut pod["spec"], ordinal);
        work.claims.extend(self.missing_claims(ordinal));
        let message = format!("create Pod {name} in StatefulSet {} successful", self.object.key.name);
        work.events.push(op::event::<StatefulSet>(self.object, "SuccessfulCreate", message));
        work.ops.push(op::create::<Pod>(&self.object.key.namespace, pod));
    }

    /// A volume per claim template, in place of one of the same name in the template.
    fn mount_claims(&self, spec: &mut Tree, ordinal: i64) {
        let mut volumes: Vec<Tree> = list(spec, "/volumes").to_vec();
        for claim in list(&self.tree, "/spec/volumeClaimTemplates") {
            let volume = text(claim, "/metadata/name");
            volumes.retain(|other| text(other, "/name") != volume);
            let name = self.claim_name(claim, ordinal);
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": name}}));
        }
        if !volumes.is_empty() {
            spec["volumes"] = json!(volumes);
        }
    }
}
