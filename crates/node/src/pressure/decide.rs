//! From what is measured to what the node shows and does. Pure: is told the time.

use std::collections::BTreeMap;

use api::Tree;
use jiff::{SignedDuration, Timestamp};

use super::{Condition, Signal, Threshold};
use crate::limits;

/// A condition stays this long after it was last seen: a node that hovers must not flap (`evictionPressureTransitionPeriod`).
pub const TRANSITION: SignedDuration = SignedDuration::from_mins(5);

/// How much there is of something, and how much of it is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub available: i64,
    pub capacity: i64,
}

/// What could be measured; a signal that is missing is not judged.
pub type Observations = BTreeMap<Signal, Amount>;

/// What the node shows: each condition with the time when it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    last_seen: BTreeMap<Condition, Timestamp>,
}

/// A threshold that is crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starved {
    pub signal: Signal,
    pub least: i64,
    pub available: i64,
}

/// The crossed thresholds, the worst first.
pub fn crossed(thresholds: &[Threshold], seen: &Observations) -> Vec<Starved> {
    let mut found: Vec<Starved> = thresholds
        .iter()
        .filter_map(|threshold| {
            let amount = seen.get(&threshold.signal)?;
            let least = threshold.amount(amount.capacity);
            let starved = Starved { signal: threshold.signal, least, available: amount.available };
            (amount.available < least).then_some(starved)
        })
        .collect();
    found.sort_by_key(|starved| starved.signal);
    found
}

impl History {
    pub fn conditions(&self) -> Vec<Condition> {
        self.last_seen.keys().copied().collect()
    }

    /// Takes a look in; answers what has to be won back first.
    pub fn look(&mut self, thresholds: &[Threshold], seen: &Observations, now: Timestamp) -> Option<Starved> {
        let crossed = crossed(thresholds, seen);
        for starved in &crossed {
            self.last_seen.insert(starved.signal.condition(), now);
        }
        self.last_seen.retain(|_, at| now.duration_since(*at) < TRANSITION);
        crossed.first().copied()
    }

    /// Goes on from the conditions of the Node object: an agent that starts must not clear what it did not see end. The
    /// next look drops what is too old.
    pub fn restore(&mut self, shown: &[Tree], now: Timestamp) {
        let on = |condition: &Condition| {
            shown
                .iter()
                .find(|one| one["type"] == condition.name() && one["status"] == "True")
                .map(|one| (*condition, one))
        };
        for (condition, one) in Condition::ALL.iter().filter_map(on) {
            let last = last_seen(one, now);
            let known = self.last_seen.entry(condition).or_insert(last);
            *known = last.max(*known);
        }
    }
}

/// The latest time at which a condition that is shown may have been seen: what holds is written again only so often.
fn last_seen(shown: &Tree, now: Timestamp) -> Timestamp {
    let time = |field: &str| shown[field].as_str()?.parse::<Timestamp>().ok();
    let written = time("lastHeartbeatTime").max(time("lastTransitionTime"));
    let next = written.and_then(|at| at.checked_add(limits::NODE_REPORT_EVERY).ok());
    next.map_or(now, |next| next.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::defaults;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// `memory disk inodes` in percent of 10 GiB and of 1000; what is shown and what is won back.
    fn check(history: &mut History, second: i64, percents: [i64; 3], wanted: &str) {
        let part = |percent: i64, capacity: i64| Amount { available: capacity / 100 * percent, capacity };
        let seen = Observations::from([
            (Signal::MemoryAvailable, part(percents[0], 10 << 30)),
            (Signal::NodeFsAvailable, part(percents[1], 10 << 30)),
            (Signal::NodeFsInodesFree, part(percents[2], 1000)),
        ]);
        let starved = history.look(&defaults(), &seen, at(second));
        let shown: Vec<&str> = history.conditions().iter().map(|condition| condition.name()).collect();
        let starved = starved.map_or("", |starved| starved.signal.name());
        assert_eq!(format!("{} | {starved}", shown.join(" ")), wanted);
    }

    #[test]
    fn pressure_comes_at_once_and_goes_slowly() {
        let mut history = History::default();
        check(&mut history, 0, [50, 50, 50], " | ");
        check(&mut history, 10, [0, 50, 50], "MemoryPressure | memory.available");
        // Better, but the condition stays for five minutes.
        check(&mut history, 20, [50, 50, 50], "MemoryPressure | ");
        check(&mut history, 300, [0, 50, 50], "MemoryPressure | memory.available");
        check(&mut history, 599, [50, 50, 50], "MemoryPressure | ");
        check(&mut history, 600, [50, 50, 50], " | ");
    }

    #[test]
    fn memory_is_won_back_before_disk_and_disk_before_inodes() {
        let mut history = History::default();
        check(&mut history, 0, [0, 4, 4], "MemoryPressure DiskPressure | memory.available");
        check(&mut history, 1, [50, 4, 4], "MemoryPressure DiskPressure | nodefs.available");
        check(&mut history, 2, [50, 6, 4], "MemoryPressure DiskPressure | nodefs.inodesFree");
    }

    #[test]
    fn what_cannot_be_measured_is_not_judged() {
        let mut history = History::default();
        assert_eq!(history.look(&defaults(), &Observations::new(), Timestamp::UNIX_EPOCH), None);
        assert_eq!(history, History::default());
    }

    /// `name status transition heartbeat`, times in seconds.
    fn restore(history: &mut History, script: &str, second: i64) {
        let one = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let time = |word: &str| at(word.parse().unwrap()).to_string();
            json!({"type": words[0], "status": words[1],
                "lastTransitionTime": time(words[2]), "lastHeartbeatTime": time(words[3])})
        };
        history.restore(&script.lines().map(one).collect::<Vec<_>>(), at(second));
    }

    #[test]
    fn a_restart_keeps_what_the_node_shows_for_as_long_as_it_may_have_been_there() {
        let shown =
            "DiskPressure True 0 1000\nMemoryPressure False 0 1000\nPIDPressure Unknown 0 1000\nReady True 0 1000";
        let mut history = History::default();
        restore(&mut history, shown, 1100);
        check(&mut history, 1100, [50, 50, 50], "DiskPressure | ");
        check(&mut history, 1399, [50, 50, 50], "DiskPressure | ");
        check(&mut history, 1400, [50, 50, 50], " | ");
        // Away for long: it counts until the report that did not come, and shows until the first look.
        restore(&mut history, shown, 2000);
        assert_eq!(history.conditions(), [Condition::Disk]);
        check(&mut history, 2000, [50, 50, 50], " | ");
        restore(&mut history, shown, 2000);
        check(&mut history, 2000, [50, 4, 50], "DiskPressure | nodefs.available");
        // A clock that went back does not hold it for longer.
        let mut history = History::default();
        restore(&mut history, shown, 10);
        check(&mut history, 310, [50, 50, 50], " | ");
    }

    #[test]
    fn what_was_seen_since_the_start_is_newer_than_what_the_node_shows() {
        let mut history = History::default();
        check(&mut history, 1500, [50, 4, 50], "DiskPressure | nodefs.available");
        restore(&mut history, "DiskPressure True 900 1000\nMemoryPressure True 1400 1400", 1510);
        check(&mut history, 1799, [50, 50, 50], "MemoryPressure DiskPressure | ");
        check(&mut history, 1800, [50, 50, 50], "MemoryPressure | ");
        check(&mut history, 1810, [50, 50, 50], " | ");
    }
}
