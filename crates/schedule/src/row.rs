//! Compact rows of pods and nodes: what scheduling needs of them, and no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::fit::{self, Amounts, HostPort, Labels, NodeTerm, Taint, Toleration, parse_selector};
use api::{Key, Object};
use base::SmolStr;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use crate::rules::{PodTerm, Spread};

/// A pod, bound or not.
#[derive(Clone, Debug)]
pub struct PodRow {
    pub key: Key,
    pub uid: SmolStr,
    pub generation: i64,
    pub labels: Labels,
    /// Uid of the controller that owns it.
    pub owner: SmolStr,
    /// Empty until bound.
    pub node: SmolStr,
    pub nominated: SmolStr,
    pub scheduler: SmolStr,
    pub gated: bool,
    pub terminating: bool,
    pub finished: bool,
    pub started: Option<Timestamp>,
    pub priority: i32,
    pub preempts: bool,
    pub requests: Amounts,
    pub ports: Vec<HostPort>,
    pub images: Vec<SmolStr>,
    pub tolerations: Vec<Toleration>,
    pub node_selector: Labels,
    pub node_required: Option<Vec<NodeTerm>>,
    pub node_preferred: Vec<(i64, NodeTerm)>,
    pub affinity: Vec<PodTerm>,
    pub affinity_preferred: Vec<PodTerm>,
    pub anti: Vec<PodTerm>,
    pub anti_preferred: Vec<PodTerm>,
    pub spread: Vec<Spread>,
    /// Names of its claims in its namespace.
    pub claims: Vec<SmolStr>,
    /// Status and message of its `PodScheduled` condition.
    pub told: Option<(SmolStr, String)>,
}

/// A node and what runs on it.
#[derive(Clone, Debug, Default)]
pub struct NodeRow {
    pub name: SmolStr,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    /// Image name -> bytes.
    pub images: BTreeMap<SmolStr, i64>,
    /// By uid: bound and assumed pods that have not ended.
    pub pods: BTreeMap<SmolStr, Arc<PodRow>>,
    pub used: Amounts,
    /// As [`for_score`] counts.
    pub used_for_score: (i64, i64),
}

impl PodRow {
    /// None for a document that is not a pod as this version knows it.
    pub fn parse(object: &Object) -> Option<PodRow> {
        // Not through the object's typed cell: a row replaces the typed view, it should not stay in memory.
        let pod: core::Pod = serde_json::from_slice(&object.bytes).ok()?;
        let (requests, ports) = (fit::requests(&pod), fit::host_ports(&pod));
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let labels = object.header.labels.clone();
        let namespace = &object.key.namespace;
        let affinity = spec.affinity.clone().unwrap_or_default();
        let (with, without) =
            (affinity.pod_affinity.unwrap_or_default(), affinity.pod_anti_affinity.unwrap_or_default());
        let nodes = affinity.node_affinity.unwrap_or_default();
        let term = |term: &core::PodAffinityTerm| PodTerm::parse(term, 0, namespace, &labels);
        let weighted = |term: &core::WeightedPodAffinityTerm| {
            PodTerm::parse(&term.pod_affinity_term, term.weight, namespace, &labels)
        };
        let text = |text: &Option<String>| SmolStr::from(text.as_deref().unwrap_or_default());
        let preferred = nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let conditions = status.conditions.iter().flatten();
        let told = conditions
            .filter(|condition| condition.type_ == "PodScheduled")
            .map(|condition| (condition.status.as_str().into(), condition.message.clone().unwrap_or_default()));
        Some(PodRow {
            key: object.key.clone(),
            uid: object.header.uid.clone(),
            generation: object.header.generation,
            owner: object.header.controller().map(|owner| owner.uid.clone()).unwrap_or_default(),
            node: text(&spec.node_name),
            nominated: text(&status.nominated_node_name),
            scheduler: spec.scheduler_name.as_deref().unwrap_or("default-scheduler").into(),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            terminating: object.header.deletion.is_some(),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            started: status.start_time.as_ref().map(|time| time.0),
            priority: spec.priority.unwrap_or_default(),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            requests,
            ports,
            images: spec.containers.iter().map(|container| text(&container.image)).collect(),
            tolerations: spec.tolerations.iter().flatten().map(Toleration::parse).collect(),
            node_selector: spec.node_selector.iter().flatten().map(|(k, v)| (k.into(), v.into())).collect(),
            node_required: parse_selector(nodes.required_during_scheduling_ignored_during_execution.as_ref()),
            node_preferred: preferred.map(|term| (i64::from(term.weight), NodeTerm::parse(&term.preference))).collect(),
            affinity: with.required_during_scheduling_ignored_during_execution.iter().flatten().map(term).collect(),
            affinity_preferred: with
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .map(weighted)
                .collect(),
            anti: without.required_during_scheduling_ignored_during_execution.iter().flatten().map(term).collect(),
            anti_preferred: without
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .map(weighted)
                .collect(),
            spread: spec.topology_spread_constraints.iter().flatten().map(|one| Spread::parse(one, &labels)).collect(),
            claims: claims(&spec, &object.key),
            told: told.into_iter().next(),
            labels,
        })
    }
}

fn claims(spec: &core::PodSpec, pod: &Key) -> Vec<SmolStr> {
    let one = |volume: &core::Volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(SmolStr::from(&claim.claim_name));
        }
        volume.ephemeral.as_ref().map(|_| base::format_smolstr!("{}-{}", pod.name, volume.name))
    };
    spec.volumes.iter().flatten().filter_map(one).collect()
}

/// What a pod asks for when it asks for nothing, in scores only: 100 m and 200 MiB.
const CPU_DEFAULT: i64 = 100;
const MEMORY_DEFAULT: i64 = 200 << 20;

/// The amount as scores see it: pods that ask for nothing still take something.
pub fn for_score(requests: &Amounts, name: &str) -> i64 {
    match (name, requests.get(name)) {
        ("cpu", 0) => CPU_DEFAULT,
        ("memory", 0) => MEMORY_DEFAULT,
        (_, amount) => amount,
    }
}

impl NodeRow {
    pub fn parse(object: &Object) -> Option<NodeRow> {
        let node: core::Node = serde_json::from_slice(&object.bytes).ok()?;
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let images = status.images.iter().flatten().flat_map(|image| {
            let size = image.size_bytes.unwrap_or_default();
            image.names.iter().flatten().map(move |name| (SmolStr::from(name), size))
        });
        Some(NodeRow {
            name: object.key.name.clone(),
            labels: object.header.labels.clone(),
            taints: spec.taints.iter().flatten().map(Taint::parse).collect(),
            unschedulable: spec.unschedulable == Some(true),
            allocatable: Amounts::parse(status.allocatable.as_ref().or(status.capacity.as_ref())),
            images: images.collect(),
            ..NodeRow::default()
        })
    }

    pub fn add(&mut self, pod: Arc<PodRow>) {
        self.remove(&pod.uid);
        self.used.add(&pod.requests);
        self.used_for_score.0 += for_score(&pod.requests, "cpu");
        self.used_for_score.1 += for_score(&pod.requests, "memory");
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub fn remove(&mut self, uid: &SmolStr) -> Option<Arc<PodRow>> {
        let pod = self.pods.remove(uid)?;
        self.used.subtract(&pod.requests);
        self.used_for_score.0 -= for_score(&pod.requests, "cpu");
        self.used_for_score.1 -= for_score(&pod.requests, "memory");
        Some(pod)
    }
}
