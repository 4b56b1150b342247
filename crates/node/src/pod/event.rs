//! What a pod's state machine is told, and what it asks its worker to do.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::fsm::{Outcome, Sandbox};
use super::resize::Pending;
use super::slot::{Exit, Run};

#[derive(Clone, Debug, PartialEq)]
pub struct PodEvent {
    pub at: Timestamp,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The record changed. Its resources are those that the node promises; what it asks for beyond them is pending.
    Spec(Arc<core::Pod>, Option<Pending>),
    /// The record is gone.
    Removed,
    Prepared,
    /// `reason` is the event's.
    PrepareFailed {
        reason: &'static str,
        message: String,
    },
    SandboxUp(Sandbox),
    SandboxFailed {
        message: String,
    },
    /// The sandbox is not ready any more. Exits that are known were told before.
    SandboxLost,
    /// News of a start under way: `ErrImagePull`, ...
    Progress {
        name: String,
        reason: String,
        message: String,
    },
    Started {
        name: String,
        attempt: u32,
        run: Run,
    },
    /// `created`: a container of this attempt exists, so the number is used up.
    StartFailed {
        name: String,
        attempt: u32,
        created: bool,
        failure: StartFailure,
    },
    Exited {
        name: String,
        exit: Exit,
    },
    Startup {
        name: String,
        id: String,
    },
    Readiness {
        name: String,
        id: String,
        ready: bool,
    },
    /// The runtime was told what a container may use, or refused.
    Resized {
        name: String,
        id: String,
        outcome: Result<core::ResourceRequirements, String>,
    },
    /// A startup or liveness probe failed too often.
    Unhealthy {
        name: String,
        id: String,
        message: String,
        grace_seconds: Option<i64>,
    },
    /// The node wants it gone: pressure, admission.
    Evict(Outcome),
    Cleared,
    ClearFailed {
        message: String,
    },
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StartFailure {
    pub reason: String,
    pub message: String,
    /// Set by the image puller, which keeps its own waits.
    pub retry_at: Option<Timestamp>,
    /// The container ran and was killed again (a failed postStart hook).
    pub exit: Option<Exit>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PodEffect {
    Prepare,
    RunSandbox {
        attempt: u32,
    },
    Start {
        name: String,
        attempt: u32,
    },
    /// Drop a start that is under way.
    CancelStart {
        name: String,
    },
    Stop {
        name: String,
        id: String,
        grace_seconds: i64,
        pre_stop: bool,
    },
    /// Tell the runtime what a container may use from now on.
    Resize {
        name: String,
        id: String,
        resources: core::ResourceRequirements,
    },
    /// Take a dead sandbox away while the pod lives on.
    StopSandbox {
        id: String,
    },
    /// Stop and remove every sandbox, mount and cgroup of the pod.
    Clear,
    /// Final deletion from the API: grace 0, uid precondition.
    DeleteRecord,
    Event {
        warning: bool,
        reason: Cow<'static, str>,
        message: String,
        container: Option<String>,
    },
}

pub(super) fn event(warning: bool, reason: impl Into<Cow<'static, str>>, message: String) -> PodEffect {
    PodEffect::Event { warning, reason: reason.into(), message, container: None }
}
