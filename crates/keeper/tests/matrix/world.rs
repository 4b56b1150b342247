//! A cluster of three that exists only as facts: what every node runs, what it was told, and the one durable journal.

use std::collections::{BTreeMap, VecDeque};

use base::{Rng, SeededRng};
use jiff::Timestamp;
use keeper::{
    Action, Attention, Digest, Effect, Fence, Generation, Input, Inventory, Journal, NodeName, NodeTarget, Observed,
    Order, Outcome, Plan, Release, Role, Run, Step, Token,
};

pub const NODES: [&str; 3] = ["a", "b", "c"];
/// A run of three nodes ends within this many effects, or not at all.
pub const EFFECTS_MAX: usize = 400;

#[derive(Clone, Debug)]
struct Node {
    running: Release,
    staged: Option<Release>,
    fence: Fence,
    swaps: u32,
}

#[derive(Clone, Debug)]
pub struct World {
    nodes: BTreeMap<NodeName, Node>,
    backup: bool,
    pub level: u32,
    /// Held for what belongs to no node.
    fence: Fence,
    pub journal: Journal,
    /// With this release a node does not get well.
    pub bad: Option<(NodeName, Release)>,
    /// Nobody reaches this node.
    pub silent: Option<NodeName>,
    /// How often a bake answers that it is not over yet.
    patience: u32,
}

pub fn release(version: &str) -> Release {
    Release { version: version.into(), program: Digest::of_bytes(version.as_bytes()) }
}

pub fn name(text: &str) -> NodeName {
    NodeName(text.into())
}

pub fn generation(number: u64, parent: Digest, version: &str, level: u32) -> Generation {
    let target = NodeTarget { role: Role::Server, release: release(version) };
    let nodes = NODES.map(|node| (name(node), target.clone())).into();
    Generation { cluster: "lab".into(), number, parent, level, nodes }
}

pub fn inventory(version: &str) -> Inventory {
    let seen = |node: &str| Observed {
        role: Role::Server,
        release: release(version),
        ready: true,
        delicate: node == "a",
        at: Timestamp::UNIX_EPOCH,
    };
    Inventory { nodes: NODES.map(|node| (name(node), seen(node))).into() }
}

/// From 0.1.0 to 0.2.0, with a new format at the end.
pub fn plan() -> Plan {
    let from = generation(1, Digest::none(), "0.1.0", 1);
    let to = generation(2, from.digest(), "0.2.0", 2);
    Plan::new(&from, &to, &inventory("0.1.0"), keeper::Pace::default()).unwrap()
}

// === impl World ===

impl World {
    pub fn new() -> World {
        let node = Node { running: release("0.1.0"), staged: None, fence: Fence::default(), swaps: 0 };
        World {
            nodes: NODES.map(|text| (name(text), node.clone())).into(),
            backup: false,
            level: 1,
            fence: Fence::default(),
            journal: Journal::new("r1", 2),
            bad: None,
            silent: None,
            patience: 1,
        }
    }

    pub fn versions(&self) -> Vec<&str> {
        self.nodes.values().map(|node| node.running.version.as_str()).collect()
    }

    pub fn swaps(&self) -> Vec<u32> {
        self.nodes.values().map(|node| node.swaps).collect()
    }

    /// Carries an effect out. `None`: nothing to answer.
    pub fn perform(&mut self, effect: &Effect, token: Token) -> Option<Input> {
        let (order, step, verb) = match effect {
            Effect::Append(draft) => return Some(self.append(draft.clone(), token)),
            Effect::Probe(order, step) => (order, step, 'p'),
            Effect::Apply(order, step) => (order, step, 'a'),
            Effect::Check(order, step) => (order, step, 'c'),
            Effect::Undo(order, step) => (order, step, 'u'),
            Effect::Wait | Effect::StandDown | Effect::Ended => return None,
        };
        if step.node.is_some() && step.node == self.silent {
            let why = "it does not answer".to_owned();
            return Some(Input::Answer { step: step.id, answer: Outcome::Bad { why } });
        }
        if !self.admits(order, step) {
            return Some(Input::Refused);
        }
        let answer = match verb {
            'p' => self.probe(step),
            'a' => self.apply(step),
            'c' => self.check(step),
            _ => self.undo(step),
        };
        Some(Input::Answer { step: step.id, answer })
    }

