//! The state: its copies, their leader, their backups.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Detector;
use super::reach::is_alive;
use crate::wrong::fact::{Alarm, CLUSTER, Fact, Facts, Name, Refusal, What};
use crate::wrong::finding::Finding;
use crate::wrong::table::store::{
    BACKUP_FAILED, BACKUP_UNRESTORABLE, DEFRAG_STALL, LEADER_FLAPPING, OLD_MEMBER, QUORUM_AT_RISK, QUORUM_LOST,
    RESTORED, SERVERS_STOPPED, STORE_CORRUPT, STORE_FULL,
};
use crate::wrong::words::{ago, bytes, day, list, span};

pub const ALL: [Detector; 6] = [quorum, alarms, leaders, refused, backups, restores];

/// Fill of a member's database at which it is called full before it is: in percent.
const FILL_PERCENT_MAX: u64 = 90;
/// Leader changes within ten minutes that are no longer a restart.
const LEADER_CHANGES_MAX: u32 = 3;
/// A clean-up that holds a member up for longer is told.
const MAINTENANCE_MILLIS_MAX: u64 = 5_000;
/// A restore is news for this long.
const RESTORE_NEWS: SignedDuration = SignedDuration::from_hours(24);

/// A voting copy of the state.
#[derive(Default)]
pub struct Voter<'a> {
    /// Somebody else found it well. Where nobody else looked, its own word has to do.
    well: bool,
    answers: bool,
    seen: Vec<&'a Fact>,
}

/// All of them, and whether one is led by anybody at all.
pub struct Voters<'a> {
    all: BTreeMap<&'a Name, Voter<'a>>,
    led: bool,
}

// === impl Voters ===

