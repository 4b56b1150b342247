//! The look at the whole pod that ends every step: which container may start, must restart, must stop. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;

use super::event::{PodEffect, event};
use super::fsm::{Life, Outcome, Pod, Sandbox, Stop};
use super::resize::{self, Resizing};
use super::slot::{Exit, Role, Run, Slot, SlotState};
use crate::limits;

/// Exit code given to a container whose real one nobody can tell any more (`ContainerStatusUnknown`).
const EXIT_UNKNOWN: i32 = 137;
const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// Seconds the pod's containers may take to stop.
pub fn grace(pod: &core::Pod) -> i64 {
    if pod.metadata.deletion_timestamp.is_some()
        && let Some(seconds) = pod.metadata.deletion_grace_period_seconds
    {
        return seconds.max(0);
    }
    pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30).max(0)
}

pub fn init_role(container: &core::Container) -> Role {
    if container.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init }
}

/// When `activeDeadlineSeconds` is over.
pub fn deadline(life: &Life) -> Option<Timestamp> {
    let seconds = life.pod.spec.as_ref()?.active_deadline_seconds?;
    Some(life.started_at + SignedDuration::from_secs(seconds))
}

/// The end that is due now, if one is.
pub fn must_end(life: &Life, at: Timestamp) -> Option<Outcome> {
    if life.outcome.is_some() {
        return life.outcome.clone();
    }
    let over = deadline(life).is_some_and(|deadline| deadline <= at);
    over.then(|| Outcome { reason: "DeadlineExceeded".into(), message: DEADLINE_MESSAGE.into(), ..Outcome::default() })
}

/// Starts to end the pod for its `outcome`.
pub fn end(mut life: Life, sandbox: Option<Sandbox>, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
    if let Some(outcome) = must_end(&life, at) {
        if !outcome.reason.is_empty() && life.outcome.is_none() {
            out.push(event(false, "DeadlineExceeded", outcome.message.clone()));
        }
        life.outcome = Some(outcome);
    }
    life.retry_at = None;
    let grace_seconds = grace(&life.pod);
    stop(life, sandbox, Stop { grace_seconds, since: at }, at, out)
}

// === Active ===

/// Starts what may start, restarts what must, and sees when the pod has done its work.
pub fn advance(mut life: Life, sandbox: Sandbox, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
    if must_end(&life, at).is_some() {
        return end(life, Some(sandbox), at, out);
    }
    let policy = Policy::of(&life.pod);
    for slot in &mut life.slots {
        policy.after_exit(slot, &life.pod);
    }
    match advance_inits(&mut life, at, out) {
        Inits::Blocked => return Pod::Active(life, sandbox),
        Inits::Failed => {
            life.outcome = Some(Outcome::default());
            return end(life, Some(sandbox), at, out);
        }
        Inits::Through => life.initialized = true,
    }
    for slot in &mut life.slots {
        if matches!(slot.role, Role::Main | Role::Ephemeral) {
            start_if_due(slot, at, out);
        }
    }
    resize_runs(&mut life, at, out);
    let mut mains = life.slots.iter().filter(|slot| slot.role == Role::Main);
    if mains.all(|slot| slot.exit().is_some()) {
        // ## Active => Stopping: every main container ended for good
        life.outcome = Some(Outcome::default());
        return end(life, Some(sandbox), at, out);
    }
    Pod::Active(life, sandbox)
}

enum Inits {
    /// Main containers have to wait.
    Blocked,
    /// One ended for good without success.
    Failed,
    Through,
}

fn advance_inits(life: &mut Life, at: Timestamp, out: &mut Vec<PodEffect>) -> Inits {
    let initialized = life.initialized;
    for slot in &mut life.slots {
        match slot.role {
            Role::Init if initialized => {}
            Role::Init => match &slot.state {
                SlotState::Exited(exit) if exit.code == 0 => {}
                SlotState::Exited(_) => return Inits::Failed,
                SlotState::Waiting { .. } => {
                    start_if_due(slot, at, out);
                    return Inits::Blocked;
                }
                SlotState::Starting { .. } | SlotState::Running(_) | SlotState::Stopping(_) => return Inits::Blocked,
            },
            Role::Sidecar => {
                start_if_due(slot, at, out);
                if !initialized && !slot.is_started() {
                    return Inits::Blocked;
                }
            }
            Role::Main | Role::Ephemeral => {}
        }
    }
    Inits::Through
}

fn start_if_due(slot: &mut Slot, at: Timestamp, out: &mut Vec<PodEffect>) {
    if let SlotState::Waiting { reason, message, retry_at } = &slot.state
        && retry_at.is_none_or(|due| due <= at)
    {
        out.push(PodEffect::Start { name: slot.name.clone(), attempt: slot.next_attempt });
        slot.state = SlotState::Starting { reason: reason.clone(), message: message.clone() };
    }
}

