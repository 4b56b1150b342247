//! What an earlier process of ours left running, as the state a pod starts from. Nothing is restarted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use std::sync::Arc;

use super::fsm::{self, Life, Sandbox};
use super::observe;
use super::resize::Resizing;
use super::slot::{Backoff, Exit, Role, Run, Slot, SlotState};
use crate::runtime::{ContainerState, ContainerStatus, SandboxStatus};

/// What the runtime knows of one pod.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub sandboxes: Vec<SandboxStatus>,
    pub containers: Vec<ContainerStatus>,
}

impl Found {
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

/// The life of a pod that this process sees first, from its record and from what runs.
pub fn life(pod: &Arc<core::Pod>, found: &Found, now: Timestamp) -> Life {
    let ready =
        found.sandboxes.iter().filter(|status| status.sandbox.ready).max_by_key(|status| status.sandbox.attempt);
    let sandbox = ready.map(|status| Sandbox {
        id: status.sandbox.id.clone(),
        ips: status.ips.iter().map(ToString::to_string).collect(),
    });
    let mut slots = fsm::slots(pod);
    for slot in &mut slots {
        adopt_slot(slot, pod, found);
    }
    let mains_ran =
        slots.iter().any(|slot| slot.role == Role::Main && !matches!(slot.state, SlotState::Waiting { .. }));
    if mains_ran {
        // Init containers that were collected since must have succeeded.
        for slot in slots.iter_mut().filter(|slot| slot.role == Role::Init) {
            if let SlotState::Waiting { .. } = slot.state {
                slot.state = SlotState::Exited(Exit { reason: "Completed".into(), ..Exit::default() });
            }
        }
    }
    let status = pod.status.as_ref();
    let attempts = found.sandboxes.iter().map(|status| status.sandbox.attempt + 1).max();
    Life {
        pod: pod.clone(),
        slots,
        sandbox_attempt: attempts.unwrap_or(0),
        ips: sandbox.as_ref().map(|sandbox| sandbox.ips.clone()).unwrap_or_default(),
        initialized: mains_ran && sandbox.is_some(),
        found: sandbox,
        resize: None,
        outcome: None,
        removed: false,
        failures: 0,
        retry_at: None,
        started_at: status.and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0),
    }
}

fn adopt_slot(slot: &mut Slot, pod: &core::Pod, found: &Found) {
    let mine = found.containers.iter().filter(|status| status.name == slot.name);
    let by_attempt: BTreeMap<u32, &ContainerStatus> = mine.map(|status| (status.attempt, status)).collect();
    let mut newest = by_attempt.into_values().rev();
    let Some(latest) = newest.next() else {
        from_record(slot, pod);
        return;
    };
    slot.restarts = latest.attempt;
    slot.next_attempt = latest.attempt + 1;
    slot.backoff = Backoff::after(latest.attempt);
    slot.last = newest.find(|status| status.state == ContainerState::Exited).map(observe::exit);
    slot.state = match latest.state {
        ContainerState::Running => SlotState::Running(adopted_run(slot, pod, latest)),
        ContainerState::Exited => SlotState::Exited(observe::exit(latest)),
        // Created but never started: the start is done again with the next number.
        ContainerState::Created | ContainerState::Unknown => SlotState::waiting("ContainerCreating", ""),
    };
}

/// Readiness is as it was last reported until a probe says otherwise.
fn adopted_run(slot: &Slot, pod: &core::Pod, status: &ContainerStatus) -> Run {
    let reported = record(pod, &slot.name);
    let same = reported.is_some_and(|r| r.container_id.as_deref().is_some_and(|id| id.ends_with(&status.id)));
    let container = super::order::container(pod, &slot.name);
    let startup = container.is_some_and(|c| c.startup_probe.is_some());
    let readiness = container.is_some_and(|c| c.readiness_probe.is_some());
    Run {
        id: status.id.clone(),
        image: status.image.clone(),
        image_ref: status.image_ref.clone(),
        since: observe::time(status.started_at),
        started: !startup || same && reported.is_some_and(|r| r.started == Some(true)),
        ready: !readiness || same && reported.is_some_and(|r| r.ready),
        user: status.user.clone(),
        applied: container.and_then(|container| container.resources.clone()),
        resizing: Resizing::Idle,
    }
}

/// What the record says of a container the runtime knows nothing of (collected, or the machine was wiped).
fn from_record(slot: &mut Slot, pod: &core::Pod) {
    let Some(status) = record(pod, &slot.name) else { return };
    slot.restarts = u32::try_from(status.restart_count).unwrap_or(0);
    let state = status.state.as_ref();
    let ran = state.is_some_and(|state| state.terminated.is_some() || state.running.is_some());
    slot.next_attempt = slot.restarts + u32::from(ran);
    if let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) {
        slot.state = SlotState::Exited(exit_of(terminated, status));
    }
    if let Some(terminated) = status.last_state.as_ref().and_then(|state| state.terminated.as_ref()) {
        slot.last = Some(exit_of(terminated, status));
    }
}

fn exit_of(terminated: &core::ContainerStateTerminated, status: &core::ContainerStatus) -> Exit {
    let id = terminated.container_id.as_deref().unwrap_or_default();
    Exit {
        id: id.split_once("://").map_or(id, |(_, id)| id).to_owned(),
        image: status.image.clone(),
        image_ref: status.image_id.clone(),
        code: terminated.exit_code,
        signal: terminated.signal.unwrap_or(0),
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
        started_at: terminated.started_at.as_ref().map(|time| time.0),
        finished_at: terminated.finished_at.as_ref().map(|time| time.0),
    }
}

fn record<'a>(pod: &'a core::Pod, name: &str) -> Option<&'a core::ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flat_map(|list| list.iter().flatten()).find(|status| status.name == name)
}
