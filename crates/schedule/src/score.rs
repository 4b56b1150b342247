//! Which of the nodes that fit is best: 0 to 100 per view, weighted as upstream weighs them.

use std::collections::BTreeMap;

use base::SmolStr;

use crate::cache::Cache;
use crate::filter::{Placement, SpreadState, spread_defaults};
use crate::row::{NodeRow, PodRow, for_score};
use crate::rules::PodTerm;

const MAX: i64 = 100;
/// Images below this size are fetched in no time; above the upper bound more does not matter (per container).
const IMAGE_BYTES_MIN: i64 = 23 << 20;
const IMAGE_BYTES_MAX: i64 = 1000 << 20;

/// The best of the nodes. Equal ones are told apart by a hash of pod and node, so that ties spread and tests repeat.
pub fn best<'n>(placement: &Placement<'_>, nodes: &[&'n NodeRow]) -> Option<&'n NodeRow> {
    if nodes.len() < 2 {
        return nodes.first().copied();
    }
    let pod = placement.pod;
    let views: [(i64, Vec<i64>); 7] = [
        (1, nodes.iter().map(|node| least_allocated(pod, node)).collect()),
        (1, nodes.iter().map(|node| balanced(pod, node)).collect()),
        (1, nodes.iter().map(|node| images(pod, node, placement.cache)).collect()),
        (2, up_to_max(nodes.iter().map(|node| preferred(pod, node)).collect())),
        (2, stretched(pod_affinity(placement, nodes))),
        (2, spread(placement, nodes)),
        (3, down_from_max(nodes.iter().map(|node| soft_taints(pod, node)).collect())),
    ];
    let total = |at: usize| views.iter().map(|(weight, scores)| weight * scores[at]).sum::<i64>();
    (0..nodes.len()).max_by_key(|at| (total(*at), tie(&pod.uid, &nodes[*at].name))).map(|at| nodes[at])
}

fn tie(uid: &SmolStr, node: &SmolStr) -> u64 {
    let bytes = uid.bytes().chain([0xff]).chain(node.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// (used with this pod, there is) for cpu and memory.
fn shares(pod: &PodRow, node: &NodeRow) -> [(i64, i64); 2] {
    [
        (node.used_for_score.0 + for_score(&pod.requests, "cpu"), node.allocatable.get("cpu")),
        (node.used_for_score.1 + for_score(&pod.requests, "memory"), node.allocatable.get("memory")),
    ]
}

fn least_allocated(pod: &PodRow, node: &NodeRow) -> i64 {
    let free = |(used, all): &(i64, i64)| if *all <= 0 || used > all { 0 } else { (all - used) * MAX / all };
    shares(pod, node).iter().map(free).sum::<i64>() / 2
}

/// How evenly cpu and memory would be used.
fn balanced(pod: &PodRow, node: &NodeRow) -> i64 {
    let permille =
        |(used, all): &(i64, i64)| if *all <= 0 { 1000 } else { (used.saturating_mul(1000) / all).min(1000) };
    let [cpu, memory] = shares(pod, node);
    MAX - (permille(&cpu) - permille(&memory)).abs() / 20
}

/// Bytes of the pod's images that are there, less where few nodes have them: a rare image must not draw everything.
fn images(pod: &PodRow, node: &NodeRow, cache: &Cache) -> i64 {
    let containers = i64::try_from(pod.images.len()).unwrap_or(1).max(1);
    let nodes = i64::try_from(cache.nodes.len()).unwrap_or(1).max(1);
    let worth = |image: &SmolStr| {
        let Some(size) = size_of(node, image) else { return 0 };
        let having = cache.nodes.values().filter(|other| size_of(other, image).is_some()).count();
        size / nodes * i64::try_from(having).unwrap_or(1)
    };
    let sum: i64 = pod.images.iter().map(worth).sum();
    let top = IMAGE_BYTES_MAX * containers;
    MAX * (sum.clamp(IMAGE_BYTES_MIN, top) - IMAGE_BYTES_MIN) / (top - IMAGE_BYTES_MIN)
}

fn size_of(node: &NodeRow, image: &SmolStr) -> Option<i64> {
    let tagged = image.rsplit('/').next().is_some_and(|last| last.contains(':')) || image.contains('@');
    let full = if tagged { image.clone() } else { base::format_smolstr!("{image}:latest") };
    node.images.get(&full).copied()
}

fn preferred(pod: &PodRow, node: &NodeRow) -> i64 {
    let held = pod.node_preferred.iter().filter(|(_, term)| term.matches(&node.name, &node.labels));
    held.map(|(weight, _)| weight).sum()
}

fn soft_taints(pod: &PodRow, node: &NodeRow) -> i64 {
    let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let hurting = soft.filter(|taint| !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)));
    i64::try_from(hurting.count()).unwrap_or(i64::MAX)
}

/// Wishes of the pod about others, and of others about the pod (their required affinity counts as a wish of weight 1).
fn pod_affinity(placement: &Placement<'_>, nodes: &[&NodeRow]) -> Vec<i64> {
    let (pod, cache) = (placement.pod, placement.cache);
    let mut domains: BTreeMap<(SmolStr, SmolStr), i64> = BTreeMap::new();
    let hits = |term: &PodTerm, of: &PodRow| term.matches(&of.key.namespace, &of.labels, &cache.namespaces);
    for node in cache.nodes.values() {
        for other in node.pods.values().filter(|other| other.uid != pod.uid) {
            let mine = pod.affinity_preferred.iter().map(|term| (term, term.weight, other));
            let mine = mine.chain(pod.anti_preferred.iter().map(|term| (term, -term.weight, other)));
            let theirs = other.affinity_preferred.iter().map(|term| (term, term.weight, pod));
            let theirs = theirs.chain(other.anti_preferred.iter().map(|term| (term, -term.weight, pod)));
            let theirs = theirs.chain(other.affinity.iter().map(|term| (term, 1, pod)));
            for (term, weight, _) in mine.chain(theirs).filter(|(term, _, of)| hits(term, of)) {
                if let Some(value) = node.labels.get(&term.topology_key) {
                    *domains.entry((term.topology_key.clone(), value.clone())).or_default() += weight;
                }
            }
        }
    }
    let of = |node: &&NodeRow| {
        let here = domains.iter().filter(|((key, value), _)| node.labels.get(key) == Some(value));
        here.map(|(_, weight)| weight).sum()
    };
    nodes.iter().map(of).collect()
}

fn spread(placement: &Placement<'_>, nodes: &[&NodeRow]) -> Vec<i64> {
    let pod = placement.pod;
    let fallback;
    let crowds: Vec<Option<i64>> = if pod.spread.is_empty() {
        fallback = spread_defaults();
        // A cluster without zones must still spread over nodes.
        let known = |key: &SmolStr| nodes.iter().any(|node| node.labels.contains_key(key));
        let wanted: Vec<_> = fallback.into_iter().filter(|one| known(&one.topology_key)).collect();
        let state = SpreadState::new(pod, placement.cache, &wanted);
        nodes.iter().map(|node| state.crowd(node)).collect()
    } else {
        nodes.iter().map(|node| placement.spread.crowd(node)).collect()
    };
    let most = crowds.iter().flatten().max().copied().unwrap_or_default();
    let least = crowds.iter().flatten().min().copied().unwrap_or_default();
    let score = |crowd: Option<i64>| match crowd {
        None => 0,
        Some(_) if most == 0 => MAX,
        Some(crowd) => MAX * (most + least - crowd) / most,
    };
    crowds.into_iter().map(score).collect()
}

fn up_to_max(scores: Vec<i64>) -> Vec<i64> {
    let top = scores.iter().max().copied().unwrap_or_default();
    scores.into_iter().map(|score| if top > 0 { score * MAX / top } else { 0 }).collect()
}

fn down_from_max(scores: Vec<i64>) -> Vec<i64> {
    let top = scores.iter().max().copied().unwrap_or_default();
    scores.into_iter().map(|score| if top > 0 { MAX - score * MAX / top } else { MAX }).collect()
}

fn stretched(scores: Vec<i64>) -> Vec<i64> {
    let top = scores.iter().max().copied().unwrap_or_default();
    let bottom = scores.iter().min().copied().unwrap_or_default();
    let width = top - bottom;
    scores.into_iter().map(|score| if width > 0 { (score - bottom) * MAX / width } else { 0 }).collect()
}
