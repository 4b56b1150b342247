//! The life of one pod as an enum that is moved by value. Pure: reads no clock, does no IO.
//!
//! `step` takes what happened and returns the next state and what to do about it. Every step ends in the same look at
//! the whole (`order`), so that an event is news, never an instruction, and a lost one costs only time.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::event::{PodEffect, PodEvent, What, event};
use super::order;
use super::resize::{Pending, Resizing};
use super::slot::{Role, Run, Slot, SlotState, retry_delay};
use crate::limits;

#[derive(Clone, Debug, PartialEq)]
pub enum Pod {
    /// Volumes and cgroup are being made.
    Preparing(Life),
    /// A sandbox is being made.
    Sandboxing(Life),
    /// Containers start, run and restart in their order.
    Active(Life, Sandbox),
    /// Everything that runs is told to stop: main containers first, sidecars last.
    Stopping(Life, Option<Sandbox>, Stop),
    /// Nothing runs any more; sandbox, mounts and cgroup are being taken away.
    Clearing(Life),
    /// Nothing is left but the record and the last dead containers' logs.
    Over(Life),
    /// The record is gone too: the worker ends.
    Gone,
}

/// What a pod carries through its states.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    pub pod: Arc<core::Pod>,
    /// Init containers in their order, then main, then ephemeral ones.
    pub slots: Vec<Slot>,
    pub sandbox_attempt: u32,
    /// A sandbox found running at adoption, taken up when volumes stand.
    pub found: Option<Sandbox>,
    pub ips: Vec<String>,
    /// All init containers are through; stays true until the sandbox is made anew.
    pub initialized: bool,
    /// A resize of the record's that this node has not promised.
    pub resize: Option<Pending>,
    /// Why the pod must end, when it must.
    pub outcome: Option<Outcome>,
    /// The record is gone from the API.
    pub removed: bool,
    pub failures: u32,
    pub retry_at: Option<Timestamp>,
    pub started_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sandbox {
    pub id: String,
    pub ips: Vec<String>,
}

/// An end decided by the node, not by the containers' exit codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `DeadlineExceeded`, `Evicted`, ...; empty when the containers' exits say it all.
    pub reason: String,
    pub message: String,
    /// Overrules the pod's own grace.
    pub grace_seconds: Option<i64>,
    /// The node took it for its own sake (condition `DisruptionTarget`).
    pub disruption: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub grace_seconds: i64,
    pub since: Timestamp,
}

// === impl Pod ===

impl Pod {
    /// A pod seen for the first time by this process. `life` holds what adoption found (`adopt`).
    pub fn new(life: Life, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
        let done = life.outcome.is_some() || phase_is_final(&life.pod);
        if done && life.found.is_none() && life.slots.iter().all(Slot::is_quiet) {
            // An earlier process of ours brought it to its end; make sure nothing is left behind.
            out.push(PodEffect::Clear);
            return Pod::Clearing(life);
        }
        if life.pod.metadata.deletion_timestamp.is_some() || done {
            let sandbox = life.found.clone();
            let stop = Stop { grace_seconds: order::grace(&life.pod), since: at };
            return Pod::Stopping(life, sandbox, stop).settle(at, out);
        }
        out.push(PodEffect::Prepare);
        Pod::Preparing(life).settle(at, out)
    }

    /// What happened, in; the next state and what to do about it, out.
    #[must_use]
    pub fn step(self, event: PodEvent, out: &mut Vec<PodEffect>) -> Pod {
        let at = event.at;
        let next = match event.what {
            What::Spec(pod, pending) => self.on_spec(pod, pending, at, out),
            What::Removed => self.on_removed(at),
            What::Prepared => self.on_prepared(out),
            What::PrepareFailed { reason, message } => self.on_prepare_failed(reason, message, at, out),
            What::SandboxUp(sandbox) => self.on_sandbox_up(sandbox),
            What::SandboxFailed { message } => self.on_sandbox_failed(&message, at, out),
            What::SandboxLost => self.on_sandbox_lost(at, out),
            What::Progress { name, reason, message } => self.with_slot(&name, |slot| {
                if let SlotState::Starting { .. } = slot.state {
                    slot.state = SlotState::Starting { reason, message };
                }
            }),
            What::Started { name, attempt, run } => self.with_slot(&name, |slot| slot.on_started(attempt, run)),
            What::StartFailed { name, attempt, created, failure } => {
                self.with_slot(&name, |slot| slot.on_start_failed(attempt, created, failure, at))
            }
            What::Exited { name, exit } => self.with_slot(&name, |slot| slot.on_exited(exit)),
            What::Startup { name, id } => self.with_run(&name, &id, |run| run.started = true),
            What::Readiness { name, id, ready } => self.with_run(&name, &id, |run| run.ready = ready),
            What::Resized { name, id, outcome } => self.with_run(&name, &id, |run| match outcome {
                Ok(applied) => (run.applied, run.resizing) = (Some(applied), Resizing::Idle),
                Err(message) => {
                    run.resizing = Resizing::Failed { message, retry_at: at + limits::RESIZE_RETRY_AFTER };
                }
            }),
            What::Unhealthy { name, id, message, grace_seconds } => {
                self.on_unhealthy(&name, &id, &message, grace_seconds, out)
            }
            What::Evict(outcome) => self.on_evict(outcome, at, out),
            What::Cleared => self.on_cleared(out),
            What::ClearFailed { message } => self.on_clear_failed(&message, at, out),
            What::Tick => self.on_tick(at, out),
        };
        next.settle(at, out)
    }

