//! The way from what is to what shall be: ordered steps that leave no choice to whoever carries them out.
//!
//! The same inputs give the same plan, and so the same name: a plan can be reviewed before it is armed.

use base::SmolStr;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::generation::{Generation, NodeName, NodeTarget, Release, Role, Runs};
use crate::inventory::Inventory;

/// How long a changed node is watched before the next is touched: the first one, and the others.
const BAKE_CANARY_SECONDS: u32 = 600;
const BAKE_SECONDS: u32 = 180;
/// Nobody watches a node longer than this before the next.
pub const BAKE_SECONDS_MAX: u32 = 24 * 3600;

/// Deadlines after which a step has failed.
const STAGE_SECONDS: u32 = 300;
const BACKUP_SECONDS: u32 = 600;
const SWAP_SECONDS: u32 = 120;
const VERIFY_SECONDS: u32 = 300;
const FINALISE_SECONDS: u32 = 60;
const CHECK_SECONDS: u32 = 30;

/// Place of a step in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Action {
    /// The release's program lies on the node, whole: nothing is swapped before it does on all nodes.
    Stage {
        release: Release,
    },
    /// The node's program takes these settings: nothing is swapped before each one does on its node.
    Rehearse {
        runs: Runs,
    },
    /// A bundle of the cluster that was made for this run.
    Backup,
    /// The node may be touched now: everybody else is well, and stays so without it.
    HoldCheck,
    Swap {
        from: Runs,
        to: Runs,
    },
    /// The node is back and well, as its peers see it.
    VerifyPlatform,
    /// What was ready before is ready again.
    VerifyWorkload,
    Bake {
        seconds: u32,
    },
    /// Raises the format of what is stored. There is no way back behind it but a restore.
    Finalise {
        level: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub id: StepId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    #[serde(flatten)]
    pub action: Action,
    pub deadline_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub from: u64,
    pub to: u64,
    pub steps: Vec<Step>,
}

/// How long changed nodes are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// The first one: what is wrong with the release shows there.
    pub canary_seconds: u32,
    pub seconds: u32,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("generation {to} is not a child of generation {from}")]
    Unrelated { from: u64, to: u64 },
    #[error("joining and removing nodes are changes of their own: {node:?} is in only one of the generations")]
    Nodes { node: SmolStr },
    #[error("nothing was seen of {node:?}: a plan needs to know what it runs")]
    Unseen { node: SmolStr },
    #[error("{node:?} is not well: make it well, or replace it, before anything is changed")]
    Unwell { node: SmolStr },
    #[error("one more server that stops would stop all changes: the margin is {margin}")]
    NoMargin { margin: i64 },
    #[error("from {from} to {to} skips a minor version: upgrade one at a time")]
    Skew { from: SmolStr, to: SmolStr },
    #[error("{version:?} is not a version")]
    Version { version: SmolStr },
}

// === impl Action ===

impl Action {
    /// Changes something; the others only look.
    pub fn has_effect(&self) -> bool {
        match self {
            Action::Stage { .. } | Action::Backup | Action::Swap { .. } | Action::Finalise { .. } => true,
            Action::Rehearse { .. }
            | Action::HoldCheck
            | Action::VerifyPlatform
            | Action::VerifyWorkload
            | Action::Bake { .. } => false,
        }
    }

    /// Leaves something that going back must take away. A staged program and a backup harm nobody.
    pub fn has_undo(&self) -> bool {
        matches!(self, Action::Swap { .. })
    }

    /// Is done for all nodes before one is touched; what it leaves there touches nobody.
    pub fn prepares(&self) -> bool {
        matches!(self, Action::Stage { .. } | Action::Rehearse { .. })
    }

    /// After it there is no way back.
    pub fn is_final(&self) -> bool {
        matches!(self, Action::Finalise { .. })
    }
}

// === impl Pace ===

impl Pace {
    /// The same for every node; a day at most.
    pub fn even(seconds: u32) -> Pace {
        let seconds = seconds.min(BAKE_SECONDS_MAX);
        Pace { canary_seconds: seconds, seconds }
    }
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { canary_seconds: BAKE_CANARY_SECONDS, seconds: BAKE_SECONDS }
    }
}

// === impl Plan ===

