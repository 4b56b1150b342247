//! Which nodes a pod may run on, and in upstream's words why not on the others.

mod affinity;
mod spread;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::fit::{Taint, any_term, clash};
use base::SmolStr;

pub use self::affinity::AffinityState;
pub use self::spread::{SpreadState, defaults as spread_defaults};
use crate::cache::Cache;
use crate::message::Refusal;
use crate::queue::News;
use crate::row::{NodeRow, PodRow};
use crate::volumes::Volumes;

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// All that is the same for every node while one pod is placed.
pub struct Placement<'a> {
    pub pod: &'a Arc<PodRow>,
    pub cache: &'a Cache,
    pub affinity: AffinityState<'a>,
    pub spread: SpreadState<'a>,
    pub volumes: &'a Volumes<'a>,
    /// Pods that hold a node by nomination and are at least as important.
    nominated: BTreeMap<SmolStr, Vec<Arc<PodRow>>>,
}

impl<'a> Placement<'a> {
    pub fn new(pod: &'a Arc<PodRow>, cache: &'a Cache, volumes: &'a Volumes<'a>) -> Placement<'a> {
        let mut nominated: BTreeMap<SmolStr, Vec<Arc<PodRow>>> = BTreeMap::new();
        let waiting = cache.pods.values().filter(|other| other.node.is_empty() && !other.nominated.is_empty());
        for other in waiting.filter(|other| other.uid != pod.uid && other.priority >= pod.priority && !other.finished) {
            if !cache.is_assumed(&other.uid) {
                nominated.entry(other.nominated.clone()).or_default().push(other.clone());
            }
        }
        let affinity = AffinityState::new(pod, cache);
        Placement { pod, cache, affinity, spread: SpreadState::new(pod, cache, &pod.spread), volumes, nominated }
    }

    /// The node with its nominated pods added: a preemptor's room is not given away.
    pub fn with_nominated(&self, node: &NodeRow) -> Option<NodeRow> {
        let pods = self.nominated.get(&node.name)?;
        let mut filled = node.clone();
        pods.iter().for_each(|pod| filled.add(pod.clone()));
        Some(filled)
    }

    pub fn check(&self, node: &NodeRow) -> Result<(), Refusal> {
        if let Some(filled) = self.with_nominated(node) {
            self.check_as_is(&filled)?;
        }
        self.check_as_is(node)
    }

    /// In upstream's order: the first filter that refuses names the reason.
    pub fn check_as_is(&self, node: &NodeRow) -> Result<(), Refusal> {
        unschedulable(self.pod, node)?;
        taints(self.pod, node)?;
        node_affinity(self.pod, node)?;
        ports(self.pod, node)?;
        resources(self.pod, node)?;
        self.volumes.check(node)?;
        self.spread.check(node)?;
        self.affinity.check(node)
    }
}

fn unschedulable(pod: &PodRow, node: &NodeRow) -> Result<(), Refusal> {
    let taint = Taint { key: UNSCHEDULABLE_TAINT.into(), value: SmolStr::default(), effect: "NoSchedule".into() };
    let tolerated = pod.tolerations.iter().any(|toleration| toleration.tolerates(&taint));
    if node.unschedulable && !tolerated {
        return Err(Refusal::lasting("node(s) were unschedulable"));
    }
    Ok(())
}

pub fn untolerated<'n>(pod: &PodRow, node: &'n NodeRow) -> Option<&'n Taint> {
    let hard = node.taints.iter().filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute");
    hard.into_iter().find(|taint| !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
}

fn taints(pod: &PodRow, node: &NodeRow) -> Result<(), Refusal> {
    match untolerated(pod, node) {
        Some(taint) => {
            Err(Refusal::lasting(format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value)))
        }
        None => Ok(()),
    }
}

pub fn selects(pod: &PodRow, node: &NodeRow) -> bool {
    let plain = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    plain && any_term(pod.node_required.as_ref(), &node.name, &node.labels)
}

fn node_affinity(pod: &PodRow, node: &NodeRow) -> Result<(), Refusal> {
    if selects(pod, node) {
        return Ok(());
    }
    Err(Refusal::lasting("node(s) didn't match Pod's node affinity/selector"))
}

fn ports(pod: &PodRow, node: &NodeRow) -> Result<(), Refusal> {
    let mut taken = node.pods.values().filter(|other| other.uid != pod.uid).flat_map(|other| &other.ports);
    if taken.any(|taken| pod.ports.iter().any(|wanted| clash(wanted, taken))) {
        return Err(Refusal::curable("node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}

fn resources(pod: &PodRow, node: &NodeRow) -> Result<(), Refusal> {
    let mut reasons = vec![];
    let mut never = false;
    for (name, wanted) in pod.requests.0.iter().filter(|(_, wanted)| **wanted > 0) {
        let capacity = node.allocatable.get(name);
        if *wanted > capacity - node.used.get(name) {
            reasons.push(if name == "pods" { "Too many pods".to_owned() } else { format!("Insufficient {name}") });
            never |= *wanted > capacity;
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Refusal { reasons, final_: never })
}

/// Which news could make a refused pod fit.
pub fn wants(pod: &PodRow) -> News {
    News {
        node: true,
        pod_gone: true,
        pod_bound: !pod.affinity.is_empty() || !pod.spread.is_empty(),
        volume: !pod.claims.is_empty(),
    }
}
