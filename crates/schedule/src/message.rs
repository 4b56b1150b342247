//! Why a pod does not fit, in upstream's words.

use std::collections::BTreeMap;

/// Why one node does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// One or several: `Insufficient cpu`, `Insufficient memory`.
    pub reasons: Vec<String>,
    /// True where removing pods could not help.
    pub final_: bool,
}

impl Refusal {
    pub fn curable(reason: impl Into<String>) -> Refusal {
        Refusal { reasons: vec![reason.into()], final_: false }
    }

    pub fn lasting(reason: impl Into<String>) -> Refusal {
        Refusal { reasons: vec![reason.into()], final_: true }
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub fn summary<'a>(nodes: usize, refusals: impl Iterator<Item = &'a Refusal>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in refusals.flat_map(|refusal| &refusal.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    match lines.is_empty() {
        true => format!("0/{nodes} nodes are available:"),
        false => format!("0/{nodes} nodes are available: {}.", lines.join(", ")),
    }
}

/// The same for a reason that holds for the pod whatever the node.
pub fn for_pod(nodes: usize, reason: &str) -> String {
    format!("0/{nodes} nodes are available: {reason}.")
}
