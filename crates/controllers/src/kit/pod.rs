//! Facts about pods that several controllers ask: is it active, ready, available; which goes first; how one is made.

use std::cmp::Ordering;
use std::sync::Arc;

use api::{Object, Tree};
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, json};

use super::owner;

/// A pod's object beside its typed view.
#[derive(Clone)]
pub struct PodRef {
    pub object: Arc<Object>,
    pub pod: Arc<Pod>,
}

/// Whether a pod has been ready for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Available {
    Yes,
    /// Ready, and available at this time if it stays so.
    At(Timestamp),
    No,
}

// === impl PodRef ===

impl PodRef {
    /// None for a document that is not a pod as this version knows it.
    pub fn of(object: &Arc<Object>) -> Option<PodRef> {
        Some(PodRef { object: object.clone(), pod: object.typed().ok()? })
    }

    pub fn phase(&self) -> &str {
        self.pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
    }

    pub fn finished(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    pub fn terminating(&self) -> bool {
        self.object.header.deletion.is_some()
    }

    /// Counts towards the replicas of its owner.
    pub fn active(&self) -> bool {
        !self.finished() && !self.terminating()
    }

    pub fn node(&self) -> &str {
        self.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
    }

    pub fn condition(&self, name: &str) -> Option<(&str, Option<Timestamp>)> {
        let status = self.pod.status.as_ref()?;
        let found = status.conditions.as_ref()?.iter().find(|condition| condition.type_ == name)?;
        Some((found.status.as_str(), found.last_transition_time.as_ref().map(|time| time.0)))
    }

    pub fn ready(&self) -> bool {
        self.condition("Ready").is_some_and(|(status, _)| status == "True")
    }

    pub fn available(&self, min_ready_seconds: i64, now: Timestamp) -> Available {
        match self.condition("Ready") {
            Some(("True", _)) if min_ready_seconds == 0 => Available::Yes,
            Some(("True", Some(since))) => {
                let at = since + SignedDuration::from_secs(min_ready_seconds);
                if at <= now { Available::Yes } else { Available::At(at) }
            }
            _ => Available::No,
        }
    }

    pub fn restarts(&self) -> i32 {
        let status = self.pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        containers.into_iter().flatten().map(|container| container.restart_count).max().unwrap_or_default()
    }

    fn deletion_cost(&self) -> i32 {
        let annotations = self.pod.metadata.annotations.as_ref();
        let cost = annotations.and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost"));
        cost.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Which of two pods goes first when replicas shrink (`ActivePodsWithRanks`): unbound, pending, not ready, cheap,
    /// crowded (`rank` = siblings on its node), lately ready, often restarted, young.
    pub fn deletion_order(&self, rank: usize, other: &PodRef, other_rank: usize) -> Ordering {
        let phase = |pod: &PodRef| match pod.phase() {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let since = |pod: &PodRef| pod.condition("Ready").and_then(|(_, since)| since);
        let bound = |pod: &PodRef| !pod.node().is_empty();
        let order = bound(self).cmp(&bound(other));
        let order = order.then(phase(self).cmp(&phase(other))).then(self.ready().cmp(&other.ready()));
        let order = order.then(self.deletion_cost().cmp(&other.deletion_cost())).then(other_rank.cmp(&rank));
        let both_ready = self.ready() && other.ready();
        let order = if both_ready { order.then(since(other).cmp(&since(self))) } else { order };
        let order = order.then(other.restarts().cmp(&self.restarts()));
        let created = |pod: &PodRef| pod.object.header.created;
        order.then(created(other).cmp(&created(self))).then_with(|| self.object.key.cmp(&other.object.key))
    }
}

/// `spec.nodeName` of a pod's document.
pub fn node_name(object: &Object) -> SmolStr {
    let pod: Option<Arc<Pod>> = object.typed().ok();
    let name = pod.and_then(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()));
    name.unwrap_or_default().into()
}

/// A pod of a template, owned by `owner`.
pub fn from_template<O: Resource>(owner: &Object, template: &Tree, name: &str) -> Tree {
    let mut meta = Map::new();
    for part in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.get("metadata").and_then(|meta| meta.get(part)) {
            meta.insert(part.to_owned(), value.clone());
        }
    }
    meta.insert("name".to_owned(), json!(name));
    meta.insert("namespace".to_owned(), json!(owner.key.namespace));
    meta.insert("ownerReferences".to_owned(), json!([owner::reference::<O>(owner)]));
    let spec = template.get("spec").cloned().unwrap_or_else(|| json!({}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
}

/// Labels of a template as an ordered map.
pub fn template_labels(template: &Tree) -> std::collections::BTreeMap<SmolStr, SmolStr> {
    let labels = template.pointer("/metadata/labels").and_then(Tree::as_object);
    labels.into_iter().flatten().map(|(name, value)| (name.into(), value.as_str().unwrap_or_default().into())).collect()
}
