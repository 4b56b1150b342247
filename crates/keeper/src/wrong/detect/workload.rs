//! What people run: pods, budgets, hooks, images.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::Detector;
use crate::wrong::fact::{Fact, Facts, Name, State, What};
use crate::wrong::finding::Finding;
use crate::wrong::table::workload::{
    CRASH_AFTER_CHANGE, CRASH_LOOP, DRAIN_BLOCKED, POD_NOT_READY, REGISTRY_DOWN, STUCK_FINALIZER, VOLUME_STUCK,
    WEBHOOK_DEAD,
};
use crate::wrong::words::{ago, list, span};

pub const ALL: [Detector; 7] = [volumes, budgets, finalizers, webhooks, pulls, crashes, waiting];

/// Restarts that began within this span after a change are put down to it.
const CHANGE_NEWS: SignedDuration = SignedDuration::from_mins(30);
/// A pod may take this long to become ready before it is spoken of.
const READY_AFTER: SignedDuration = SignedDuration::from_secs(60);
const PODS_NAMED_MAX: usize = 3;

/// Pods that wait for a volume on a machine that is not there.
fn volumes(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::VolumeWait { volume, node } = &fact.what else { return None };
        let ready = facts
            .others()
            .any(|other| other.about == *node && matches!(other.what, What::Node { state: State::Ready, .. }));
        let words = format!("{} waits for {volume} on {node}", fact.about);
        let finding = Finding::new(&VOLUME_STUCK, &fact.about).on(node).with("volume", volume);
        (!ready).then(|| finding.seen(fact, words))
    };
    facts.others().filter_map(find).collect()
}

fn budgets(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::EvictionBlocked { node, budget } = &fact.what else { return None };
        let words = format!("{node} is cordoned, {budget} allows 0 evictions of {}", fact.about);
        Some(Finding::new(&DRAIN_BLOCKED, &fact.about).on(node).with("budget", budget).seen(fact, words))
    };
    let mut seen = BTreeSet::new();
    // One budget blocks a node, with however many pods.
    let first = |finding: &Finding| seen.insert((finding.node.clone(), finding.fill("{budget}")));
    facts.others().filter_map(find).filter(first).collect()
}

fn finalizers(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::Terminating { resource, since, waits_for } = &fact.what else { return None };
        let finding = Finding::new(&STUCK_FINALIZER, &fact.about).with("resource", resource).with("waits", waits_for);
        let words = format!("{resource} was deleted {}, {waits_for} is left", ago(*since, now));
        let age = span(now.duration_since(*since));
        Some(finding.with("age", age).since(Some(*since)).seen(fact, words))
    };
    facts.others().filter_map(find).collect()
}

fn webhooks(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::Webhook { resource, service } = &fact.what else { return None };
        let finding = Finding::new(&WEBHOOK_DEAD, service).with("resource", resource);
        let words = format!("{resource} fails closed, {service} has no ready endpoint");
        Some(finding.with("namespace", namespace(service)).seen(fact, words))
    };
    facts.others().filter_map(find).collect()
}

/// One finding for each registry, with the pods that wait for it.
fn pulls(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let mut hosts: BTreeMap<&str, Vec<(&Fact, &str, &str, &Name)>> = BTreeMap::new();
    for fact in facts.others() {
        if let What::Pull { image, host, why, node } = &fact.what {
            hosts.entry(host).or_default().push((fact, image, why, node));
        }
    }
    let find = |(host, pulls): (&str, Vec<(&Fact, &str, &str, &Name)>)| {
        let (_, image, why, node) = pulls[0];
        let pods: Vec<&str> = pulls.iter().map(|(fact, ..)| fact.about.as_str()).collect();
        let pods = named(&pods);
        let finding = Finding::new(&REGISTRY_DOWN, host).on(node).with("host", host).with("why", why);
        let finding = finding.with("pods", pods).with("image", image);
        let seen = |finding: Finding, (fact, image, _, node): &(&Fact, &str, &str, &Name)| {
            finding.seen(fact, format!("{node} cannot pull {image} for {}", fact.about))
        };
        pulls.iter().take(PODS_NAMED_MAX).fold(finding, seen)
    };
    hosts.into_iter().map(find).collect()
}

fn named(names: &[&str]) -> String {
    match names.len().checked_sub(PODS_NAMED_MAX) {
        None | Some(0) => list(names),
        Some(more) => format!("{} and {more} more", names[..PODS_NAMED_MAX].join(", ")),
    }
}

fn crashes(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::CrashLoop { restarts, changed, who, owner, previous } = &fact.what else { return None };
        let recent = changed.filter(|at| *previous && fact.at.duration_since(*at) < CHANGE_NEWS);
        let words = format!("{}: {restarts} restarts", fact.about);
        let space = namespace(&fact.about);
        let finding = |code| {
            let finding = Finding::new(code, &fact.about).with("owner", owner).with("namespace", space);
            finding.with("restarts", restarts).seen(fact, words.clone())
        };
        let Some(at) = recent else { return Some(finding(&CRASH_LOOP)) };
        let who = if who.is_empty() { String::new() } else { format!(" by {who}") };
        let change = format!("its template changed {}{who}", ago(at, now));
        let finding = finding(&CRASH_AFTER_CHANGE).with("changed", ago(at, now)).with("who", who).since(Some(at));
        Some(finding.seen(fact, change))
    };
    facts.others().filter_map(find).collect()
}

/// Pods that are not ready, and that nothing more particular is said of.
fn waiting(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::PodWaits { node, why, since } = &fact.what else { return None };
        if now.duration_since(*since) < READY_AFTER {
            return None;
        }
        let (space, pod) = (namespace(&fact.about), fact.about.rsplit('/').next().unwrap_or_default());
        let finding = Finding::new(&POD_NOT_READY, &fact.about).with("why", why).with("pod", pod);
        let finding = if node.is_empty() { finding } else { finding.on(node) };
        let finding = finding.with("namespace", space).with("age", span(now.duration_since(*since)));
        Some(finding.since(Some(*since)).seen(fact, format!("{}: {why}", fact.about)))
    };
    facts.others().filter_map(find).collect()
}

fn namespace(name: &str) -> &str {
    name.split_once('/').map_or("default", |(namespace, _)| namespace)
}