impl Plan {
    /// The name of this plan: same inputs, same name.
    pub fn digest(&self) -> Digest {
        Digest::of(self)
    }

    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(id.0 as usize)
    }

    /// The first step of a node's own part: before it, no node is half done.
    pub fn begins_node(&self, id: StepId) -> bool {
        let first = |action: &Action| *action == Action::HoldCheck || action.prepares();
        self.step(id).is_none_or(|step| step.node.is_none() || first(&step.action))
    }

    /// The way from one generation to its child, one node at a time: servers before agents, so that no kubelet is newer
    /// than an API server; those whose work would be missed last. Nodes that are there already are left alone.
    ///
    /// # Errors
    /// When the way is not safe, or not known.
    pub fn new(from: &Generation, to: &Generation, inventory: &Inventory, pace: Pace) -> Result<Plan, PlanError> {
        check(from, to, inventory)?;
        let changed = changed(to, inventory);
        let mut plan = Plan { from: from.number, to: to.number, steps: Vec::new() };
        for (name, target, _) in changed.iter().filter(|(_, target, running)| target.runs.release != running.release) {
            plan.push(Some(name), Action::Stage { release: target.runs.release.clone() }, STAGE_SECONDS);
        }
        for (name, target, _) in changed.iter().filter(|(_, target, _)| !target.runs.settings.is_empty()) {
            plan.push(Some(name), Action::Rehearse { runs: target.runs.clone() }, CHECK_SECONDS);
        }
        if !changed.is_empty() || from.level < to.level {
            plan.push(None, Action::Backup, BACKUP_SECONDS);
        }
        for (place, (name, target, running)) in changed.iter().enumerate() {
            let swap = Action::Swap { from: (*running).clone(), to: target.runs.clone() };
            let seconds = if place == 0 { pace.canary_seconds } else { pace.seconds };
            plan.push(Some(name), Action::HoldCheck, CHECK_SECONDS);
            plan.push(Some(name), swap, SWAP_SECONDS);
            plan.push(Some(name), Action::VerifyPlatform, VERIFY_SECONDS);
            plan.push(Some(name), Action::VerifyWorkload, VERIFY_SECONDS);
            plan.push(Some(name), Action::Bake { seconds }, seconds + CHECK_SECONDS);
        }
        if from.level < to.level {
            plan.push(None, Action::Finalise { level: to.level }, FINALISE_SECONDS);
        }
        Ok(plan)
    }

    fn push(&mut self, node: Option<&NodeName>, action: Action, deadline_seconds: u32) {
        let id = StepId(u32::try_from(self.steps.len()).expect("NODES_MAX bounds the steps of a plan"));
        self.steps.push(Step { id, node: node.cloned(), action, deadline_seconds });
    }
}

fn check(from: &Generation, to: &Generation, inventory: &Inventory) -> Result<(), PlanError> {
    if to.parent != from.digest() {
        return Err(PlanError::Unrelated { from: from.number, to: to.number });
    }
    let names = |one: &Generation, other: &Generation| {
        one.nodes.keys().find(|name| !other.nodes.contains_key(*name)).map(|name| name.0.clone())
    };
    if let Some(node) = names(from, to).or_else(|| names(to, from)) {
        return Err(PlanError::Nodes { node });
    }
    for (name, target) in &to.nodes {
        let seen = inventory.nodes.get(name).ok_or_else(|| PlanError::Unseen { node: name.0.clone() })?;
        if !seen.ready {
            return Err(PlanError::Unwell { node: name.0.clone() });
        }
        check_skew(&seen.runs.release.version, &target.runs.release.version)?;
    }
    // One server is never redundant: its restart is what its people chose. Two are worse off than one.
    let margin = inventory.margin();
    if 1 < inventory.servers() && margin < 1 {
        return Err(PlanError::NoMargin { margin });
    }
    Ok(())
}

/// One minor version at a time, in either direction.
fn check_skew(from: &SmolStr, to: &SmolStr) -> Result<(), PlanError> {
    let (old, new) = (minor(from)?, minor(to)?);
    if old.0 != new.0 || 1 < old.1.abs_diff(new.1) {
        return Err(PlanError::Skew { from: from.clone(), to: to.clone() });
    }
    Ok(())
}

fn minor(version: &SmolStr) -> Result<(u32, u32), PlanError> {
    let bad = || PlanError::Version { version: version.clone() };
    let mut parts = version.trim_start_matches('v').splitn(3, '.');
    let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or_else(bad);
    Ok((number()?, number()?))
}