    pub fn life(&self) -> Option<&Life> {
        match self {
            Pod::Preparing(life) | Pod::Sandboxing(life) | Pod::Clearing(life) | Pod::Over(life) => Some(life),
            Pod::Active(life, _) | Pod::Stopping(life, _, _) => Some(life),
            Pod::Gone => None,
        }
    }

    fn life_mut(&mut self) -> Option<&mut Life> {
        match self {
            Pod::Preparing(life) | Pod::Sandboxing(life) | Pod::Clearing(life) | Pod::Over(life) => Some(life),
            Pod::Active(life, _) | Pod::Stopping(life, _, _) => Some(life),
            Pod::Gone => None,
        }
    }

    pub fn sandbox(&self) -> Option<&Sandbox> {
        match self {
            Pod::Active(_, sandbox) => Some(sandbox),
            Pod::Stopping(_, sandbox, _) => sandbox.as_ref(),
            Pod::Preparing(life) | Pod::Sandboxing(life) => life.found.as_ref(),
            Pod::Clearing(_) | Pod::Over(_) | Pod::Gone => None,
        }
    }

    /// When to step with a `Tick` at the latest.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let life = self.life()?;
        let slots = life.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Waiting { retry_at, .. } => *retry_at,
            SlotState::Running(Run { resizing: Resizing::Failed { retry_at, .. }, .. }) => Some(*retry_at),
            SlotState::Starting { .. } | SlotState::Running(_) | SlotState::Stopping(_) | SlotState::Exited(_) => None,
        });
        let slots: Vec<Timestamp> = if let Pod::Active(..) = self { slots.collect() } else { Vec::new() };
        let deadline = match self {
            Pod::Preparing(_) | Pod::Sandboxing(_) | Pod::Active(..) => order::deadline(life),
            Pod::Stopping(..) | Pod::Clearing(_) | Pod::Over(_) | Pod::Gone => None,
        };
        slots.into_iter().chain(life.retry_at).chain(deadline).min()
    }

    fn settle(self, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
        match self {
            Pod::Preparing(life) | Pod::Sandboxing(life) if order::must_end(&life, at).is_some() => {
                let sandbox = life.found.clone();
                order::end(life, sandbox, at, out)
            }
            Pod::Active(life, sandbox) => order::advance(life, sandbox, at, out),
            Pod::Stopping(life, sandbox, stop) => order::stop(life, sandbox, stop, at, out),
            state @ (Pod::Preparing(_) | Pod::Sandboxing(_) | Pod::Clearing(_) | Pod::Over(_) | Pod::Gone) => state,
        }
    }

    fn with_slot(mut self, name: &str, change: impl FnOnce(&mut Slot)) -> Pod {
        if let Some(slot) = self.life_mut().and_then(|life| life.slots.iter_mut().find(|slot| slot.name == name)) {
            change(slot);
        }
        self
    }

    /// Late news about an earlier run is dropped.
    fn with_run(self, name: &str, id: &str, change: impl FnOnce(&mut Run)) -> Pod {
        self.with_slot(name, |slot| {
            if let Some(run) = slot.run_mut()
                && run.id == id
            {
                change(run);
            }
        })
    }

    fn on_spec(
        mut self,
        pod: Arc<core::Pod>,
        pending: Option<Pending>,
        at: Timestamp,
        out: &mut Vec<PodEffect>,
    ) -> Pod {
        let was_deleting = self.life().is_some_and(|life| life.pod.metadata.deletion_timestamp.is_some());
        if let Some(life) = self.life_mut() {
            life.pod = pod;
            life.resize = pending;
            order::add_ephemeral(life);
        }
        let deleting = self.life().is_some_and(|life| life.pod.metadata.deletion_timestamp.is_some());
        match self {
            // ## Preparing | Sandboxing | Active => Stopping
            Pod::Preparing(life) | Pod::Sandboxing(life) if deleting => {
                let sandbox = life.found.clone();
                Pod::Stopping(Life { retry_at: None, ..life }, sandbox, Stop { grace_seconds: 0, since: at })
            }
            Pod::Active(life, sandbox) if deleting => {
                let stop = Stop { grace_seconds: order::grace(&life.pod), since: at };
                Pod::Stopping(life, Some(sandbox), stop)
            }
            // A shorter grace overtakes the one under way.
            Pod::Stopping(life, sandbox, stop) => {
                let grace_seconds = order::grace(&life.pod);
                if deleting && grace_seconds < stop.grace_seconds {
                    order::hurry(&life, grace_seconds, out);
                    return Pod::Stopping(life, sandbox, Stop { grace_seconds, ..stop });
                }
                Pod::Stopping(life, sandbox, stop)
            }
            Pod::Over(life) if deleting && !was_deleting => {
                out.push(PodEffect::DeleteRecord);
                Pod::Over(life)
            }
            state => state,
        }
    }

    fn on_removed(mut self, at: Timestamp) -> Pod {
        if let Some(life) = self.life_mut() {
            life.removed = true;
        }
        match self {
            Pod::Over(_) | Pod::Gone => Pod::Gone,
            Pod::Preparing(life) | Pod::Sandboxing(life) => {
                let sandbox = life.found.clone();
                Pod::Stopping(life, sandbox, Stop { grace_seconds: 0, since: at })
            }
            Pod::Active(life, sandbox) => {
                let stop = Stop { grace_seconds: order::grace(&life.pod), since: at };
                Pod::Stopping(life, Some(sandbox), stop)
            }
            state @ (Pod::Stopping(..) | Pod::Clearing(_)) => state,
        }
    }

    fn on_prepared(self, out: &mut Vec<PodEffect>) -> Pod {
        match self {
            // ## Preparing => Active (adopted) | Sandboxing
            Pod::Preparing(mut life) => {
                life.failures = 0;
                life.retry_at = None;
                if let Some(sandbox) = life.found.take() {
                    life.ips = sandbox.ips.clone();
                    return Pod::Active(life, sandbox);
                }
                out.push(PodEffect::RunSandbox { attempt: life.sandbox_attempt });
                Pod::Sandboxing(life)
            }
            state => state,
        }
    }

    fn on_prepare_failed(self, reason: &'static str, message: String, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
        match self {
            Pod::Preparing(mut life) => {
                out.push(event(true, reason, message));
                life.retry_at = Some(at + retry_delay(life.failures));
                life.failures += 1;
                Pod::Preparing(life)
            }
            state => state,
        }
    }

    fn on_sandbox_up(self, sandbox: Sandbox) -> Pod {
        match self {
            // ## Sandboxing => Active
            Pod::Sandboxing(mut life) => {
                life.ips = sandbox.ips.clone();
                life.failures = 0;
                life.retry_at = None;
                life.sandbox_attempt += 1;
                Pod::Active(life, sandbox)
            }
            // Too late: it is taken away with the rest.
            Pod::Stopping(life, None, stop) => Pod::Stopping(life, Some(sandbox), stop),
            state => state,
        }
    }

    fn on_sandbox_failed(self, message: &str, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
        match self {
            Pod::Sandboxing(mut life) => {
                let text = format!("Failed to create pod sandbox: {message}");
                out.push(event(true, "FailedCreatePodSandBox", text));
                life.retry_at = Some(at + retry_delay(life.failures));
                life.failures += 1;
                // A failed attempt may have left its name behind in the runtime.
                life.sandbox_attempt += 1;
                Pod::Sandboxing(life)
            }
            state => state,
        }
    }

    fn on_sandbox_lost(mut self, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
        if let Some(life) = self.life_mut() {
            order::lose_runs(life, at);
        }
        match self {
            // ## Active => Sandboxing, or its end when nothing would run again
            Pod::Active(mut life, sandbox) => {
                if !order::wants_to_run(&life) {
                    return Pod::Active(life, sandbox);
                }
                out.push(event(
                    false,
                    "SandboxChanged",
                    "Pod sandbox changed, it will be killed and re-created.".into(),
                ));
                out.push(PodEffect::StopSandbox { id: sandbox.id });
                order::begin_again(&mut life);
                out.push(PodEffect::RunSandbox { attempt: life.sandbox_attempt });
                Pod::Sandboxing(life)
            }
            Pod::Preparing(mut life) => {
                life.found = None;
                order::begin_again(&mut life);
                Pod::Preparing(life)
            }
            state => state,
        }
    }

    fn on_unhealthy(
        self,
        name: &str,
        id: &str,
        message: &str,
        grace_seconds: Option<i64>,
        out: &mut Vec<PodEffect>,
    ) -> Pod {
        match self {
            Pod::Active(mut life, sandbox) => {
                let grace_seconds = grace_seconds.unwrap_or_else(|| order::grace(&life.pod));
                for slot in life.slots.iter_mut().filter(|slot| slot.name == name) {
                    if let SlotState::Running(run) = &slot.state
                        && run.id == id
                    {
                        let text = format!("Container {name} {message}");
                        let container = Some(name.to_owned());
                        out.push(PodEffect::Event {
                            warning: false,
                            reason: "Killing".into(),
                            message: text,
                            container,
                        });
                        let id = id.to_owned();
                        out.push(PodEffect::Stop { name: name.to_owned(), id, grace_seconds, pre_stop: true });
                        slot.state = SlotState::Stopping(Run { ready: false, ..run.clone() });
                    }
                }
                Pod::Active(life, sandbox)
            }
            state => state,
        }
    }

    /// What is ending already ends as it was about to.
    fn on_evict(self, outcome: Outcome, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
        let note = event(true, outcome.reason.clone(), outcome.message.clone());
        let grace = outcome.grace_seconds;
        match self {
            Pod::Preparing(life) | Pod::Sandboxing(life) => {
                out.push(note);
                let sandbox = life.found.clone();
                let life = Life { outcome: Some(outcome), ..life };
                Pod::Stopping(life, sandbox, Stop { grace_seconds: 0, since: at })
            }
            Pod::Active(life, sandbox) => {
                out.push(note);
                let stop = Stop { grace_seconds: grace.unwrap_or_else(|| order::grace(&life.pod)), since: at };
                Pod::Stopping(Life { outcome: Some(outcome), ..life }, Some(sandbox), stop)
            }
            state => state,
        }
    }

    fn on_cleared(self, out: &mut Vec<PodEffect>) -> Pod {
        match self {
            // ## Clearing => Gone | Over
            Pod::Clearing(life) if life.removed => Pod::Gone,
            Pod::Clearing(mut life) => {
                life.retry_at = None;
                if life.pod.metadata.deletion_timestamp.is_some() {
                    out.push(PodEffect::DeleteRecord);
                }
                Pod::Over(life)
            }
            state => state,
        }
    }

    fn on_clear_failed(self, message: &str, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
        match self {
            Pod::Clearing(mut life) => {
                out.push(event(true, "FailedKillPod", format!("error killing pod: {message}")));
                life.retry_at = Some(at + retry_delay(life.failures));
                life.failures += 1;
                Pod::Clearing(life)
            }
            state => state,
        }
    }

    fn on_tick(mut self, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
        let due = self.life().and_then(|life| life.retry_at).is_some_and(|retry| retry <= at);
        if !due {
            return self;
        }
        if let Some(life) = self.life_mut() {
            life.retry_at = None;
        }
        match &self {
            Pod::Preparing(_) => out.push(PodEffect::Prepare),
            Pod::Sandboxing(life) => out.push(PodEffect::RunSandbox { attempt: life.sandbox_attempt }),
            Pod::Clearing(_) => out.push(PodEffect::Clear),
            Pod::Active(..) | Pod::Stopping(..) | Pod::Over(_) | Pod::Gone => {}
        }
        self
    }
}

/// The record already says how it ended.
pub fn phase_is_final(pod: &core::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The slots of a pod that nothing is known of.
pub fn slots(pod: &core::Pod) -> Vec<Slot> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let inits = spec.init_containers.iter().flatten();
    let has_inits = spec.init_containers.as_ref().is_some_and(|list| !list.is_empty());
    let waiting = if has_inits { "PodInitializing" } else { "ContainerCreating" };
    let mut slots: Vec<Slot> =
        inits.map(|init| Slot::new(&init.name, order::init_role(init), "PodInitializing")).collect();
    slots.extend(spec.containers.iter().map(|main| Slot::new(&main.name, Role::Main, waiting)));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    slots.extend(ephemeral.map(|extra| Slot::new(&extra.name, Role::Ephemeral, "ContainerCreating")));
    slots
}
