//! People, runs and versions.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Detector;
use crate::wrong::fact::{API, CLUSTER, Fact, Facts, Name, RunState, What};
use crate::wrong::finding::Finding;
use crate::wrong::table::people::{
    CONFIG_BAD, ONE_ADMINISTRATOR, UPGRADE_HALF_DONE, UPGRADE_STUCK, VERSION_SKEW, WRONG_CLUSTER,
};
use crate::wrong::words::ago;

pub const ALL: [Detector; 4] = [runs, versions, targets, administrators];

/// A run that says nothing for this long has nobody who carries it on.
const RUN_SILENT: SignedDuration = SignedDuration::from_mins(5);

fn runs(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Run { verb, who, state, node, last, why } => {
            let after = if node.is_empty() { String::new() } else { format!(" at {node}") };
            let finding = |code| {
                let finding = Finding::new(code, CLUSTER).with("by", who).with("verb", verb).with("after", &after);
                let finding = finding.with("ago", ago(*last, now)).since(Some(*last));
                finding.seen(fact, format!("the journal's last entry is of {}", ago(*last, now)))
            };
            let because = if why.is_empty() { String::new() } else { format!(" ({why})") };
            match state {
                RunState::Stuck => Some(finding(&UPGRADE_STUCK).with("why", why)),
                RunState::Paused => Some(finding(&UPGRADE_HALF_DONE).with("why", because)),
                RunState::Running if RUN_SILENT < now.duration_since(*last) => {
                    Some(finding(&UPGRADE_HALF_DONE).with("why", because))
                }
                RunState::Running => None,
            }
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}

/// Nodes of different versions: the one behind is named.
fn versions(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let of = |fact: &'_ Fact| match &fact.what {
        What::Node { version, .. } if fact.by == API && !version.is_empty() => Some(version.clone()),
        _ => None,
    };
    let mut versions: BTreeMap<String, Vec<(&Fact, &Name)>> = BTreeMap::new();
    for fact in &facts.facts {
        if let Some(version) = of(fact) {
            versions.entry(version).or_default().push((fact, &fact.about));
        }
    }
    if versions.len() < 2 {
        return Vec::new();
    }
    let count = |(version, nodes): (&String, &Vec<_>)| format!("{version} on {}", nodes.len());
    let words = versions.iter().map(count).collect::<Vec<_>>().join(", ");
    // Of two numbers the lower is behind: compared by their parts, not by their letters.
    let behind = versions.iter().min_by_key(|(version, _)| parts(version)).map(|(_, nodes)| nodes[0]);
    let Some((fact, node)) = behind else { return Vec::new() };
    let finding = Finding::of_node(&VERSION_SKEW, node).with("versions", &words);
    vec![finding.seen(fact, words)]
}

fn parts(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn targets(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::OtherTarget { wanted } => {
            let finding = Finding::new(&WRONG_CLUSTER, CLUSTER).with("wanted", wanted).with("cluster", &facts.cluster);
            Some(finding.seen(fact, format!("the kubeconfig trusts {wanted}, this machine {}", facts.cluster)))
        }
        What::ConfigFile { path, error } => {
            let finding = Finding::of_node(&CONFIG_BAD, &fact.about).with("path", path).with("why", error);
            Some(finding.seen(fact, format!("{}: {path}: {error}", fact.by)))
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}

fn administrators(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match fact.what {
        What::Administrators { people: 1 } => {
            Some(Finding::new(&ONE_ADMINISTRATOR, CLUSTER).seen(fact, "one person has credentials of their own"))
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}