/// The nodes that do not run what they shall, in the order they are touched.
fn changed<'a>(to: &'a Generation, inventory: &'a Inventory) -> Vec<(&'a NodeName, &'a NodeTarget, &'a Runs)> {
    let seen = |name: &NodeName| inventory.nodes.get(name).map(|seen| (&seen.runs, seen.delicate));
    let mut nodes: Vec<_> = to
        .nodes
        .iter()
        .filter_map(|(name, target)| seen(name).map(|(running, delicate)| (name, target, running, delicate)))
        .filter(|(_, target, running, _)| target.runs != **running)
        .collect();
    nodes.sort_by_key(|(name, target, _, delicate)| (target.role != Role::Server, *delicate, (*name).clone()));
    nodes.into_iter().map(|(name, target, running, _)| (name, target, running)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Observed;
    use crate::settings::Settings;
    use jiff::Timestamp;

    fn release(version: &str) -> Release {
        Release { version: version.into(), program: Digest::of_bytes(version.as_bytes()) }
    }

    fn generation(number: u64, parent: Digest, version: &str) -> Generation {
        let target = |role| NodeTarget { role, runs: release(version).into() };
        let nodes = [("a", Role::Agent), ("s1", Role::Server), ("s2", Role::Server), ("s3", Role::Server)];
        let nodes = nodes.map(|(name, role)| (NodeName(name.into()), target(role))).into();
        Generation { cluster: "shop".into(), number, parent, level: 1, nodes }
    }

    fn seen(of: &Generation, delicate: &str) -> Inventory {
        let observed = |(name, target): (&NodeName, &NodeTarget)| {
            let (role, runs) = (target.role, target.runs.clone());
            let delicate = name.0 == delicate;
            (name.clone(), Observed { role, runs, ready: true, delicate, at: Timestamp::UNIX_EPOCH })
        };
        Inventory { nodes: of.nodes.iter().map(observed).collect() }
    }

    fn swaps(plan: &Plan) -> Vec<&str> {
        let swaps = plan.steps.iter().filter(|step| matches!(step.action, Action::Swap { .. }));
        swaps.map(|step| step.node.as_ref().unwrap().0.as_str()).collect()
    }

    #[test]
    fn servers_come_first_and_the_delicate_last_of_them() {
        let from = generation(1, Digest::none(), "0.1.0");
        let to = generation(2, from.digest(), "0.2.0");
        let plan = Plan::new(&from, &to, &seen(&from, "s1"), Pace::default()).unwrap();
        assert_eq!(swaps(&plan), ["s2", "s3", "s1", "a"]);
        assert_eq!(plan.digest(), Plan::new(&from, &to, &seen(&from, "s1"), Pace::default()).unwrap().digest());
        let first_swap = plan.steps.iter().position(|step| matches!(step.action, Action::Swap { .. })).unwrap();
        let staged = plan.steps[..first_swap].iter().filter(|step| matches!(step.action, Action::Stage { .. }));
        assert_eq!(staged.count(), 4, "the program lies on all nodes before one is touched");
    }

    #[test]
    fn settings_are_rehearsed_everywhere_before_a_node_is_touched() {
        let from = generation(1, Digest::none(), "0.1.0");
        let mut to = generation(2, from.digest(), "0.1.0");
        let repair = Settings::new([("drift-policy".into(), vec!["repair".into()])].into()).unwrap();
        for name in ["s3", "a"] {
            to.nodes.get_mut(&NodeName(name.into())).unwrap().runs.settings = repair.clone();
        }
        let plan = Plan::new(&from, &to, &seen(&from, ""), Pace::default()).unwrap();
        let looks = plan.steps.iter().map(|step| match step.action {
            Action::Rehearse { .. } => 'r',
            Action::Stage { .. } => 's',
            Action::Swap { .. } => 'x',
            _ => '.',
        });
        assert_eq!(
            looks.collect::<String>(),
            "rr..x....x...",
            "who is not changed is left alone, and nothing is brought"
        );
        let there = Plan::new(&from, &to, &seen(&to, ""), Pace::default()).unwrap();
        assert_eq!(there.steps, [], "the same file once more changes nothing");
    }

    #[test]
    fn who_is_there_already_is_left_alone() {
        let from = generation(1, Digest::none(), "0.1.0");
        let to = generation(2, from.digest(), "0.2.0");
        let mut inventory = seen(&from, "");
        inventory.nodes.get_mut(&NodeName("s2".into())).unwrap().runs = release("0.2.0").into();
        assert_eq!(swaps(&Plan::new(&from, &to, &inventory, Pace::default()).unwrap()), ["s1", "s3", "a"]);
        let there = seen(&to, "");
        assert_eq!(Plan::new(&from, &to, &there, Pace::default()).unwrap().steps, [], "the goal is stable");
    }

    #[test]
    fn what_is_not_safe_is_refused_with_a_reason() {
        let from = generation(1, Digest::none(), "0.1.0");
        let plan = |version: &str, change: &dyn Fn(&mut Inventory)| {
            let to = generation(2, from.digest(), version);
            let mut inventory = seen(&from, "");
            change(&mut inventory);
            Plan::new(&from, &to, &inventory, Pace::default()).unwrap_err().to_string()
        };
        let server = NodeName("s1".into());
        assert_eq!(plan("0.3.0", &|_| ()), "from 0.1.0 to 0.3.0 skips a minor version: upgrade one at a time");
        let down = plan("0.2.0", &|seen| seen.nodes.get_mut(&server).unwrap().ready = false);
        assert_eq!(down, "\"s1\" is not well: make it well, or replace it, before anything is changed");
        let unseen = plan("0.2.0", &|seen| drop(seen.nodes.remove(&server)));
        assert_eq!(unseen, "nothing was seen of \"s1\": a plan needs to know what it runs");
        assert_eq!(plan("next", &|_| ()), "\"next\" is not a version");
    }
}
