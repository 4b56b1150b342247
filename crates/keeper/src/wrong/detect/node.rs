//! Machines and the programs that run them.

use jiff::{SignedDuration, Timestamp};

use super::Detector;
use crate::wrong::fact::{API, CLUSTER, Fact, Facts, Refusal, State, What};
use crate::wrong::finding::Finding;
use crate::wrong::table::node::{
    ADDRESS_CHANGED, ALL_RESTARTED, API_DOWN, CPU_STARVED, LOOP_FAILING, NODE_IMPOSTOR, NODE_NOT_READY, NODE_PRESSURE,
    RUNTIME_DOWN, SERVER_STOPPED,
};

pub const ALL: [Detector; 9] =
    [stopped, runtime, api, loops, not_ready, pressure, address, restarted, impostor_and_busy];

/// A timer that comes later than this means that heartbeats may be missed.
const LATE_MILLIS_MAX: u64 = 2_000;
/// Machines that booted within this span lost power together; and for this long it is news.
const TOGETHER: SignedDuration = SignedDuration::from_mins(5);
const BOOT_NEWS: SignedDuration = SignedDuration::from_mins(30);
/// Where everything is back, for this long.
const BACK_NEWS: SignedDuration = SignedDuration::from_mins(3);

fn stopped(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Process { name, alive: false, .. } if name == "evenkeel" => {
            let words = format!("{}: no process of Evenkeel", fact.by);
            Some(Finding::of_node(&SERVER_STOPPED, &fact.about).seen(fact, words))
        }
        _ => None,
    };
    facts.own().filter_map(find).collect()
}

fn runtime(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Process { name, alive, answers } if name == "containerd" && (!alive || *answers == Some(false)) => {
            let why = if *alive { "it runs and is silent" } else { "its process is not there" };
            let finding = Finding::of_node(&RUNTIME_DOWN, &fact.about).with("why", why);
            let log = "agent/containerd/containerd.log below the data folder";
            Some(finding.with("log", log).seen(fact, format!("{}: containerd: {why}", fact.by)))
        }
        _ => None,
    };
    facts.own().filter_map(find).collect()
}

fn api(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Api { ready: false, why, .. } => {
            let words = format!("{}: the API of {}: {why}", fact.by, fact.about);
            Some(Finding::of_node(&API_DOWN, &fact.about).with("why", why).seen(fact, words))
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}

fn loops(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Api { ready: true, loops, .. } => {
            let first = loops.first()?;
            let finding = Finding::new(&LOOP_FAILING, first).with("what", loops.join(", ")).with("first", first);
            Some(finding.seen(fact, format!("{}: {}", fact.about, loops.join(", "))))
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}

fn not_ready(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Node { state: State::NotReady | State::Silent, why, since, .. } => {
            let finding = Finding::of_node(&NODE_NOT_READY, &fact.about).with("why", why).since(*since);
            Some(finding.seen(fact, format!("{}: {why}", fact.about)))
        }
        _ => None,
    };
    facts.others().filter_map(find).collect()
}

fn pressure(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Node { state: State::Ready, pressures, .. } if !pressures.is_empty() => {
            let what = pressures.join(", ");
            let words = format!("{}: {what}", fact.about);
            Some(Finding::of_node(&NODE_PRESSURE, &fact.about).with("what", what).seen(fact, words))
        }
        _ => None,
    };
    facts.others().filter_map(find).collect()
}

fn address(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Address { address, present: false, .. } => {
            let words = format!("{}: no link has {address}", fact.by);
            Some(Finding::of_node(&ADDRESS_CHANGED, &fact.about).with("address", address).seen(fact, words))
        }
        _ => None,
    };
    facts.own().filter_map(find).collect()
}

/// All machines, and more than one, booted within minutes.
fn restarted(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let boot = |fact: &'_ Fact| match fact.what {
        What::Boot { booted, member: true } => Some(booted),
        _ => None,
    };
    let boots: Vec<(&Fact, Timestamp)> = facts.own().filter_map(|fact| Some((fact, boot(fact)?))).collect();
    let nodes = facts.facts.iter().filter(|fact| fact.by == API && matches!(fact.what, What::Node { .. })).count();
    let (Some(first), Some(last)) = (boots.iter().map(|(_, at)| *at).min(), boots.iter().map(|(_, at)| *at).max())
    else {
        return Vec::new();
    };
    let starting = facts.others().filter(|fact| matches!(fact.what, What::PodWaits { .. })).count();
    let news = if starting == 0 { BACK_NEWS } else { BOOT_NEWS };
    let together = last.duration_since(first) <= TOGETHER && now.duration_since(last) < news;
    if boots.len() < 2 || boots.len() < nodes || !together {
        return Vec::new();
    }
    let effect = match starting {
        0 => "everything is back.".to_owned(),
        1 => "one pod still starts.".to_owned(),
        count => format!("{count} pods still start."),
    };
    let finding = Finding::new(&ALL_RESTARTED, CLUSTER).with("when", first.strftime("%H:%M")).with("effect", effect);
    let seen = |finding: Finding, (fact, at): &(&Fact, Timestamp)| {
        finding.seen(fact, format!("{} booted at {}", fact.by, at.strftime("%H:%M:%S")))
    };
    vec![boots.iter().fold(finding.since(Some(first)), seen)]
}

fn impostor_and_busy(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::JoinRefused { why: Refusal::Impostor } => {
            let words = format!("{} refused it: another key", fact.by);
            Some(Finding::of_node(&NODE_IMPOSTOR, &fact.about).act().seen(fact, words))
        }
        What::Lateness { millis } if LATE_MILLIS_MAX < *millis && fact.by == fact.about => {
            let words = format!("{}: a timer came {millis} ms late", fact.by);
            Some(Finding::of_node(&CPU_STARVED, &fact.about).with("millis", millis).seen(fact, words))
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}
