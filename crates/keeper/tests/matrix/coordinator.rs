//! A coordinator on some server, step by step.

use std::collections::VecDeque;

use base::{Rng, SeededRng};
use keeper::{Attention, Effect, Input, Journal, Outcome, Run, Token};

use crate::world::World;

/// A run of three nodes ends within this many effects, or not at all.
const EFFECTS_MAX: usize = 400;

/// A coordinator at work; what it was about to do when it was cut off is left in `pending`.
pub struct Coordinator {
    token: Token,
    /// The server it runs on, as its entries say.
    pub actor: String,
    run: Option<Run>,
    inputs: VecDeque<Input>,
    pending: VecDeque<Effect>,
    pub ended: bool,
    pub waits: bool,
}

/// An order on its way.
#[derive(Debug)]
pub struct Held {
    effect: Effect,
    token: Token,
}

// === impl Held ===

impl Held {
    /// It arrives, and nobody waits for the answer any more.
    pub fn deliver(&self, world: &mut World) {
        let _ = world.perform(&self.effect, self.token, "late");
    }
}

// === impl Coordinator ===

impl Coordinator {
    /// Takes the run over from what is durable, on another server than all before.
    pub fn new(world: &World, token: u64) -> Coordinator {
        let journal = Journal::parse("r1", world.case.to.number, &world.journal.render()).unwrap();
        Coordinator {
            token: Token(token),
            actor: format!("server-{token}"),
            run: Some(Run::new(world.case.plan(), journal, Token(token))),
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
        if let Some(input) = world.perform(&effect, self.token, &self.actor).filter(|_| answer) {
            self.inputs.push_back(input);
        }
        true
    }

    /// The order that is given next, if it is one that changes a node, is held up: whoever gave it hears nothing.
    pub fn hold(&mut self) -> Option<Held> {
        while self.pending.is_empty() {
            let input = self.inputs.pop_front()?;
            let mut out = Vec::new();
            self.run = self.run.take().map(|run| run.step(input, &mut out));
            self.pending.extend(out);
        }
        let (Effect::Apply(_, step) | Effect::Undo(_, step)) = self.pending.front()? else { return None };
        let (step, token) = (step.id, self.token);
        self.inputs.push_back(Input::Answer { step, answer: Outcome::NotYet });
        self.pending.pop_front().map(|effect| Held { effect, token })
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
