//! How long a plan takes: from what the same steps took in earlier runs of this cluster, else from what was measured
//! elsewhere. What a bake takes is known beforehand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::generation::NodeName;
use crate::journal::{Journal, Phase};
use crate::plan::{Action, Plan};

/// Of each kind of step, so many of the newest are looked at.
const SAMPLES_MAX: usize = 64;

/// Half of all took at most `p50`, nineteen of twenty at most `p95`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seconds {
    pub p50: u64,
    pub p95: u64,
}

/// What is expected of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    pub whole: Seconds,
    /// Of that, only watching.
    pub bake_seconds: u64,
    /// Of each node's own part, with the way back: what must fit into a window before it is begun.
    #[serde(default)]
    pub nodes: BTreeMap<NodeName, Seconds>,
    /// Earlier runs that this is taken from; 0 where the figures are not this cluster's own.
    pub runs: usize,
}

// === impl Seconds ===

impl Seconds {
    fn add(&mut self, other: Seconds) {
        self.p50 += other.p50;
        self.p95 += other.p95;
    }
}

// === impl Forecast ===

impl Forecast {
    /// `history`: earlier runs, the oldest first.
    pub fn of<'a>(plan: &Plan, history: impl Iterator<Item = (&'a Plan, &'a Journal)>) -> Forecast {
        let (mut taken, mut runs) = (BTreeMap::new(), 0);
        for (plan, journal) in history {
            runs += usize::from(collect(plan, journal, &mut taken));
        }
        let (whole, nodes) = (Seconds::default(), BTreeMap::new());
        let mut forecast = Forecast { whole, bake_seconds: 0, nodes, runs };
        for step in &plan.steps {
            let seconds = match &step.action {
                Action::Bake { seconds } => {
                    forecast.bake_seconds += u64::from(*seconds);
                    Seconds { p50: u64::from(*seconds), p95: u64::from(*seconds) }
                }
                action => taken.get(name(action)).map_or_else(|| shipped(action), |samples| quantiles(samples)),
            };
            forecast.whole.add(seconds);
            if let (Some(node), false) = (&step.node, step.action.prepares()) {
                let own = forecast.nodes.entry(node.clone()).or_default();
                own.add(seconds);
                if step.action.has_undo() {
                    own.add(seconds);
                }
            }
        }
        forecast
    }
}

/// Adds what the steps of a run took, each from the entry before it; false where there was none.
fn collect(plan: &Plan, journal: &Journal, taken: &mut BTreeMap<&'static str, Vec<u64>>) -> bool {
    let mut any = false;
    let mut began = None;
    for entry in journal.entries() {
        let action = entry.step.and_then(|step| plan.step(step)).map(|step| &step.action);
        match (&entry.phase, action, began) {
            (Phase::Done, Some(action), Some(before)) => {
                let seconds = entry.at.duration_since(before).as_secs();
                let samples = taken.entry(name(action)).or_default();
                samples.push(u64::try_from(seconds).unwrap_or_default());
                if SAMPLES_MAX < samples.len() {
                    samples.remove(0);
                }
                any = true;
            }
            // A pause is a person's time.
            (Phase::Paused { .. } | Phase::Stuck { .. }, _, _) => {
                began = None;
                continue;
            }
            _ => {}
        }
        began = Some(entry.at);
    }
    any
}

fn quantiles(samples: &[u64]) -> Seconds {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    // Of few samples the greatest is the best guess at what one of twenty takes.
    let at = |percent: usize| sorted[((sorted.len() - 1) * percent).div_ceil(100)];
    Seconds { p50: at(50), p95: at(95) }
}

fn name(action: &Action) -> &'static str {
    match action {
        Action::Stage { .. } => "stage",
        Action::Rehearse { .. } => "rehearse",
        Action::Backup => "backup",
        Action::HoldCheck => "hold-check",
        Action::Swap { .. } => "swap",
        Action::VerifyPlatform => "verify-platform",
        Action::VerifyWorkload => "verify-workload",
        Action::Bake { .. } => "bake",
        Action::Finalise { .. } => "finalise",
    }
}

/// Measured on three small machines.
fn shipped(action: &Action) -> Seconds {
    let (p50, p95) = match action {
        Action::Stage { .. } => (5, 20),
        Action::Backup => (2, 20),
        Action::Swap { .. } => (10, 40),
        Action::VerifyPlatform | Action::VerifyWorkload => (3, 20),
        Action::Rehearse { .. } | Action::HoldCheck | Action::Bake { .. } | Action::Finalise { .. } => (1, 5),
    };
    Seconds { p50, p95 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Token;
    use crate::journal::Draft;
    use crate::plan::{Step, StepId};
    use jiff::Timestamp;

    fn plan() -> Plan {
        let step = |id, action| Step { id: StepId(id), node: None, action, deadline_seconds: 60 };
        Plan { from: 1, to: 2, steps: vec![step(0, Action::Backup), step(1, Action::Bake { seconds: 180 })] }
    }

    fn run(backup_seconds: i64) -> Journal {
        let mut journal = Journal::new("r", 2);
        for (phase, at) in [(Phase::Intend, 100), (Phase::Done, 100 + backup_seconds)] {
            let draft = Draft { step: Some(StepId(0)), node: None, phase };
            let entry = journal.entry(draft, "n", Token(1), Timestamp::from_second(at).unwrap());
            journal.accept(entry).unwrap();
        }
        journal
    }

    #[test]
    fn a_nodes_part_has_its_way_back_and_not_what_was_done_before_it() {
        let node = NodeName("a".into());
        let release = || crate::generation::Release { version: "0.1.0".into(), program: crate::Digest::none() };
        let actions = [
            Action::Stage { release: release() },
            Action::HoldCheck,
            Action::Swap { from: release().into(), to: release().into() },
        ];
        let mut plan = Plan { from: 1, to: 2, steps: Vec::new() };
        for (id, action) in (0..).zip(actions) {
            plan.steps.push(Step { id: StepId(id), node: Some(node.clone()), action, deadline_seconds: 60 });
        }
        let forecast = Forecast::of(&plan, std::iter::empty());
        assert_eq!(forecast.nodes[&node], Seconds { p50: 21, p95: 85 });
        assert_eq!(forecast.whole, Seconds { p50: 16, p95: 65 });
    }

    #[test]
    fn own_history_comes_before_what_was_measured_elsewhere() {
        let plan = plan();
        let shipped = Forecast::of(&plan, std::iter::empty());
        assert_eq!((shipped.whole, shipped.runs), (Seconds { p50: 182, p95: 200 }, 0));
        let runs: Vec<Journal> = [4, 6, 30].map(run).into();
        let own = Forecast::of(&plan, runs.iter().map(|journal| (&plan, journal)));
        assert_eq!((own.whole.p50, own.bake_seconds, own.runs), (186, 180, 3));
        assert_eq!(own.whole.p95, 210);
    }
}
