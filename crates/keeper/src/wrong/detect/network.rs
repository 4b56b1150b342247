//! Links, paths, names and rules.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::Detector;
use crate::wrong::fact::{Fact, Facts, What};
use crate::wrong::finding::Finding;
use crate::wrong::table::network::{
    CONNTRACK_FULL, MTU_MISMATCH, NAMES_DOWN, NIC_FLAP, PACKET_LOSS, RULES_LOST, SWITCH_DOWN, UPSTREAM_NAMES_DOWN,
    VIP_DUPLICATE,
};
use crate::wrong::words::list;

pub const ALL: [Detector; 8] = [flaps, switch, loss, mtu, names, conntrack, addresses, rules];

/// Changes of a link within five minutes that are no longer one person's hands at a cable.
const FLAPS_MAX: u32 = 5;
/// Links lost within this span were lost together: each machine looks at its own every other second, by its own clock.
const TOGETHER: SignedDuration = SignedDuration::from_secs(4);
/// And for this long it is news where the links are back.
const LOST_NEWS: SignedDuration = SignedDuration::from_mins(3);
/// A link that has not changed for this long has come to rest.
const REST: SignedDuration = SignedDuration::from_secs(60);
/// Lost packets that are felt, in thousandths, and the fewest probes that can tell.
const LOSS_PERMILLE_MAX: u32 = 5;
const PROBES_MIN: u32 = 50;
/// Fewer are chance.
const LOSS_MIN: u32 = 3;
const CONNTRACK_PERCENT_MAX: u64 = 80;

fn flaps(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let rests = |at: &Option<Timestamp>| at.is_some_and(|at| REST < now.duration_since(at));
    let find = |fact: &Fact| match &fact.what {
        What::Link { name, changes, lost_at, .. } if FLAPS_MAX < *changes && !rests(lost_at) => {
            let words = format!("{}: {name} changed {changes} times in 5 min", fact.by);
            let finding = Finding::of_node(&NIC_FLAP, &fact.about).with("link", name).with("count", changes);
            Some(finding.seen(fact, words))
        }
        _ => None,
    };
    facts.own().filter_map(find).collect()
}

/// Several machines that lost their links in one moment.
fn switch(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let lost = |fact: &'_ Fact| match fact.what {
        What::Link { lost_at: Some(at), carrier, .. } if !carrier || now.duration_since(at) < LOST_NEWS => Some(at),
        _ => None,
    };
    let all: Vec<(&Fact, Timestamp)> = facts.own().filter_map(|fact| Some((fact, lost(fact)?))).collect();
    let group = |first: Timestamp| -> Vec<&(&Fact, Timestamp)> {
        all.iter().filter(|(_, at)| at.duration_since(first).abs() <= TOGETHER).collect()
    };
    let nodes =
        |group: &[&(&Fact, Timestamp)]| group.iter().map(|(fact, _)| &fact.about).collect::<BTreeSet<_>>().len();
    let Some(group) = all.iter().map(|(_, at)| group(*at)).max_by_key(|group| nodes(group)) else { return Vec::new() };
    if nodes(&group) < 2 {
        return Vec::new();
    }
    let names: Vec<&str> =
        group.iter().map(|(fact, _)| fact.about.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let mut finding = Finding::new(&SWITCH_DOWN, "network").with("nodes", list(&names)).since(Some(group[0].1));
    for (fact, at) in &group {
        finding = finding.seen(fact, format!("{} lost its link at {}", fact.by, at.strftime("%H:%M:%S")));
    }
    vec![finding]
}

/// A machine at which several of the bad paths end has the bad cable.
fn loss(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let felt = |fact: &'_ Fact| match fact.what {
        What::Loss { sent, lost } if PROBES_MIN <= sent && LOSS_MIN <= lost => {
            Some((sent, lost, lost.saturating_mul(1000) / sent)).filter(|(.., permille)| LOSS_PERMILLE_MAX < *permille)
        }
        _ => None,
    };
    let mut bad: Vec<_> = facts.others().filter_map(|fact| Some((fact, felt(fact)?))).collect();
    bad.sort_by_key(|(_, (.., permille))| Reverse(*permille));
    let ends = |node: &str| {
        let paths = bad.iter().filter(|(fact, _)| fact.by == node || fact.about == node);
        paths.map(|(fact, _)| if fact.by == node { &fact.about } else { &fact.by }).collect::<BTreeSet<_>>().len()
    };
    let find = |(fact, (sent, lost, permille)): &(&Fact, (u32, u32, u32))| {
        // Where both have as many, whoever measured it is nobody's fault: their names decide, and the answer stays.
        let mut both = [&fact.by, &fact.about];
        both.sort_by_key(|node| (ends(node), *node));
        let [other, node] = both;
        let share = format!("{}.{} %", permille / 10, permille % 10);
        let finding = Finding::of_node(&PACKET_LOSS, node).with("from", other).with("share", share);
        finding.seen(fact, format!("{}: {lost} of {sent} probes to {} were lost", fact.by, fact.about))
    };
    bad.iter().map(find).collect()
}