impl<'a> Voters<'a> {
    pub fn of(facts: &'a Facts) -> Voters<'a> {
        let mut all: BTreeMap<&Name, Voter<'_>> = BTreeMap::new();
        let members = || facts.facts.iter().filter(|fact| matches!(fact.what, What::Member { voter: true, .. }));
        for fact in members() {
            let others = members().any(|other| other.about == fact.about && other.by != other.about);
            let What::Member { healthy, answers, .. } = fact.what else { continue };
            let voter = all.entry(&fact.about).or_default();
            voter.answers |= healthy || answers;
            if fact.by != fact.about || !others {
                voter.well |= healthy;
                voter.seen.push(fact);
            }
        }
        let led = all.values().any(|voter| voter.well);
        Voters { all, led }
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Those that are there. Without a quorum nobody is led, and those that answer are.
    pub fn there(&self) -> usize {
        self.all.values().filter(|voter| self.is_there(voter)).count()
    }

    fn is_there(&self, voter: &Voter<'_>) -> bool {
        if self.led { voter.well } else { voter.answers }
    }
}

fn quorum(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let voters = Voters::of(facts);
    // Of one copy its API tells.
    if voters.count() < 2 {
        return Vec::new();
    }
    let down: Vec<(&Name, &Voter<'_>)> =
        voters.all.iter().filter(|(_, voter)| !voters.is_there(voter)).map(|(name, voter)| (*name, voter)).collect();
    let Some((first, _)) = down.first() else { return Vec::new() };
    let lost = voters.there() * 2 <= voters.count();
    let alive = down.iter().map(|(name, _)| *name).find(|name| is_alive(facts, name));
    let names: Vec<&str> = down.iter().map(|(name, _)| name.as_str()).collect();
    let mut finding = match (lost, alive) {
        (false, _) => Finding::of_node(&QUORUM_AT_RISK, first),
        (true, Some(alive)) => Finding::new(&SERVERS_STOPPED, CLUSTER).on(alive),
        (true, None) => Finding::new(&QUORUM_LOST, CLUSTER).on(first).run_on(survivor(facts, &voters)),
    };
    finding = finding.with("down", down.len()).with("voters", voters.count()).with("members", list(&names));
    for (name, voter) in &down {
        for fact in &voter.seen {
            finding = finding.seen(fact, format!("{} gets no answer from the state on {name}", fact.by));
        }
    }
    vec![finding]
}

/// A server whose copy is there: the one that was asked from, if it is one.
fn survivor<'a>(facts: &'a Facts, voters: &Voters<'a>) -> &'a str {
    let mut there = voters.all.iter().filter(|(_, voter)| voters.is_there(voter)).map(|(name, _)| name.as_str());
    if voters.all.contains_key(&facts.from) { &facts.from } else { there.next().unwrap_or(&facts.from) }
}

fn alarms(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::Member { bytes: size, quota, alarm, .. } = &fact.what else { return None };
        let fill = size.saturating_mul(100).checked_div(*quota).unwrap_or_default();
        match alarm {
            Some(Alarm::Corrupt) => {
                let words = format!("{}: the copy on {} differs", fact.by, fact.about);
                Some(Finding::of_node(&STORE_CORRUPT, &fact.about).seen(fact, words))
            }
            Some(Alarm::NoSpace) => Some(full(fact, "100 %".to_owned(), *size)),
            None if FILL_PERCENT_MAX <= fill => Some(full(fact, format!("{fill} %"), *size)),
            None => None,
        }
    };
    facts.facts.iter().filter_map(find).collect()
}

fn full(fact: &Fact, fill: String, size: u64) -> Finding {
    let words = format!("{}: the database on {} holds {}", fact.by, fact.about, bytes(size));
    Finding::of_node(&STORE_FULL, &fact.about).with("fill", fill).seen(fact, words)
}

fn leaders(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match fact.what {
        What::LeaderChanges { count, minutes } if LEADER_CHANGES_MAX < count => {
            let finding = Finding::new(&LEADER_FLAPPING, CLUSTER).with("count", count).with("minutes", minutes);
            Some(finding.seen(fact, format!("{}: {count} leaders in {minutes} min", fact.by)))
        }
        What::Maintenance { millis } if MAINTENANCE_MILLIS_MAX < millis => {
            let words = format!("{}: {millis} ms on {}", fact.by, fact.about);
            Some(Finding::of_node(&DEFRAG_STALL, &fact.about).with("millis", millis).seen(fact, words))
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}

fn refused(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match fact.what {
        What::JoinRefused { why: Refusal::OtherCluster } => {
            let finding = Finding::of_node(&OLD_MEMBER, &fact.about).act().with("data", "its data folder");
            Some(finding.seen(fact, format!("{} refused it: another cluster's identity", fact.by)))
        }
        _ => None,
    };
    facts.others().filter_map(find).collect()
}

fn backups(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Backup { last_good: Some(at), overdue, target, error }
            if !error.is_empty() || overdue.is_some_and(|overdue| overdue < now) =>
        {
            let age = now.duration_since(*at);
            let why = match (target.is_empty(), error.is_empty()) {
                (_, true) => String::new(),
                (true, false) => format!(": {error}"),
                (false, false) => format!(": {target} answers: {error}"),
            };
            let finding = Finding::new(&BACKUP_FAILED, CLUSTER).with("age", span(age)).with("why", why);
            let words = format!("{}: the newest good one is of {}", fact.by, ago(*at, now));
            Some(finding.with("target", target).since(Some(*at)).seen(fact, words))
        }
        What::RestoreProof { ok: false, of, why } => {
            let older = facts.facts.iter().filter_map(|other| match &other.what {
                What::RestoreProof { ok: true, of, .. } => Some(*of),
                _ => None,
            });
            let older = older.max().map_or(String::new(), |at| format!(" The last proven one is of {}.", day(at)));
            let finding = Finding::new(&BACKUP_UNRESTORABLE, CLUSTER).with("day", day(*of)).with("why", why);
            Some(finding.with("older", older).seen(fact, format!("{}: the trial failed: {why}", fact.by)))
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}

fn restores(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match &fact.what {
        What::Restored { to, when } if now.duration_since(*when) < RESTORE_NEWS => {
            let finding = Finding::new(&RESTORED, CLUSTER).with("to", to.strftime("%Y-%m-%d %H:%M"));
            Some(finding.since(Some(*when)).seen(fact, format!("{}: restored {}", fact.by, ago(*when, now))))
        }
        _ => None,
    };
    facts.facts.iter().filter_map(find).collect()
}
