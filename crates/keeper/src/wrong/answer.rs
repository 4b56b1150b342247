//! The answer: what is wrong first, how sure, what changed, what may still fail, what to do, who decides.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::code::{Class, Place};
use super::detect;
use super::detect::Voters;
use super::fact::{API, EngineKind, Facts, Name, RECORD, What};
use super::finding::Finding;
use super::suppress::unexplained;
use super::table::ALL;
use super::words::{ago, list};

/// A change is news for this long.
const CHANGE_NEWS: SignedDuration = SignedDuration::from_hours(24);
/// Observations shown behind the cause.
const SEEN_MAX: usize = 3;

/// What a person is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub cluster: String,
    /// The node it was asked from.
    pub from: Name,
    pub margin: Margin,
    pub apps: Apps,
    /// None where nothing is wrong.
    pub cause: Option<Cause>,
    /// The last change within a day.
    pub changed: Option<String>,
    pub decides: Option<String>,
    /// What else was found, most urgent first.
    pub others: Vec<Other>,
    /// Questions without an answer: what they would have shown is not known.
    pub unknown: Vec<String>,
    /// How the program ends: 0 fine, 2 attention, 4 a person must decide.
    pub exit: u8,
}

/// How many servers may still be lost before changes stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Margin {
    Known {
        servers: usize,
        spare: usize,
    },
    /// Changes are stopped already.
    Below {
        servers: usize,
        well: usize,
    },
    /// The state is on one machine.
    Single,
    Unknown,
}

/// Whether what people run is affected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "are")]
pub enum Apps {
    Well,
    Hurt {
        which: Vec<String>,
    },
    /// The record cannot be asked; containers that run on machines that answered.
    Unknown {
        containers: Option<u32>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Confidence {
    /// Seen by the only one that can see it, or by two that agree.
    Certain,
    /// One witness of something that others could have seen.
    Likely,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    pub code: &'static str,
    pub class: Class,
    pub about: Name,
    pub sentence: String,
    pub since: Option<Timestamp>,
    /// The observations behind it.
    pub seen: Vec<String>,
    pub confidence: Confidence,
    pub witnesses: Vec<Name>,
    pub command: String,
    /// The node to run it on; None where any will do.
    pub on: Option<Name>,
    pub risk: &'static str,
    pub time: &'static str,
    pub otherwise: String,
    pub decision: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    pub code: &'static str,
    pub class: Class,
    pub about: Name,
    pub sentence: String,
}

/// Answers what is wrong.
pub fn answer(facts: &Facts, now: Timestamp) -> Answer {
    let mut found = unexplained(merged(detect::all(facts, now)));
    found.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.about.cmp(&b.about)));
    let first = found.iter().position(|finding| finding.code.class != Class::Info);
    let first = first.map(|at| found.remove(at));
    let attention = |finding: &Finding| if finding.code.decision { 4 } else { 2 };
    // Without the record nobody can say that all is well.
    let blind = facts.missing.iter().any(|missing| missing.what == RECORD);
    Answer {
        cluster: facts.cluster.to_string(),
        from: facts.from.clone(),
        margin: margin(facts),
        apps: apps(facts),
        exit: first.as_ref().map_or(if blind { 2 } else { 0 }, attention),
        cause: first.map(cause),
        changed: changed(facts, now),
        decides: decides(facts),
        others: found.iter().map(other).collect(),
        unknown: facts.missing.iter().map(|missing| format!("{}: {}", missing.what, missing.why)).collect(),
    }
}

/// One finding for all witnesses of one thing.
fn merged(findings: Vec<Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::new();
    for finding in findings {
        match all.iter_mut().find(|known| known.code == finding.code && known.about == finding.about) {
            Some(known) => known.merge(finding),
            None => all.push(finding),
        }
    }
    all
}

/// Urgent ones first, then causes before symptoms as the table has them.
fn rank(finding: &Finding) -> (Class, usize) {
    let place = ALL.iter().position(|code| *code == finding.code);
    (finding.code.class, place.unwrap_or(ALL.len()))
}

