//! One container of a pod as its worker sees it: a small state machine inside the pod's.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::event::StartFailure;
use super::resize::Resizing;
use crate::limits;

/// What a container is for: it decides order, restart and stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in init order, runs for the pod's life, stops last.
    Sidecar,
    Main,
    /// Added to a running pod; never restarted.
    Ephemeral,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub name: String,
    pub role: Role,
    pub state: SlotState,
    /// The run before the present one.
    pub last: Option<Exit>,
    pub restarts: u32,
    /// Attempt number of the next start; unique among this pod's containers of this name.
    pub next_attempt: u32,
    pub backoff: Backoff,
    /// Tries of a start that failed before anything ran; spaced by `limits::RETRY_*`.
    pub failures: u32,
    /// It was stopped to be started again, whatever its policy says of exits.
    pub start_again: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SlotState {
    /// Nothing runs. `retry_at` None means: start as soon as the order allows.
    Waiting {
        reason: String,
        message: String,
        retry_at: Option<Timestamp>,
    },
    /// The driver works on a start.
    Starting {
        reason: String,
        message: String,
    },
    Running(Run),
    /// Told to stop; still running. `why` becomes part of the next event, not of the status.
    Stopping(Run),
    Exited(Exit),
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Run {
    pub id: String,
    pub image: String,
    pub image_ref: String,
    pub since: Option<Timestamp>,
    /// The startup probe passed, or there is none.
    pub started: bool,
    /// The readiness probe passes, or there is none.
    pub ready: bool,
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// What the runtime was last told that it may use.
    pub applied: Option<core::ResourceRequirements>,
    pub resizing: Resizing,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Exit {
    pub id: String,
    pub image: String,
    pub image_ref: String,
    pub code: i32,
    pub signal: i32,
    pub reason: String,
    pub message: String,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// Waits between restarts of a container that keeps ending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    delay: Option<Duration>,
}

// === impl Slot ===

impl Slot {
    pub fn new(name: &str, role: Role, reason: &str) -> Slot {
        Slot {
            name: name.to_owned(),
            role,
            state: SlotState::waiting(reason, ""),
            last: None,
            restarts: 0,
            next_attempt: 0,
            backoff: Backoff::default(),
            failures: 0,
            start_again: false,
        }
    }

    pub fn run(&self) -> Option<&Run> {
        match &self.state {
            SlotState::Running(run) | SlotState::Stopping(run) => Some(run),
            SlotState::Waiting { .. } | SlotState::Starting { .. } | SlotState::Exited(_) => None,
        }
    }

    pub fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            SlotState::Running(run) | SlotState::Stopping(run) => Some(run),
            SlotState::Waiting { .. } | SlotState::Starting { .. } | SlotState::Exited(_) => None,
        }
    }

    pub fn exit(&self) -> Option<&Exit> {
        if let SlotState::Exited(exit) = &self.state { Some(exit) } else { None }
    }

    /// Started and not told to stop.
    pub fn is_started(&self) -> bool {
        matches!(&self.state, SlotState::Running(run) if run.started)
    }

    /// Nothing of it runs or is about to.
    pub fn is_quiet(&self) -> bool {
        matches!(self.state, SlotState::Waiting { .. } | SlotState::Exited(_))
    }

    /// The last exit known, of the present or an earlier run.
    pub fn latest_exit(&self) -> Option<&Exit> {
        self.exit().or(self.last.as_ref())
    }

    // === what happened to it ===

    /// It runs.
    pub fn on_started(&mut self, attempt: u32, run: Run) {
        self.restarts = attempt;
        self.next_attempt = attempt + 1;
        self.failures = 0;
        self.start_again = false;
        self.state = SlotState::Running(run);
    }

    /// A start came to nothing, or to a container that ended at once.
    pub fn on_start_failed(&mut self, attempt: u32, created: bool, failure: StartFailure, at: Timestamp) {
        if !matches!(self.state, SlotState::Starting { .. }) {
            return;
        }
        if created {
            self.next_attempt = attempt + 1;
            self.restarts = attempt;
        }
        if let Some(exit) = failure.exit {
            self.state = SlotState::Exited(exit);
            return;
        }
        let retry_at = failure.retry_at.unwrap_or_else(|| at + retry_delay(self.failures + 1));
        self.failures += 1;
        let StartFailure { reason, message, .. } = failure;
        self.state = SlotState::Waiting { reason, message, retry_at: Some(retry_at) };
    }

    /// The run that ended is this one's, or the news is late.
    pub fn on_exited(&mut self, exit: Exit) {
        if self.run().is_some_and(|run| run.id == exit.id) {
            self.state = SlotState::Exited(exit);
        }
    }
}

impl SlotState {
    pub fn waiting(reason: &str, message: &str) -> SlotState {
        SlotState::Waiting { reason: reason.to_owned(), message: message.to_owned(), retry_at: None }
    }
}

// === impl Backoff ===

impl Backoff {
    /// When the container that ended with `exit` may start again; None is at once. Each call is one restart.
    pub fn next(&mut self, exit: &Exit) -> Option<Timestamp> {
        let finished = exit.finished_at?;
        let ran = exit
            .started_at
            .map_or(Duration::ZERO, |from| Duration::try_from(finished.duration_since(from)).unwrap_or(Duration::ZERO));
        if limits::CRASH_BACKOFF_RESET <= ran {
            self.delay = None;
        }
        let delay = self.delay;
        self.delay = Some(match delay {
            None => limits::CRASH_BACKOFF_FIRST,
            Some(delay) => (delay * 2).min(limits::CRASH_BACKOFF_MAX),
        });
        delay.map(|delay| finished + delay)
    }

    /// Rebuilt after an agent restart from the number of restarts.
    pub fn after(restarts: u32) -> Backoff {
        let mut delay = None;
        for _ in 0..restarts.min(8) {
            delay =
                Some(delay.map_or(limits::CRASH_BACKOFF_FIRST, |d: Duration| (d * 2).min(limits::CRASH_BACKOFF_MAX)));
        }
        Backoff { delay }
    }

    pub fn delay(&self) -> Duration {
        self.delay.unwrap_or(limits::CRASH_BACKOFF_FIRST)
    }
}

/// The wait before try number `failures + 1`.
pub fn retry_delay(failures: u32) -> Duration {
    (limits::RETRY_FIRST * 2u32.saturating_pow(failures.min(8))).min(limits::RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(started: i64, finished: i64) -> Exit {
        let at = |s| Some(Timestamp::from_second(s).unwrap());
        Exit { started_at: at(started), finished_at: at(finished), code: 1, ..Exit::default() }
    }

    #[test]
    fn the_first_restart_is_at_once_then_waits_double_and_a_long_run_starts_over() {
        let mut backoff = Backoff::default();
        let wait = |backoff: &mut Backoff, e: Exit| {
            backoff.next(&e).map(|at| at.as_second() - e.finished_at.unwrap().as_second())
        };
        assert_eq!(wait(&mut backoff, exit(0, 1)), None);
        let waits: Vec<_> = (0..7).map(|_| wait(&mut backoff, exit(0, 1)).unwrap()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(wait(&mut backoff, exit(0, 601)), None);
        assert_eq!(wait(&mut backoff, exit(0, 1)), Some(10));
    }
}