    fn append(&mut self, draft: keeper::Draft, token: Token) -> Input {
        let entry = self.journal.entry(draft, "coordinator", token, Timestamp::UNIX_EPOCH);
        match self.journal.accept(entry.clone()) {
            Ok(()) => Input::Appended(entry),
            Err(_) => Input::Refused,
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
            Action::Swap { to, .. } => self.node(step).running == *to,
            Action::Finalise { level } => self.level == *level,
            action => panic!("{action:?} has nothing to look for"),
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
                assert_eq!(node.staged.as_ref(), Some(to), "swapped to a program that is not there");
                node.running = to.clone();
                node.swaps += 1;
                self.one_at_a_time();
            }
            Action::Finalise { level } => {
                assert!(self.versions().iter().all(|version| *version == "0.2.0"), "an old program cannot read this");
                self.level = *level;
            }
            action => panic!("{action:?} has nothing to apply"),
        }
        Outcome::Good
    }

    fn check(&mut self, step: &Step) -> Outcome {
        match &step.action {
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
        assert_eq!(self.level, 1, "the old program cannot read this any more");
        self.node(step).running = from.clone();
        Outcome::Good
    }

    fn is_bad(&mut self, step: &Step) -> bool {
        let (name, running) = (step.node.clone(), self.node(step).running.clone());
        self.bad.as_ref().is_some_and(|(node, release)| Some(node) == name.as_ref() && *release == running)
    }

    /// Whoever is swapped, all swapped before are verified: the journal says so.
    fn one_at_a_time(&self) {
        let plan = plan();
        let verified = |node: &NodeName| {
            let mut steps = plan.steps.iter().filter(|step| step.node.as_ref() == Some(node));
            let last = steps.rfind(|step| step.action == Action::VerifyWorkload).unwrap().id;
            self.journal.entries().iter().any(|entry| entry.step == Some(last) && entry.phase == keeper::Phase::Done)
        };
        let open = self.nodes.iter().filter(|(name, node)| node.running == release("0.2.0") && !verified(name)).count();
        assert!(open <= 1, "two nodes are changed and not verified");
    }
}

/// A coordinator at work; what it was about to do when it was cut off is left in `pending`.
pub struct Coordinator {
    pub token: Token,
    run: Option<Run>,
    inputs: VecDeque<Input>,
    pub pending: VecDeque<Effect>,
    pub ended: bool,
    pub waits: bool,
}

// === impl Coordinator ===

impl Coordinator {
    /// Takes the run over from what is durable.
    pub fn new(world: &World, token: u64) -> Coordinator {
        let journal = Journal::parse("r1", 2, &world.journal.render()).unwrap();
        Coordinator {
            token: Token(token),
            run: Some(Run::new(plan(), journal, Token(token))),
            inputs: VecDeque::from([Input::Look]),
            pending: VecDeque::new(),
            ended: false,
            waits: false,
        }
    }

    pub fn ask(&mut self, wish: Attention) {
        self.inputs.push_back(Input::Asked(wish));
    }

    pub fn look(&mut self) {
        self.inputs.push_back(Input::Look);
    }

    /// Performs one effect; `answer` false loses what came of it. False where there is nothing to do.
    pub fn turn(&mut self, world: &mut World, answer: bool) -> bool {
        while self.pending.is_empty() {
            let Some(input) = self.inputs.pop_front() else { return false };
            let mut out = Vec::new();
            self.run = self.run.take().map(|run| run.step(input, &mut out));
            self.pending.extend(out);
        }
        let effect = self.pending.pop_front().unwrap();
        self.ended |= matches!(effect, Effect::Ended | Effect::StandDown);
        self.waits = matches!(effect, Effect::Wait);
        if let Some(input) = world.perform(&effect, self.token).filter(|_| answer) {
            self.inputs.push_back(input);
        }
        true
    }

    /// Performs so many effects, looking again where there is nothing to do.
    pub fn turns(&mut self, world: &mut World, count: usize) {
        for _ in 0..count {
            if !self.turn(world, true) {
                self.look();
            }
        }
    }

    /// Until nothing is left to do: the run ended, or waits for a person.
    pub fn finish(&mut self, world: &mut World) {
        let mut looks = 0;
        for _ in 0..EFFECTS_MAX {
            if self.ended {
                return;
            }
            if !self.turn(world, true) {
                // What is not over yet is looked at again a few times.
                looks += 1;
                if looks > 3 {
                    return;
                }
                self.look();
            } else if !self.waits {
                looks = 0;
            }
        }
        panic!("no end after {EFFECTS_MAX} effects: {:?}", world.journal.entries().last());
    }
}

pub fn below(rng: &SeededRng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound as u64).unwrap()
}
