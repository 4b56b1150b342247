//! From what is measured to what the node shows and does. Pure: is told the time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Condition, Signal, Threshold};

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

/// What lies behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    last_seen: BTreeMap<Condition, Timestamp>,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Conditions that the node shows.
    pub conditions: Vec<Condition>,
    /// What has to be won back first.
    pub starved: Option<Starved>,
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
    pub fn look(&mut self, thresholds: &[Threshold], seen: &Observations, now: Timestamp) -> Decision {
        let crossed = crossed(thresholds, seen);
        for starved in &crossed {
            self.last_seen.insert(starved.signal.condition(), now);
        }
        self.last_seen.retain(|_, at| now.duration_since(*at) < TRANSITION);
        Decision { conditions: self.last_seen.keys().copied().collect(), starved: crossed.first().copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::defaults;

    /// `memory disk inodes` in percent of 10 GiB and of 1000; what is shown and what is won back.
    fn check(history: &mut History, second: i64, percents: [i64; 3], wanted: &str) {
        let part = |percent: i64, capacity: i64| Amount { available: capacity / 100 * percent, capacity };
        let seen = Observations::from([
            (Signal::MemoryAvailable, part(percents[0], 10 << 30)),
            (Signal::NodeFsAvailable, part(percents[1], 10 << 30)),
            (Signal::NodeFsInodesFree, part(percents[2], 1000)),
        ]);
        let decision = history.look(&defaults(), &seen, Timestamp::from_second(second).unwrap());
        let shown: Vec<&str> = decision.conditions.iter().map(|condition| condition.name()).collect();
        let starved = decision.starved.map_or("", |starved| starved.signal.name());
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
        let decision = History::default().look(&defaults(), &Observations::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(decision, Decision::default());
    }
}