/// Brings what containers may use to what is promised: at once, or by a restart where the container wants one.
fn resize_runs(life: &mut Life, at: Timestamp, out: &mut Vec<PodEffect>) {
    let grace_seconds = grace(&life.pod);
    for slot in life.slots.iter_mut().filter(|slot| matches!(slot.role, Role::Main | Role::Sidecar)) {
        let SlotState::Running(run) = &mut slot.state else { continue };
        let Some(container) = container(&life.pod, &slot.name) else { continue };
        let changes = resize::changes(run.applied.as_ref(), container.resources.as_ref());
        let waits = match &run.resizing {
            Resizing::Idle => false,
            Resizing::Working => true,
            Resizing::Failed { retry_at, .. } => at < *retry_at,
        };
        if changes.is_empty() || waits {
            continue;
        }
        if resize::needs_restart(container, &changes) {
            let message = format!("Container {} resize requires restart", slot.name);
            slot.state = kill(&slot.name, run, message, grace_seconds, out);
            slot.start_again = true;
        } else {
            let (name, id) = (slot.name.clone(), run.id.clone());
            run.resizing = Resizing::Working;
            out.push(PodEffect::Resize { name, id, resources: container.resources.clone().unwrap_or_default() });
        }
    }
}

/// The pod's restart policy and what its containers say against it.
struct Policy<'a> {
    pod: &'a str,
}

impl Policy<'_> {
    fn of(pod: &core::Pod) -> Policy<'_> {
        let spec = pod.spec.as_ref();
        Policy { pod: spec.and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always") }
    }

    fn restarts(&self, slot: &Slot, container: Option<&core::Container>, code: i32) -> bool {
        match slot.role {
            Role::Ephemeral => return false,
            Role::Sidecar => return true,
            Role::Init | Role::Main => {}
        }
        let rules = container.and_then(|container| container.restart_policy_rules.as_ref());
        if rules.into_iter().flatten().any(|rule| rule_matches(rule, code)) {
            return true;
        }
        let own = container.and_then(|container| container.restart_policy.as_deref());
        match own.unwrap_or(self.pod) {
            // An init container that succeeded is through under every policy.
            "Always" => slot.role == Role::Main || code != 0,
            "OnFailure" => code != 0,
            _ => false,
        }
    }

    /// Moves an exited container that must run again to its wait.
    fn after_exit(&self, slot: &mut Slot, pod: &core::Pod) {
        let SlotState::Exited(exit) = &slot.state else { return };
        let exit = exit.clone();
        if !slot.start_again && !self.restarts(slot, container(pod, &slot.name), exit.code) {
            return;
        }
        let delay = slot.backoff.delay();
        // What we stopped ourselves did not crash.
        let retry_at = if slot.start_again { None } else { slot.backoff.next(&exit) };
        slot.next_attempt = slot.next_attempt.max(slot.restarts + 1);
        slot.state = match retry_at {
            None => SlotState::waiting("ContainerCreating", ""),
            Some(_) => SlotState::Waiting {
                reason: "CrashLoopBackOff".into(),
                message: back_off_message(delay, &slot.name, pod),
                retry_at,
            },
        };
        slot.last = Some(exit);
    }
}

fn back_off_message(delay: std::time::Duration, container: &str, pod: &core::Pod) -> String {
    let meta = &pod.metadata;
    let (name, namespace) = (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
    let (seconds, uid) = (delay.as_secs(), meta.uid.as_deref().unwrap_or_default());
    let delay = match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    };
    format!("back-off {delay} restarting failed container={container} pod={name}_{namespace}({uid})")
}

fn rule_matches(rule: &core::ContainerRestartRule, code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.as_ref().is_some_and(|values| values.contains(&code));
    if codes.operator == "NotIn" { !listed } else { listed }
}

/// Init or main container of this name.
pub fn container<'a>(pod: &'a core::Pod, name: &str) -> Option<&'a core::Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|container| container.name == name)
}

// === Stopping ===

/// Stops main containers, then sidecars one by one from the last to the first, then has everything cleared.
pub fn stop(mut life: Life, sandbox: Option<Sandbox>, stop: Stop, at: Timestamp, out: &mut Vec<PodEffect>) -> Pod {
    for slot in &mut life.slots {
        if slot.role != Role::Sidecar {
            stop_slot(slot, stop.grace_seconds, out);
        }
    }
    if life.slots.iter().any(|slot| slot.role != Role::Sidecar && !slot.is_quiet()) {
        return Pod::Stopping(life, sandbox, stop);
    }
    let spent = at.duration_since(stop.since).as_secs();
    let left = (stop.grace_seconds - spent).max(limits::GRACE_SECONDS_MIN.min(stop.grace_seconds));
    for slot in life.slots.iter_mut().rev() {
        if slot.role == Role::Sidecar && !slot.is_quiet() {
            stop_slot(slot, left, out);
            return Pod::Stopping(life, sandbox, stop);
        }
    }
    // ## Stopping => Clearing
    life.retry_at = None;
    life.failures = 0;
    out.push(PodEffect::Clear);
    Pod::Clearing(life)
}

