//! What others may see of a pod: made anew after every step of its worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Tree;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::fsm::Pod;
use super::slot::{Slot, SlotState};

/// What others may see of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    pub pod: Arc<core::Pod>,
    pub status: Tree,
    pub sandbox: Option<String>,
    pub containers: BTreeMap<String, ContainerView>,
    /// It is on its way to its end.
    pub ending: bool,
    /// Nothing of it runs any more.
    pub over: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerView {
    /// Of the container that runs; empty when none does.
    pub id: String,
    /// Number of the newest container; its log is `ATTEMPT.log`.
    pub attempt: u32,
    /// A container of that number exists or existed.
    pub created: bool,
    /// Why there is none, for the log reader's message.
    pub waiting: String,
    /// When what runs was started.
    pub since: Option<Timestamp>,
}

// === impl PodView ===

impl PodView {
    /// None of a pod that is gone.
    pub fn of(state: &Pod, status: &Tree) -> Option<PodView> {
        let life = state.life()?;
        Some(PodView {
            pod: life.pod.clone(),
            status: status.clone(),
            sandbox: state.sandbox().map(|sandbox| sandbox.id.clone()),
            containers: life.slots.iter().map(|slot| (slot.name.clone(), ContainerView::of(slot))).collect(),
            ending: matches!(state, Pod::Stopping(..) | Pod::Clearing(_) | Pod::Over(_) | Pod::Gone),
            over: matches!(state, Pod::Over(_)),
        })
    }
}

// === impl ContainerView ===

impl ContainerView {
    fn of(slot: &Slot) -> ContainerView {
        let waiting = match &slot.state {
            SlotState::Waiting { reason, .. } | SlotState::Starting { reason, .. } => reason.clone(),
            SlotState::Running(_) | SlotState::Stopping(_) | SlotState::Exited(_) => String::new(),
        };
        ContainerView {
            id: slot.run().map(|run| run.id.clone()).unwrap_or_default(),
            attempt: slot.restarts,
            created: slot.run().is_some() || slot.latest_exit().is_some(),
            waiting,
            since: slot.run().and_then(|run| run.since),
        }
    }
}
