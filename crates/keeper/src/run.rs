//! One execution of a plan. Decides what happens next from the journal and the answers it gets; performs nothing.
//!
//! The driver performs the effects of [`Run::step`] and feeds the answers back. All that matters is in the journal: a run
//! that is taken over is made anew from plan and journal, under a greater token.
//!
//! - An effect begins only after its intention is durable, and only after a look showed that it is not there yet. So an
//!   intention without a result, found after a takeover, is looked at, never repeated blindly.
//! - A pause takes hold where no node is half done.
//! - A step that fails takes the way back for its own node, once, and then waits for a person.
//! - Where another node is in the way, nothing is taken back: that would be one more node that is touched.

mod progress;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use self::progress::{Direction, Progress, State};
use crate::fence::{Order, Token};
use crate::journal::{Draft, Entry, Journal, Phase};
use crate::plan::{Plan, Step, StepId};

/// Wishes that wait for the present step to end; of more, the oldest are forgotten.
const WISHES_MAX: usize = 8;

/// What a person can ask of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attention {
    Pause { why: String },
    Resume,
    Back { why: String },
}

/// What the driver tells the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Begin, or look again after [`Effect::Wait`].
    Look,
    /// The entry is durable.
    Appended(Entry),
    /// The entry has no place: somebody else coordinates.
    Refused,
    Answer {
        step: StepId,
        answer: Outcome,
    },
    Asked(Attention),
}

/// What came of looking, applying, checking or undoing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, checked or undone: it holds.
    Good,
    /// Looked: the effect is there.
    Present,
    /// Looked: it is not.
    Absent,
    /// Checked: not yet, and the deadline has not passed.
    NotYet,
    Bad {
        why: String,
    },
    /// Something else is in the way, and the step is not to blame: nothing is taken back for it, a person is told.
    Blocked {
        why: String,
    },
}

/// What the driver is to do. Each but `Wait`, `StandDown` and `Ended` is answered by an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Append(Draft),
    /// Is the step's effect there?
    Probe(Order, Step),
    Apply(Order, Step),
    /// Does what the step promises hold?
    Check(Order, Step),
    /// Bring back what was before. Good when it is back and the node is well.
    Undo(Order, Step),
    /// Nothing to do until somebody asks, or until a check may give another answer.
    Wait,
    StandDown,
    Ended,
}

/// What the run waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Deciding,
    Appending,
    Probing(StepId),
    Applying(StepId),
    Checking(StepId),
    Undoing(StepId),
    Over,
}

/// A run in the hands of one coordinator.
#[derive(Clone, Debug)]
pub struct Run {
    plan: Plan,
    journal: Journal,
    token: Token,
    at: At,
    /// The step whose effect was looked for by this coordinator and not found: it may be applied once.
    absent: Option<StepId>,
    wishes: VecDeque<Attention>,
}

// === impl Run ===

