//! Who reaches whom: off, frozen, without its program, or cut off.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Detector;
use crate::wrong::code::Code;
use crate::wrong::fact::{API, Answers, Fact, Facts, Name, State, What};
use crate::wrong::finding::Finding;
use crate::wrong::table::network::{NODE_PARTITIONED, ONE_WAY_PARTITION, PATH_CUT};
use crate::wrong::table::node::{AGENT_DEAD, AGENT_HUNG, NODE_DOWN};
use crate::wrong::words::{ago, list};

pub const ALL: [Detector; 4] = [silent, one_way, path_cut, cut_off];

/// The first router of a machine, as a subject.
const GATEWAY: &str = "gateway";

/// What a witness found, the doors of a node taken together: one that answers is an answer.
fn touch(what: &What) -> Option<Answers> {
    let What::Reach { api, agent } = what else { return None };
    let doors: Vec<Answers> = api.iter().chain(agent).copied().collect();
    let order = [Answers::Yes, Answers::Frozen, Answers::Refused, Answers::Silent];
    order.into_iter().find(|answer| doors.contains(answer))
}

/// A machine whose kernel, at least, somebody hears.
pub fn is_alive(facts: &Facts, node: &str) -> bool {
    touches(facts, node).iter().any(|(_, answer)| *answer != Answers::Silent)
}

/// What others found of each node.
fn touches<'a>(facts: &'a Facts, node: &str) -> Vec<(&'a Fact, Answers)> {
    let of = |fact: &'a Fact| Some((fact, touch(&fact.what)?));
    facts.others().filter(|fact| fact.about == node).filter_map(of).collect()
}

fn subjects(facts: &Facts) -> BTreeSet<&Name> {
    let reached = facts.others().filter(|fact| matches!(fact.what, What::Reach { .. }));
    reached.map(|fact| &fact.about).filter(|about| *about != GATEWAY).collect()
}

/// What the cluster's record says of a node.
fn record<'a>(facts: &'a Facts, node: &str) -> Option<(&'a Fact, State, Option<Timestamp>)> {
    facts.others().filter(|fact| fact.about == node).find_map(|fact| match &fact.what {
        What::Node { state, since, .. } => Some((fact, *state, *since)),
        _ => None,
    })
}

/// Nodes that nobody gets an answer from, or only from their kernel.
fn silent(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    subjects(facts).into_iter().filter_map(|node| of_node(facts, node, now)).collect()
}

fn of_node(facts: &Facts, node: &str, now: Timestamp) -> Option<Finding> {
    let touches = touches(facts, node);
    let spoke = facts.facts.iter().any(|fact| fact.by == node);
    // What it says of itself is no judgement here, only that it said something is.
    if spoke || touches.iter().any(|(_, answer)| *answer == Answers::Yes) {
        return None;
    }
    let has = |wanted| touches.iter().any(|(_, answer)| *answer == wanted);
    let recorded = record(facts, node);
    let quiet = recorded.filter(|(_, state, _)| *state != State::Ready);
    let code: &'static Code = match (has(Answers::Refused), has(Answers::Frozen)) {
        (true, _) => &AGENT_DEAD,
        // A busy program may be slow to speak: a second witness is needed.
        (false, true) if quiet.is_some() || 2 <= touches.len() => &AGENT_HUNG,
        (false, true) => return None,
        (false, false) => &NODE_DOWN,
    };
    let mut finding = Finding::of_node(code, node);
    for (fact, answer) in &touches {
        finding = finding.seen(fact, format!("{} {}", fact.by, said(*answer, node)));
    }
    let since = quiet.and_then(|(_, _, since)| since);
    if let Some((fact, _, since)) = quiet {
        let last = since.map_or("never".to_owned(), |at| ago(at, now));
        finding = finding.seen(fact, format!("its last report came {last}"));
    }
    let elsewhere = facts.others().any(|fact| {
        fact.about != node && matches!(&fact.what, What::Node { state: State::Ready, cordoned: false, .. })
    });
    let effect = if elsewhere { "What may run elsewhere starts there by itself." } else { "What ran there is down." };
    let when = since.map_or("a moment ago".to_owned(), |at| ago(at, now));
    Some(finding.since(since).with("since", when).with("effect", effect))
}

