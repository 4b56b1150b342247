//! Affinity and anti-affinity between pods, in both directions.

use std::collections::BTreeMap;

use base::SmolStr;

use crate::cache::Cache;
use crate::message::Refusal;
use crate::row::{NodeRow, PodRow};
use crate::rules::PodTerm;

/// Topology key and value.
type Domain = (SmolStr, SmolStr);

pub struct AffinityState<'a> {
    pod: &'a PodRow,
    /// Domains with pods that all affinity terms match.
    attracted: BTreeMap<Domain, i64>,
    /// Domains with pods that an anti-affinity term of the pod matches.
    repelled: BTreeMap<Domain, i64>,
    /// Domains of pods whose own anti-affinity matches the pod.
    forbidden: BTreeMap<Domain, i64>,
    /// The pod matches its own affinity terms: it may be the first of its group.
    matches_itself: bool,
}

impl<'a> AffinityState<'a> {
    pub fn new(pod: &'a PodRow, cache: &Cache) -> AffinityState<'a> {
        let own = |term: &PodTerm| term.matches(&pod.key.namespace, &pod.labels, &cache.namespaces);
        let mut state = AffinityState {
            pod,
            attracted: BTreeMap::new(),
            repelled: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            matches_itself: pod.affinity.iter().all(own),
        };
        for node in cache.nodes.values() {
            for other in node.pods.values().filter(|other| other.uid != pod.uid) {
                state.count(cache, node, other, 1);
            }
        }
        state
    }

    /// Adds or takes away one pod on a node: preemption asks what would be without it.
    pub fn count(&mut self, cache: &Cache, node: &NodeRow, other: &PodRow, by: i64) {
        let pod = self.pod;
        let hits = |term: &PodTerm, of: &PodRow| term.matches(&of.key.namespace, &of.labels, &cache.namespaces);
        if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| hits(term, other)) {
            pod.affinity.iter().for_each(|term| bump(&mut self.attracted, node, term, by));
        }
        for term in pod.anti.iter().filter(|term| hits(term, other)) {
            bump(&mut self.repelled, node, term, by);
        }
        for term in other.anti.iter().filter(|term| hits(term, pod)) {
            bump(&mut self.forbidden, node, term, by);
        }
    }

    pub fn check(&self, node: &NodeRow) -> Result<(), Refusal> {
        let there = |map: &BTreeMap<Domain, i64>, key: &SmolStr| {
            let value = node.labels.get(key);
            value.is_some_and(|value| map.get(&(key.clone(), value.clone())).is_some_and(|count| *count > 0))
        };
        let all = self.pod.affinity.iter().all(|term| there(&self.attracted, &term.topology_key));
        let labelled = self.pod.affinity.iter().all(|term| node.labels.contains_key(&term.topology_key));
        let first = self.matches_itself && labelled && self.attracted.values().all(|count| *count <= 0);
        if !all && !first {
            return Err(Refusal::lasting("node(s) didn't match pod affinity rules"));
        }
        if self.pod.anti.iter().any(|term| there(&self.repelled, &term.topology_key)) {
            return Err(Refusal::curable("node(s) didn't match pod anti-affinity rules"));
        }
        let mut forbidden = self.forbidden.iter().filter(|(_, count)| **count > 0);
        if forbidden.any(|((key, value), _)| node.labels.get(key) == Some(value)) {
            return Err(Refusal::curable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}

fn bump(map: &mut BTreeMap<Domain, i64>, node: &NodeRow, term: &PodTerm, by: i64) {
    if let Some(value) = node.labels.get(&term.topology_key) {
        *map.entry((term.topology_key.clone(), value.clone())).or_default() += by;
    }
}
