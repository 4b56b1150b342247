//! What a journal says about its plan: the state of every step, and which way the run goes.

use crate::generation::NodeName;
use crate::journal::{Journal, Phase};
use crate::plan::{Plan, StepId};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Waiting,
    Intended,
    Done,
    /// The effect was there before the run; going back leaves it alone.
    Skipped,
    Failed(String),
    Undone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    /// One node's part, or all.
    Back(Option<NodeName>),
}

#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub armed: bool,
    pub finished: bool,
    pub paused: bool,
    pub stuck: bool,
    pub direction: Direction,
    pub why: String,
    /// The step behind which there is no way back has begun.
    pub final_begun: bool,
    states: Vec<State>,
    /// Steps whose effect this run intended and did not take back: it may be there, and then it is the run's.
    own: Vec<bool>,
}

// === impl Progress ===

impl Progress {
    pub(super) fn of(plan: &Plan, journal: &Journal) -> Progress {
        let mut progress = Progress {
            armed: false,
            finished: false,
            paused: false,
            stuck: false,
            direction: Direction::Forward,
            why: String::new(),
            final_begun: false,
            states: vec![State::Waiting; plan.steps.len()],
            own: vec![false; plan.steps.len()],
        };
        for entry in journal.entries() {
            let step = entry.step.filter(|step| plan.step(*step).is_some());
            progress.take(plan, step, entry.node.as_ref(), &entry.phase);
        }
        progress
    }

    fn take(&mut self, plan: &Plan, step: Option<StepId>, node: Option<&NodeName>, phase: &Phase) {
        let state = match phase {
            Phase::Intend => State::Intended,
            Phase::Done => State::Done,
            Phase::Skipped => State::Skipped,
            Phase::Failed { why } => State::Failed(why.clone()),
            Phase::Undone => State::Undone,
            Phase::Armed { .. }
            | Phase::Paused { .. }
            | Phase::Resumed
            | Phase::Back { .. }
            | Phase::Finished
            | Phase::Stuck { .. } => {
                return self.turn(plan, node, phase);
            }
        };
        let Some(step) = step else { return };
        self.final_begun |= state == State::Intended && plan.step(step).is_some_and(|step| step.action.is_final());
        let at = step.0 as usize;
        match state {
            State::Intended => self.own[at] = true,
            State::Undone => self.own[at] = false,
            State::Waiting | State::Done | State::Skipped | State::Failed(_) => {}
        }
        self.states[at] = state;
    }

    fn turn(&mut self, plan: &Plan, node: Option<&NodeName>, phase: &Phase) {
        match phase {
            Phase::Armed { .. } => self.armed = true,
            Phase::Paused { .. } => self.paused = true,
            Phase::Resumed => self.resume(plan),
            Phase::Back { why } => {
                self.direction = Direction::Back(node.cloned());
                self.why.clone_from(why);
                (self.paused, self.stuck) = (false, false);
            }
            Phase::Finished => self.finished = true,
            Phase::Stuck { why } => {
                self.stuck = true;
                self.why.clone_from(why);
            }
            Phase::Intend | Phase::Done | Phase::Skipped | Phase::Failed { .. } | Phase::Undone => {}
        }
    }

    /// Onwards: what failed is tried again, and a node whose part was taken back is begun anew, checks included. A run
    /// that goes back as a whole stays on its way.
    fn resume(&mut self, plan: &Plan) {
        (self.paused, self.stuck) = (false, false);
        let anew = match std::mem::replace(&mut self.direction, Direction::Forward) {
            Direction::Back(None) => {
                self.direction = Direction::Back(None);
                return;
            }
            Direction::Back(Some(node)) => Some(node),
            Direction::Forward => None,
        };
        for (state, step) in self.states.iter_mut().zip(&plan.steps) {
            let again = anew.is_some() && step.node == anew;
            if again || matches!(state, State::Failed(_) | State::Undone) {
                *state = State::Waiting;
            }
        }
    }

    pub(super) fn state(&self, step: StepId) -> &State {
        &self.states[step.0 as usize]
    }

    pub(super) fn is_own(&self, step: StepId) -> bool {
        self.own[step.0 as usize]
    }

    /// The first step that is not done.
    pub(super) fn next(&self, plan: &Plan) -> Option<StepId> {
        let open = |id: &StepId| !matches!(self.state(*id), State::Done | State::Skipped);
        plan.steps.iter().map(|step| step.id).find(open)
    }

    /// Somebody paused it, and the node that was at hand is done.
    pub(super) fn rests(&self, plan: &Plan) -> bool {
        let untouched = |step| *self.state(step) == State::Waiting && plan.begins_node(step);
        self.paused && self.next(plan).is_some_and(untouched)
    }

    /// The last step that was begun, can be undone and is not.
    pub(super) fn last_to_undo(&self, plan: &Plan, scope: Option<&NodeName>) -> Option<StepId> {
        let begun =
            |id: StepId| self.is_own(id) || matches!(self.state(id), State::Intended | State::Done | State::Failed(_));
        let mine = |node: Option<&NodeName>| scope.is_none() || node == scope;
        let steps = plan.steps.iter().rev();
        steps
            .filter(|step| step.action.has_undo() && mine(step.node.as_ref()))
            .map(|step| step.id)
            .find(|id| begun(*id))
    }
}