fn mtu(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match fact.what {
        What::PathMtu { wanted, works } if works < wanted => {
            let finding = Finding::of_node(&MTU_MISMATCH, &fact.about).with("from", &fact.by);
            let words = format!("{}: {works} bytes reach {}, {wanted} do not", fact.by, fact.about);
            Some(finding.with("wanted", wanted).with("works", works).seen(fact, words))
        }
        _ => None,
    };
    facts.others().filter_map(find).collect()
}

fn names(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let node = &fact.about;
        let log = "agent/names/names.log below the data folder";
        match &fact.what {
            What::Process { name, alive: false, .. } if name == "names" => {
                let finding = Finding::of_node(&NAMES_DOWN, node).with("why", "their process does not run");
                Some(finding.with("log", log).seen(fact, format!("{node}: the process of names does not run")))
            }
            What::Names { inside: false, .. } if !is_dead(facts, node, "names") => {
                let finding = Finding::of_node(&NAMES_DOWN, node).with("why", "no answer within its time");
                Some(finding.with("log", log).seen(fact, format!("{node}: a name of the cluster was not answered")))
            }
            What::Names { inside: true, outside: Some(false), upstream, file } => {
                let file = if file.is_empty() { "/etc/resolv.conf" } else { file };
                let finding =
                    Finding::of_node(&UPSTREAM_NAMES_DOWN, node).with("upstream", upstream).with("file", file);
                Some(finding.seen(fact, format!("{node}: names inside answer, {upstream} does not")))
            }
            _ => None,
        }
    };
    facts.own().filter_map(find).collect()
}

/// Whether a node's own process is known not to run.
fn is_dead(facts: &Facts, node: &str, process: &str) -> bool {
    facts.own().any(|fact| {
        fact.about == node && matches!(&fact.what, What::Process { name, alive: false, .. } if name == process)
    })
}

fn conntrack(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match fact.what {
        What::Conntrack { count, max } if 0 < max && CONNTRACK_PERCENT_MAX <= count.saturating_mul(100) / max => {
            let finding = Finding::of_node(&CONNTRACK_FULL, &fact.about).with("count", count).with("max", max);
            let words = format!("{}: {count} of {max} connections tracked", fact.by);
            Some(finding.with("double", max.saturating_mul(2)).seen(fact, words))
        }
        _ => None,
    };
    facts.own().filter_map(find).collect()
}

/// Two holders of the one virtual address: the one that does not hold its lease is to give it up.
fn addresses(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let holds = |fact: &&Fact| matches!(fact.what, What::VirtualAddress { held: true, .. });
    let mut holders: Vec<&Fact> = facts.own().filter(holds).collect();
    let leases = |fact: &Fact| matches!(fact.what, What::VirtualAddress { leased: true, .. });
    holders.sort_by(|a, b| (!leases(a), &a.about).cmp(&(!leases(b), &b.about)));
    let (Some(first), Some(last)) = (holders.first(), holders.last()) else { return Vec::new() };
    let What::VirtualAddress { address, .. } = &first.what else { return Vec::new() };
    if holders.len() < 2 {
        return Vec::new();
    }
    let mut names: Vec<&str> = holders.iter().map(|fact| fact.about.as_str()).collect();
    names.sort_unstable();
    let link = facts.own().find_map(|fact| match &fact.what {
        What::Link { name, .. } if fact.about == last.about => Some(name.clone()),
        _ => None,
    });
    let finding = Finding::of_node(&VIP_DUPLICATE, &last.about).with("nodes", list(&names)).with("address", address);
    let finding = finding.with("link", link.unwrap_or_else(|| "eth0".to_owned()));
    let seen = |finding: Finding, fact: &&Fact| finding.seen(fact, format!("{} holds {address}", fact.by));
    vec![holders.iter().fold(finding, seen)]
}

fn rules(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::Network { table, unrouted } = &fact.what else { return None };
        let what = match (table, unrouted.as_slice()) {
            (false, _) => "its table is gone".to_owned(),
            (true, []) => return None,
            (true, nodes) => format!("no route to the pods of {}", list(nodes)),
        };
        let words = format!("{}: {what}", fact.by);
        Some(Finding::of_node(&RULES_LOST, &fact.about).with("what", what).seen(fact, words))
    };
    facts.own().filter_map(find).collect()
}
