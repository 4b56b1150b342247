//! One ReplicaSet of a Deployment: what it is and what a plan wants of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Object, Op, Tree};
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Map, json};

use super::Rollout;
use crate::kit::op;
use crate::kit::value::{annotation, canonical, int};

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its sets do not inherit.
const PRIVATE: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// Longest `revision-history` annotation.
const HISTORY_LENGTH_MAX: usize = 2000;

pub struct Set {
    pub object: Arc<Object>,
    pub tree: Tree,
    /// Wanted; starts as it is.
    pub replicas: i64,
    /// Wanted changes of annotations.
    pub annotations: BTreeMap<String, String>,
    pub min_ready_seconds: Option<i64>,
    /// The template without its hash label, in canonical form.
    pub comparable: Tree,
}

/// A template as templates are compared: canonical, without `pod-template-hash`.
pub fn comparable(template: Option<&Tree>) -> Tree {
    let mut template = canonical(template.unwrap_or(&Tree::Null));
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Tree::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    template
}

impl Set {
    pub fn new(object: &Arc<Object>) -> Set {
        let tree = object.tree();
        Set {
            object: object.clone(),
            replicas: int(&tree, "/spec/replicas").unwrap_or(1),
            annotations: BTreeMap::new(),
            min_ready_seconds: None,
            comparable: comparable(tree.pointer("/spec/template")),
            tree,
        }
    }

    pub fn spec_replicas(&self) -> i64 {
        int(&self.tree, "/spec/replicas").unwrap_or(1)
    }

    pub fn count(&self, field: &str) -> i64 {
        self.tree.get("status").and_then(|status| status.get(field)).and_then(Tree::as_i64).unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        let wanted = self.annotations.get(name).map(String::as_str);
        wanted.or_else(|| annotation(&self.tree, name))?.parse().ok()
    }

    pub fn revision(&self) -> i64 {
        self.number(REVISION).unwrap_or_default()
    }

    pub fn is_settled_empty(&self) -> bool {
        let observed = self.count("observedGeneration") >= self.object.header.generation;
        self.count("replicas") == 0 && self.spec_replicas() == 0 && observed && self.object.header.deletion.is_none()
    }

    /// One patch with all that differs.
    pub fn change(&self) -> Option<Op> {
        let mut body = Map::new();
        let differs = |(name, value): &(&String, &String)| annotation(&self.tree, name) != Some(value.as_str());
        let annotations: BTreeMap<_, _> = self.annotations.iter().filter(differs).collect();
        if !annotations.is_empty() {
            body.insert("metadata".to_owned(), json!({ "annotations": annotations }));
        }
        let mut spec = Map::new();
        if self.replicas != self.spec_replicas() {
            spec.insert("replicas".to_owned(), json!(self.replicas));
        }
        let before = int(&self.tree, "/spec/minReadySeconds").unwrap_or_default();
        if let Some(seconds) = self.min_ready_seconds.filter(|seconds| *seconds != before) {
            spec.insert("minReadySeconds".to_owned(), json!(seconds));
        }
        if !spec.is_empty() {
            body.insert("spec".to_owned(), Tree::Object(spec));
        }
        (!body.is_empty()).then(|| op::merge::<ReplicaSet>(&self.object, Tree::Object(body)))
    }

    pub fn scale_message(&self) -> Option<String> {
        let (from, to) = (self.spec_replicas(), self.replicas);
        let way = if from < to { "up" } else { "down" };
        (from != to).then(|| format!("Scaled {way} replica set {} from {from} to {to}", self.object.key.name))
    }
}

impl Rollout<'_> {
    pub fn newest_old_revision(&self) -> i64 {
        self.old().map(|at| self.sets[at].revision()).max().unwrap_or_default()
    }

    pub fn inherited_annotations(&self) -> BTreeMap<String, String> {
        let all = self.tree.pointer("/metadata/annotations").and_then(Tree::as_object);
        let public = all.into_iter().flatten().filter(|(name, _)| !PRIVATE.contains(&name.as_str()));
        public.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    }

    /// Gives the current set the newest revision and the Deployment's annotations, and its own where it scales.
    pub fn sync_revision(&mut self) {
        let newest = self.newest_old_revision() + 1;
        let mut wanted = self.inherited_annotations();
        let min_ready = int(self.tree, "/spec/minReadySeconds").unwrap_or_default();
        let Some(set) = self.current.map(|at| &mut self.sets[at]) else { return };
        let before = set.revision();
        if before < newest {
            if before > 0 {
                let history = annotation(&set.tree, HISTORY).unwrap_or_default();
                let mut line = if history.is_empty() { before.to_string() } else { format!("{history},{before}") };
                while line.len() > HISTORY_LENGTH_MAX {
                    line = line.split_once(',').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
                }
                wanted.insert(HISTORY.to_owned(), line);
            }
            wanted.insert(REVISION.to_owned(), newest.to_string());
        }
        set.annotations.extend(wanted);
        set.min_ready_seconds = Some(min_ready);
    }

    /// Marks a set with the size this scaling was made for; a later difference is how a person's scaling is seen.
    pub fn annotate_size(&mut self, at: usize) {
        let (desired, max) = (self.replicas, self.replicas + self.surge);
        let set = &mut self.sets[at];
        set.annotations.insert(DESIRED.to_owned(), desired.to_string());
        set.annotations.insert(MAX.to_owned(), max.to_string());
    }
}