fn stop_slot(slot: &mut Slot, grace_seconds: i64, out: &mut Vec<PodEffect>) {
    match &slot.state {
        SlotState::Running(run) => {
            let message = format!("Stopping container {}", slot.name);
            slot.state = kill(&slot.name, run, message, grace_seconds, out);
        }
        SlotState::Starting { reason, .. } if reason != "Cancelled" => {
            out.push(PodEffect::CancelStart { name: slot.name.clone() });
            slot.state = SlotState::Starting { reason: "Cancelled".into(), message: String::new() };
        }
        SlotState::Starting { .. } | SlotState::Waiting { .. } | SlotState::Stopping(_) | SlotState::Exited(_) => {}
    }
}

/// Tells a container that runs to stop, and people why. Returns the state that it has from then on.
fn kill(name: &str, run: &Run, message: String, grace_seconds: i64, out: &mut Vec<PodEffect>) -> SlotState {
    let name = name.to_owned();
    let container = Some(name.clone());
    out.push(PodEffect::Event { warning: false, reason: "Killing".into(), message, container });
    out.push(PodEffect::Stop { name, id: run.id.clone(), grace_seconds, pre_stop: true });
    SlotState::Stopping(run.clone())
}

/// Tells containers that are stopping that their time got shorter.
pub fn hurry(life: &Life, grace_seconds: i64, out: &mut Vec<PodEffect>) {
    for slot in &life.slots {
        if let SlotState::Stopping(run) = &slot.state {
            let (name, id) = (slot.name.clone(), run.id.clone());
            out.push(PodEffect::Stop { name, id, grace_seconds, pre_stop: false });
        }
    }
}

// === a lost sandbox ===

/// Containers of a dead sandbox are dead, whatever was last heard of them.
pub fn lose_runs(life: &mut Life, at: Timestamp) {
    for slot in &mut life.slots {
        if let Some(run) = slot.run() {
            slot.state = SlotState::Exited(Exit {
                id: run.id.clone(),
                image: run.image.clone(),
                image_ref: run.image_ref.clone(),
                code: EXIT_UNKNOWN,
                signal: 0,
                reason: "ContainerStatusUnknown".into(),
                message: "The container could not be located when the pod was terminated".into(),
                started_at: run.since,
                finished_at: Some(at),
            });
        }
    }
}

/// Anything left to run in a new sandbox.
pub fn wants_to_run(life: &Life) -> bool {
    let policy = Policy::of(&life.pod);
    life.slots.iter().filter(|slot| slot.role == Role::Main).any(|slot| match &slot.state {
        SlotState::Exited(exit) => policy.restarts(slot, container(&life.pod, &slot.name), exit.code),
        SlotState::Waiting { .. } | SlotState::Starting { .. } | SlotState::Running(_) | SlotState::Stopping(_) => true,
    })
}

/// A new sandbox starts with the init containers again.
pub fn begin_again(life: &mut Life) {
    let policy_pod = life.pod.clone();
    let policy = Policy::of(&policy_pod);
    life.initialized = false;
    for slot in &mut life.slots {
        let again = match &slot.state {
            SlotState::Exited(exit) => {
                matches!(slot.role, Role::Init | Role::Sidecar)
                    || policy.restarts(slot, container(&policy_pod, &slot.name), exit.code)
            }
            _ => true,
        };
        if again && slot.role != Role::Ephemeral {
            if let SlotState::Exited(exit) = &slot.state {
                slot.last = Some(exit.clone());
                slot.next_attempt = slot.next_attempt.max(slot.restarts + 1);
            }
            let reason = if slot.role == Role::Main { "ContainerCreating" } else { "PodInitializing" };
            slot.state = SlotState::waiting(reason, "");
        }
    }
}

/// Ephemeral containers are added to a pod that runs.
pub fn add_ephemeral(life: &mut Life) {
    let Some(spec) = &life.pod.spec else { return };
    for extra in spec.ephemeral_containers.iter().flatten() {
        if life.slots.iter().all(|slot| slot.name != extra.name) {
            life.slots.push(Slot::new(&extra.name, Role::Ephemeral, "ContainerCreating"));
        }
    }
}
