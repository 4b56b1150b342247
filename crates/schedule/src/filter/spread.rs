//! Even spread over topology domains: no domain may hold more than `maxSkew` above the emptiest.

use std::collections::BTreeMap;

use api::LabelSelector;
use base::SmolStr;

use super::{selects, untolerated};
use crate::cache::Cache;
use crate::message::Refusal;
use crate::row::{NodeRow, PodRow};
use crate::rules::Spread;

pub struct SpreadState<'a> {
    pod: &'a PodRow,
    constraints: &'a [Spread],
    /// Per constraint: matching pods in each domain that the pod could use.
    counts: Vec<BTreeMap<SmolStr, i64>>,
}

/// What upstream asks of pods that say nothing themselves: spread a little over nodes and zones, as a wish.
pub fn defaults() -> Vec<Spread> {
    let one = |key: &'static str, skew_max| Spread {
        topology_key: key.into(),
        skew_max,
        hard: false,
        selector: LabelSelector::default(),
        domains_min: 1,
        honor_affinity: true,
        honor_taints: false,
    };
    vec![one("kubernetes.io/hostname", 3), one("topology.kubernetes.io/zone", 5)]
}

impl<'a> SpreadState<'a> {
    pub fn new(pod: &'a PodRow, cache: &Cache, constraints: &'a [Spread]) -> SpreadState<'a> {
        let counts = constraints.iter().map(|constraint| domains(pod, cache, constraint, constraints)).collect();
        SpreadState { pod, constraints, counts }
    }

    /// Adds or takes away one pod on a node.
    pub fn count(&mut self, node: &NodeRow, other: &PodRow, by: i64) {
        for (constraint, counts) in self.constraints.iter().zip(&mut self.counts) {
            let domain = node.labels.get(&constraint.topology_key);
            if let Some(count) = domain.and_then(|domain| counts.get_mut(domain))
                && counted(self.pod, constraint, other)
            {
                *count += by;
            }
        }
    }

    pub fn check(&self, node: &NodeRow) -> Result<(), Refusal> {
        for (constraint, counts) in self.constraints.iter().zip(&self.counts).filter(|(one, _)| one.hard) {
            let Some(domain) = node.labels.get(&constraint.topology_key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Refusal::lasting(reason));
            };
            let known = i64::try_from(counts.len()).unwrap_or(i64::MAX);
            let least = if known < constraint.domains_min { 0 } else { counts.values().min().copied().unwrap_or(0) };
            let own = i64::from(constraint.selector.matches(&self.pod.labels));
            let here = counts.get(domain).copied().unwrap_or_default();
            if here + own - least > constraint.skew_max {
                return Err(Refusal::curable("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    /// Matching pods in the node's domains, summed over the soft constraints: fewer is better. None where a domain is
    /// missing.
    pub fn crowd(&self, node: &NodeRow) -> Option<i64> {
        let mut sum = 0;
        for (constraint, counts) in self.constraints.iter().zip(&self.counts).filter(|(one, _)| !one.hard) {
            let domain = node.labels.get(&constraint.topology_key)?;
            sum += counts.get(domain).copied().unwrap_or_default() + constraint.skew_max - 1;
        }
        Some(sum)
    }
}

fn domains(pod: &PodRow, cache: &Cache, constraint: &Spread, all: &[Spread]) -> BTreeMap<SmolStr, i64> {
    let mut counts = BTreeMap::new();
    for node in cache.nodes.values() {
        // Only nodes that have every key of the constraints of this strength form domains.
        let mut keys = all.iter().filter(|one| one.hard == constraint.hard);
        let labelled = !constraint.hard || keys.all(|one| node.labels.contains_key(&one.topology_key));
        let usable = (!constraint.honor_affinity || selects(pod, node))
            && (!constraint.honor_taints || untolerated(pod, node).is_none());
        let Some(domain) = node.labels.get(&constraint.topology_key).filter(|_| labelled && usable) else { continue };
        let matching = node.pods.values().filter(|other| counted(pod, constraint, other)).count();
        *counts.entry(domain.clone()).or_default() += i64::try_from(matching).unwrap_or(i64::MAX);
    }
    counts
}

/// A pod counts in its namespace, while it lasts. An empty selector stands for "siblings of one controller".
fn counted(pod: &PodRow, constraint: &Spread, other: &PodRow) -> bool {
    if other.terminating || other.uid == pod.uid || other.key.namespace != pod.key.namespace {
        return false;
    }
    if constraint.selector.is_empty() && !constraint.hard {
        return !pod.owner.is_empty() && other.owner == pod.owner;
    }
    constraint.selector.matches(&other.labels)
}
