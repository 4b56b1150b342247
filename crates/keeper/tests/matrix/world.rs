//! A cluster of three that exists only as facts: what every node runs, what it was told, and the one durable journal.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keeper::{Action, Effect, Fence, Input, Journal, NodeName, Order, Outcome, Phase, Release, Runs, Step, Token};

use crate::case::{Case, NODES, name, runs, told};

/// Looks that a node leaves without an answer after it was killed.
const SILENT_LOOKS: u32 = 2;

#[derive(Clone, Debug)]
struct Node {
    running: Runs,
    staged: Option<Release>,
    rehearsed: Option<Runs>,
    fence: Fence,
    swaps: u32,
    /// Its agent is not back yet for so many looks.
    away: u32,
    /// What was on trial when the agent was killed: it fell, and says so once.
    fell: bool,
}

/// How an agent is killed in the middle of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// Nothing of it was done.
    Before,
    /// All of it was done, and nobody heard.
    After,
    /// And what was on trial is given up for what ran before.
    AndFalls,
}

#[derive(Clone, Debug)]
pub struct World {
    pub case: Case,
    nodes: BTreeMap<NodeName, Node>,
    backup: bool,
    pub level: u32,
    /// Held for what belongs to no node.
    fence: Fence,
    pub journal: Journal,
    /// With this a node does not get well.
    pub bad: Option<(NodeName, Runs)>,
    /// Nobody reaches this node.
    pub silent: Option<NodeName>,
    /// The agent that gets the order of this number is killed by it.
    pub kill: Option<(usize, Kill)>,
    /// Orders to nodes so far.
    pub orders: usize,
    /// Where this node is looked at, somebody else is not well.
    pub in_the_way: Option<NodeName>,
    /// How often a bake answers that it is not over yet.
    patience: u32,
}

// === impl World ===

impl World {
    pub fn new(case: &Case) -> World {
        let node = |(text, before): (&str, &str)| {
            let (running, fence) = (runs(before), Fence::default());
            (name(text), Node { running, staged: None, rehearsed: None, fence, swaps: 0, away: 0, fell: false })
        };
        World {
            case: case.clone(),
            nodes: NODES.into_iter().zip(case.running).map(node).collect(),
            backup: false,
            level: case.from.level,
            fence: Fence::default(),
            journal: Journal::new("r1", case.to.number),
            bad: None,
            silent: None,
            kill: None,
            orders: 0,
            in_the_way: None,
            patience: 1,
        }
    }

    pub fn versions(&self) -> Vec<String> {
        self.nodes.values().map(|node| told(&node.running)).collect()
    }

    pub fn swaps(&self) -> Vec<u32> {
        self.nodes.values().map(|node| node.swaps).collect()
    }

    /// Every node runs what it shall, and what is stored has its form.
    pub fn has_arrived(&self) -> bool {
        self.versions() == self.case.target() && self.level == self.case.to.level
    }

    /// Every node runs what it ran before, and what is stored has the form it had.
    pub fn is_as_before(&self) -> bool {
        self.versions() == self.case.running && self.level == self.case.from.level
    }

    /// The step behind which there is no way back was intended.
    pub fn final_begun(&self) -> bool {
        let is_final = |entry: &keeper::Entry| entry.step.is_some_and(|step| self.case.is_final(step));
        self.journal.entries().iter().any(|entry| entry.phase == Phase::Intend && is_final(entry))
    }

    /// Carries an effect out. `None`: nothing to answer.
    pub fn perform(&mut self, effect: &Effect, token: Token, actor: &str) -> Option<Input> {
        let (order, step, verb) = match effect {
            Effect::Append(draft) => return Some(self.append(draft.clone(), token, actor)),
            Effect::Probe(order, step) => (order, step, 'p'),
            Effect::Apply(order, step) => (order, step, 'a'),
            Effect::Check(order, step) => (order, step, 'c'),
            Effect::Undo(order, step) => (order, step, 'u'),
            Effect::Wait | Effect::StandDown | Effect::Ended => return None,
        };
        let answer = |answer| Some(Input::Answer { step: step.id, answer });
        if step.node.is_some() && step.node == self.silent {
            return answer(Outcome::Bad { why: "it does not answer".to_owned() });
        }
        if self.is_away(step) {
            return answer(Outcome::NotYet);
        }
        if !self.admits(order, step) {
            return Some(Input::Refused);
        }
        let killed = if step.node.is_some() { self.is_killed() } else { None };
        if killed == Some(Kill::Before) {
            self.node(step).away = SILENT_LOOKS;
            return answer(Outcome::NotYet);
        }
        let outcome = match verb {
            'p' => self.probe(step),
            'a' => self.apply(step),
            'c' => self.check(step),
            _ => self.undo(step),
        };
        match killed {
            Some(kill) => {
                self.kill_after(step, verb, kill);
                answer(Outcome::NotYet)
            }
            None => answer(outcome),
        }
    }

    fn append(&mut self, draft: keeper::Draft, token: Token, actor: &str) -> Input {
        let entry = self.journal.entry(draft, actor, token, Timestamp::UNIX_EPOCH);
        match self.journal.accept(entry.clone()) {
            Ok(()) => Input::Appended(entry),
            Err(_) => Input::Refused,
        }
    }