fn said(answer: Answers, node: &str) -> String {
    match answer {
        Answers::Yes => format!("reaches {node}"),
        Answers::Refused => format!("is told by {node}'s kernel that nobody listens"),
        Answers::Frozen => format!("gets a connection to {node} and no word"),
        Answers::Silent => format!("gets no answer from {node}"),
    }
}

/// One hears the other, and not the other way round.
fn one_way(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let reach = facts.others().filter_map(|fact| Some((fact, touch(&fact.what)?)));
    let reach: Vec<(&Fact, Answers)> = reach.filter(|(fact, _)| fact.by != API && fact.about != GATEWAY).collect();
    let find = |(fact, answer): &(&Fact, Answers)| {
        let back = reach.iter().find(|(other, _)| other.by == fact.about && other.about == fact.by)?;
        if *answer != Answers::Silent || back.1 != Answers::Yes {
            return None;
        }
        // Who does not let others in has the rule more often than who does not send.
        let finding = Finding::of_node(&ONE_WAY_PARTITION, &fact.about).with("from", &fact.by).with("to", &fact.about);
        let words = format!("{} {}", fact.by, said(*answer, &fact.about));
        Some(finding.seen(fact, words).seen(back.0, format!("{} reaches {}", back.0.by, back.0.about)))
    };
    reach.iter().filter_map(find).collect()
}

/// Neither of two reaches the other, and somebody reaches both.
fn path_cut(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let reach = facts.others().filter_map(|fact| Some((fact, touch(&fact.what)?)));
    let reach: Vec<(&Fact, Answers)> = reach.filter(|(fact, _)| fact.by != API && fact.about != GATEWAY).collect();
    let silent = |(_, answer): &&(&Fact, Answers)| *answer == Answers::Silent;
    let reaches = |by: &str, about: &str| {
        reach.iter().any(|(fact, answer)| fact.by == by && fact.about == about && *answer == Answers::Yes)
    };
    let find = |(fact, _): &(&Fact, Answers)| {
        let (one, other) = (&fact.by, &fact.about);
        let back = reach.iter().filter(silent).find(|(back, _)| back.by == *other && back.about == *one)?;
        let third = reach.iter().map(|(fact, _)| &fact.by).find(|by| reaches(by, one) && reaches(by, other))?;
        let finding = Finding::of_node(&PATH_CUT, one).with("from", one).with("to", other).with("others", third);
        let finding = finding.seen(fact, format!("{one} {}", said(Answers::Silent, other)));
        (one < other).then(|| finding.seen(back.0, format!("{other} {}", said(Answers::Silent, one))))
    };
    reach.iter().filter(silent).filter_map(find).collect()
}

/// The machine that asks reaches nobody, and its own link or router says that it is this one.
fn cut_off(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let own = facts.others().filter(|fact| fact.by == facts.from);
    let mine: Vec<(&Fact, Answers)> = own.filter_map(|fact| Some((fact, touch(&fact.what)?))).collect();
    let (routers, peers): (Vec<_>, Vec<_>) = mine.into_iter().partition(|(fact, _)| fact.about == GATEWAY);
    let all_silent = !peers.is_empty() && peers.iter().all(|(_, answer)| *answer == Answers::Silent);
    let unplugged =
        facts.own().find(|fact| fact.about == facts.from && matches!(fact.what, What::Link { carrier: false, .. }));
    let router = routers.iter().find(|(_, answer)| *answer == Answers::Silent);
    let proof = match (unplugged, router) {
        (Some(fact), _) => Some((fact, "its own link is down")),
        (None, Some((fact, _))) if 2 <= peers.len() => Some((*fact, "its router does not answer either")),
        (None, _) => None,
    };
    let Some((fact, words)) = proof.filter(|_| all_silent) else { return Vec::new() };
    let names: Vec<&str> = peers.iter().map(|(fact, _)| fact.about.as_str()).collect();
    let finding = Finding::of_node(&NODE_PARTITIONED, &facts.from).with("others", list(&names)).seen(fact, words);
    vec![finding.seen(peers[0].0, format!("{} gets no answer from {}", facts.from, list(&names)))]
}