fn cause(finding: Finding) -> Cause {
    let code = finding.code;
    // Only what others could have seen as well wants a second witness.
    let seen_afar = finding.node.as_ref().is_some_and(|node| !finding.witnesses.contains(node));
    let alone = finding.witnesses.len() < 2 && !finding.witnesses.contains(API) && !finding.act;
    let confidence = if alone && seen_afar { Confidence::Likely } else { Confidence::Certain };
    Cause {
        code: code.name,
        class: code.class,
        about: finding.about.clone(),
        sentence: finding.sentence(),
        since: finding.since,
        seen: finding.seen.iter().take(SEEN_MAX).cloned().collect(),
        confidence,
        witnesses: finding.witnesses.iter().cloned().collect(),
        command: finding.fill(code.command),
        on: finding.run_on.clone().or(finding.node.clone()).filter(|_| code.place == Place::There),
        risk: code.risk.word(),
        time: code.time,
        otherwise: finding.fill(code.otherwise),
        decision: code.decision,
    }
}

fn other(finding: &Finding) -> Other {
    let code = finding.code;
    Other { code: code.name, class: code.class, about: finding.about.clone(), sentence: finding.sentence() }
}

fn margin(facts: &Facts) -> Margin {
    let engine = facts.facts.iter().find_map(|fact| match fact.what {
        What::Store { engine } => Some(engine),
        _ => None,
    });
    let voters = Voters::of(facts);
    let (servers, well) = (voters.count(), voters.there());
    match (engine, servers) {
        (Some(EngineKind::Sqlite), _) | (_, 1) => Margin::Single,
        (_, 0) => Margin::Unknown,
        _ => match well.checked_sub(servers / 2 + 1) {
            Some(spare) => Margin::Known { servers, spare },
            None => Margin::Below { servers, well },
        },
    }
}

fn apps(facts: &Facts) -> Apps {
    let asked = facts.facts.iter().any(|fact| fact.by == API);
    if !asked {
        let running = facts.facts.iter().filter_map(|fact| match fact.what {
            What::Containers { running } => Some(running),
            _ => None,
        });
        return Apps::Unknown { containers: running.reduce(u32::saturating_add) };
    }
    let hurt = facts.facts.iter().filter_map(|fact| match fact.what {
        What::Workload { wanted, ready, platform: false } if ready < wanted => {
            Some(format!("{} ({ready} of {wanted})", fact.about))
        }
        _ => None,
    });
    let which: Vec<String> = hurt.collect();
    if which.is_empty() { Apps::Well } else { Apps::Hurt { which } }
}

fn changed(facts: &Facts, now: Timestamp) -> Option<String> {
    let changes = facts.facts.iter().filter_map(|fact| match &fact.what {
        What::Change { what, who, when } if now.duration_since(*when) < CHANGE_NEWS => {
            Some((*when, what.clone(), who.as_str()))
        }
        // A change by hand is a change.
        What::Drift { what, first, .. } if now.duration_since(*first) < CHANGE_NEWS => {
            Some((*first, format!("by hand on {}: {what}", fact.about), ""))
        }
        _ => None,
    });
    let (when, what, who) = changes.max_by_key(|(when, ..)| *when)?;
    let who = if who.is_empty() { String::new() } else { format!(" by {who}") };
    Some(format!("{what} {}{who}", ago(when, now)))
}

fn decides(facts: &Facts) -> Option<String> {
    let named = facts.facts.iter().find_map(|fact| match &fact.what {
        What::Decider { name, stand_in } => Some(vec![name.as_str(), stand_in.as_str()]),
        _ => None,
    })?;
    let named: Vec<&str> = named.into_iter().filter(|name| !name.is_empty()).collect();
    match named.as_slice() {
        [name, stand_in] => Some(format!("{name} (stand-in: {stand_in})")),
        names => Some(list(names)),
    }
}