    fn is_away(&mut self, step: &Step) -> bool {
        let Some(node) = step.node.as_ref().and_then(|node| self.nodes.get_mut(node)) else { return false };
        let away = node.away > 0;
        node.away = node.away.saturating_sub(1);
        away
    }

    /// Whether this order is the one that its agent does not survive.
    fn is_killed(&mut self) -> Option<Kill> {
        self.orders += 1;
        self.kill.filter(|(order, _)| order + 1 == self.orders).map(|(_, kill)| kill)
    }

    fn kill_after(&mut self, step: &Step, verb: char, kill: Kill) {
        let falls = kill == Kill::AndFalls && verb == 'a';
        let node = self.node(step);
        node.away = SILENT_LOOKS;
        if let (true, Action::Swap { from, .. }) = (falls, &step.action) {
            node.running = from.clone();
            node.fell = true;
        }
    }

    fn admits(&mut self, order: &Order, step: &Step) -> bool {
        let fence = match &step.node {
            Some(node) => &mut self.nodes.get_mut(node).unwrap().fence,
            None => &mut self.fence,
        };
        match fence.accept(*order) {
            Ok(raised) => {
                *fence = raised;
                true
            }
            Err(_) => false,
        }
    }

    fn node(&mut self, step: &Step) -> &mut Node {
        self.nodes.get_mut(step.node.as_ref().unwrap()).unwrap()
    }

    fn probe(&mut self, step: &Step) -> Outcome {
        let there = match &step.action {
            Action::Stage { release } => self.node(step).staged.as_ref() == Some(release),
            Action::Backup => self.backup,
            Action::Swap { to, .. } => {
                let node = self.node(step);
                if std::mem::take(&mut node.fell) {
                    return Outcome::Bad { why: "what was tried fell".to_owned() };
                }
                node.running == *to
            }
            Action::Finalise { level } => self.level == *level,
            Action::Rehearse { .. }
            | Action::HoldCheck
            | Action::VerifyPlatform
            | Action::VerifyWorkload
            | Action::Bake { .. } => {
                panic!("{step:?} has nothing to look for")
            }
        };
        if there { Outcome::Present } else { Outcome::Absent }
    }

    fn apply(&mut self, step: &Step) -> Outcome {
        match &step.action {
            Action::Stage { release } => self.node(step).staged = Some(release.clone()),
            Action::Backup => self.backup = true,
            Action::Swap { from, to } => {
                let node = self.node(step);
                assert_eq!(node.running, *from, "swapped twice");
                let staged = from.release == to.release || node.staged.as_ref() == Some(&to.release);
                assert!(staged, "swapped to a program that is not there");
                let rehearsed = to.settings.is_empty() || node.rehearsed.as_ref() == Some(to);
                assert!(rehearsed, "swapped to settings that nobody tried");
                node.running = to.clone();
                node.swaps += 1;
                self.one_at_a_time();
            }
            Action::Finalise { level } => {
                assert_eq!(self.versions(), self.case.target(), "an old program cannot read this");
                self.level = *level;
            }
            Action::Rehearse { .. }
            | Action::HoldCheck
            | Action::VerifyPlatform
            | Action::VerifyWorkload
            | Action::Bake { .. } => {
                panic!("{step:?} has nothing to apply")
            }
        }
        Outcome::Good
    }

    fn check(&mut self, step: &Step) -> Outcome {
        match &step.action {
            Action::HoldCheck | Action::VerifyPlatform if self.in_the_way.is_some() && self.in_the_way == step.node => {
                Outcome::Blocked { why: "another node is not well".into() }
            }
            Action::Rehearse { runs } => {
                self.node(step).rehearsed = Some(runs.clone());
                Outcome::Good
            }
            Action::VerifyPlatform if self.is_bad(step) => Outcome::Bad { why: "the node does not get well".into() },
            Action::Bake { .. } if self.patience > 0 => {
                self.patience -= 1;
                Outcome::NotYet
            }
            _ => Outcome::Good,
        }
    }

    fn undo(&mut self, step: &Step) -> Outcome {
        let Action::Swap { from, .. } = &step.action else { panic!("{step:?} has no undo") };
        assert_eq!(self.level, self.case.from.level, "the old program cannot read this any more");
        self.node(step).running = from.clone();
        Outcome::Good
    }

    fn is_bad(&mut self, step: &Step) -> bool {
        let (name, running) = (step.node.clone(), self.node(step).running.clone());
        self.bad.as_ref().is_some_and(|(node, bad)| Some(node) == name.as_ref() && *bad == running)
    }

    /// Whoever is swapped, all swapped before are verified: the journal says so.
    fn one_at_a_time(&self) {
        let plan = self.case.plan();
        let verified = |node: &NodeName| {
            let mut steps = plan.steps.iter().filter(|step| step.node.as_ref() == Some(node));
            let last = steps.rfind(|step| step.action == Action::VerifyWorkload).map(|step| step.id);
            last.is_none_or(|last| {
                self.journal.entries().iter().any(|entry| entry.step == Some(last) && entry.phase == Phase::Done)
            })
        };
        let changed = |(name, node): &(&NodeName, &Node)| node.running == self.case.to.nodes[*name].runs;
        let open = self.nodes.iter().filter(changed).filter(|(name, _)| !verified(name)).count();
        assert!(open <= 1, "two nodes are changed and not verified");
    }
}