impl Run {
    /// Takes a run up: a new one with an empty journal, or where another coordinator left it.
    pub fn new(plan: Plan, journal: Journal, token: Token) -> Run {
        Run { plan, journal, token, at: At::Deciding, absent: None, wishes: VecDeque::new() }
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Advances the run. Reads no clock, does no IO.
    pub fn step(mut self, input: Input, out: &mut Vec<Effect>) -> Run {
        match (&self.at, input) {
            // ## Over stays over.
            (At::Over, _) => return self,
            (_, Input::Refused) => {
                self.at = At::Over;
                out.push(Effect::StandDown);
                return self;
            }
            (at, Input::Asked(wish)) => {
                let idle = *at == At::Deciding;
                if WISHES_MAX <= self.wishes.len() {
                    self.wishes.pop_front();
                }
                self.wishes.push_back(wish);
                if !idle {
                    return self;
                }
            }
            // ## Appending => Deciding
            (At::Appending, Input::Appended(entry)) => {
                if self.journal.accept(entry).is_err() {
                    self.at = At::Over;
                    out.push(Effect::StandDown);
                    return self;
                }
                self.at = At::Deciding;
            }
            (at, Input::Answer { step, answer }) if at.step() == Some(step) => return self.answered(step, answer, out),
            (At::Deciding, Input::Look) => {}
            // Late news about something we no longer wait for.
            (_, Input::Look | Input::Appended(_) | Input::Answer { .. }) => return self,
        }
        self.decide(out)
    }

    fn answered(mut self, step: StepId, answer: Outcome, out: &mut Vec<Effect>) -> Run {
        let at = std::mem::replace(&mut self.at, At::Deciding);
        let progress = Progress::of(&self.plan, &self.journal);
        let back = progress.direction != Direction::Forward;
        match (at, answer) {
            (At::Probing(_), Outcome::Present) if back => self.order(step, Effect::Undo, At::Undoing(step), out),
            (At::Probing(_), Outcome::Absent) if back => self.append(step, Phase::Undone, out),
            (At::Probing(_), Outcome::Present) if progress.is_own(step) => {
                self.order(step, Effect::Check, At::Checking(step), out)
            }
            (At::Probing(_), Outcome::Present) => self.append(step, Phase::Skipped, out),
            (At::Probing(_), Outcome::Absent) => {
                self.absent = Some(step);
                self.decide(out)
            }
            (At::Applying(_), Outcome::Good) => self.order(step, Effect::Check, At::Checking(step), out),
            (At::Checking(_), Outcome::Good) => self.append(step, Phase::Done, out),
            (At::Undoing(_), Outcome::Good) => self.append(step, Phase::Undone, out),
            // On the way back there is no other way to try: a person is told.
            (At::Probing(_) | At::Undoing(_), Outcome::Bad { why }) if back => {
                self.append(step, Phase::Stuck { why }, out)
            }
            (_, Outcome::Blocked { why }) => self.note(Phase::Stuck { why }, out),
            (_, Outcome::Bad { why }) => self.append(step, Phase::Failed { why }, out),
            (_, Outcome::NotYet) => {
                out.push(Effect::Wait);
                self
            }
            (_, answer) => self.append(step, Phase::Failed { why: format!("{answer:?} is no answer to that") }, out),
        }
    }

    /// What comes next, wholly from the journal.
    fn decide(mut self, out: &mut Vec<Effect>) -> Run {
        let progress = Progress::of(&self.plan, &self.journal);
        if !progress.armed {
            let plan = self.plan.digest();
            return self.note(Phase::Armed { plan }, out);
        }
        if progress.finished {
            self.at = At::Over;
            out.push(Effect::Ended);
            return self;
        }
        if let Some(wish) = self.wishes.pop_front() {
            return self.wish(wish, &progress, out);
        }
        if progress.stuck {
            out.push(Effect::Wait);
            return self;
        }
        match &progress.direction {
            Direction::Forward => self.forward(&progress, out),
            Direction::Back(scope) => match progress.last_to_undo(&self.plan, scope.as_ref()) {
                Some(step) => self.order(step, Effect::Probe, At::Probing(step), out),
                None if scope.is_some() => {
                    let why = progress.why.clone();
                    self.note(Phase::Stuck { why }, out)
                }
                None => self.note(Phase::Finished, out),
            },
        }
    }

    fn forward(self, progress: &Progress, out: &mut Vec<Effect>) -> Run {
        let Some(step) = progress.next(&self.plan) else { return self.note(Phase::Finished, out) };
        if progress.rests(&self.plan) {
            out.push(Effect::Wait);
            return self;
        }
        let state = progress.state(step);
        let effect = self.plan.step(step).is_some_and(|step| step.action.has_effect());
        match state {
            State::Failed(why) => {
                let why = why.clone();
                self.fail(step, why, out)
            }
            _ if !effect => self.order(step, Effect::Check, At::Checking(step), out),
            State::Intended if self.absent == Some(step) => {
                let mut run = self;
                run.absent = None;
                run.order(step, Effect::Apply, At::Applying(step), out)
            }
            _ if self.absent == Some(step) => self.append(step, Phase::Intend, out),
            _ => self.order(step, Effect::Probe, At::Probing(step), out),
        }
    }

    /// The node's own part is taken back, where there is one; then a person decides.
    fn fail(self, step: StepId, why: String, out: &mut Vec<Effect>) -> Run {
        let node = self.plan.step(step).and_then(|step| step.node.clone());
        match node {
            Some(node) => {
                let draft = Draft { step: None, node: Some(node), phase: Phase::Back { why } };
                self.write(draft, out)
            }
            None => self.note(Phase::Stuck { why }, out),
        }
    }

    fn wish(self, wish: Attention, progress: &Progress, out: &mut Vec<Effect>) -> Run {
        match wish {
            Attention::Pause { why } => self.note(Phase::Paused { why }, out),
            Attention::Resume => self.note(Phase::Resumed, out),
            // What is stored may be in the new format already: there is nothing to go back to.
            Attention::Back { .. } if progress.final_begun => self.decide(out),
            Attention::Back { why } => self.note(Phase::Back { why }, out),
        }
    }

    fn append(self, step: StepId, phase: Phase, out: &mut Vec<Effect>) -> Run {
        let node = self.plan.step(step).and_then(|step| step.node.clone());
        self.write(Draft { step: Some(step), node, phase }, out)
    }

    fn note(self, phase: Phase, out: &mut Vec<Effect>) -> Run {
        self.write(Draft { step: None, node: None, phase }, out)
    }

    fn write(mut self, draft: Draft, out: &mut Vec<Effect>) -> Run {
        self.at = At::Appending;
        out.push(Effect::Append(draft));
        self
    }

    fn order(mut self, step: StepId, effect: fn(Order, Step) -> Effect, at: At, out: &mut Vec<Effect>) -> Run {
        let sequence = self.journal.entries().len() as u64;
        let order = Order { token: self.token, generation: self.plan.to, sequence };
        let step = self.plan.step(step).expect("steps are named by the plan itself").clone();
        self.at = at;
        out.push(effect(order, step));
        self
    }
}

/// Where a run stands, for those who watch it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "standing")]
pub enum Standing {
    /// On its way, at this step; where it is to pause, to the end of the node at hand.
    Running {
        step: Option<StepId>,
        #[serde(default)]
        pausing: bool,
    },
    /// No node is half done; goes on when it is resumed.
    Paused,
    /// A node, or all of them, are brought back to what was before.
    Returning {
        why: String,
    },
    /// Needs a person.
    Stuck {
        why: String,
    },
    Finished,
    /// Ended where it began.
    Returned,
}

// === impl Standing ===

impl Standing {
    pub fn of(plan: &Plan, journal: &Journal) -> Standing {
        let progress = Progress::of(plan, journal);
        let back = progress.direction == Direction::Back(None);
        match progress.direction {
            _ if progress.finished && back => Standing::Returned,
            _ if progress.finished => Standing::Finished,
            _ if progress.stuck => Standing::Stuck { why: progress.why },
            Direction::Back(_) => Standing::Returning { why: progress.why },
            Direction::Forward if progress.rests(plan) => Standing::Paused,
            Direction::Forward => Standing::Running { step: progress.next(plan), pausing: progress.paused },
        }
    }

    /// Nothing of the run is left to do.
    pub fn is_over(&self) -> bool {
        matches!(self, Standing::Finished | Standing::Returned)
    }
}

// === impl At ===

impl At {
    fn step(&self) -> Option<StepId> {
        match self {
            At::Probing(step) | At::Applying(step) | At::Checking(step) | At::Undoing(step) => Some(*step),
            At::Deciding | At::Appending | At::Over => None,
        }
    }
}
