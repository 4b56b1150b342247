//! The slow work behind a pod's effects. Each job ends in news for the state machine and touches no state itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Chain;
use k8s_openapi::api::core::v1 as core;

use super::adopt::Found;
use super::event::What;
use super::fsm::Sandbox;
use super::hooks::{self, HookOf};
use super::observe;
use super::order;
use super::slot::Exit;
use crate::context::Context;
use crate::limits;
use crate::runtime::{ContainerState, RuntimeError, SandboxConfig, labels};
use crate::spec::names::PodName;
use crate::spec::qos;
use crate::spec::resources::of_container;
use crate::spec::sandbox::{Surroundings, config};
use crate::volumes::Volumes;

/// What a finished job brings.
pub enum Done {
    News(Vec<What>),
    Prepared {
        volumes: Volumes,
        sandbox: Box<SandboxConfig>,
    },
    Refreshed(Result<Volumes, String>),
    Examined(Vec<What>),
    /// Dead containers and sandboxes are removed.
    Collected,
    /// Everything of a pod that is gone is removed.
    Buried,
}

pub fn uid_label(uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(labels::POD_UID.to_owned(), uid.to_owned())])
}

/// Everything the runtime knows of a pod.
pub async fn find(context: &Context, uid: &str) -> Result<Found, RuntimeError> {
    let mut found = Found::default();
    for sandbox in context.runtime.list_sandboxes(&uid_label(uid)).await? {
        match context.runtime.sandbox_status(&sandbox.id).await {
            Ok(status) => found.sandboxes.push(status),
            Err(RuntimeError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for container in context.runtime.list_containers(&uid_label(uid)).await? {
        match context.runtime.container_status(&container.id).await {
            Ok(mut status) => {
                status.attempt = container.attempt;
                found.containers.push(status);
            }
            Err(RuntimeError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

pub async fn prepare(context: Arc<Context>, pod: Arc<core::Pod>, ips: Vec<String>) -> Done {
    match try_prepare(&context, &pod, &ips).await {
        Ok((volumes, sandbox)) => Done::Prepared { volumes, sandbox: Box::new(sandbox) },
        Err((reason, message)) => Done::News(vec![What::PrepareFailed { reason, message }]),
    }
}

/// An error is the reason and message of an event.
async fn try_prepare(
    context: &Context,
    pod: &core::Pod,
    ips: &[String],
) -> Result<(Volumes, SandboxConfig), (&'static str, String)> {
    let no_sandbox = |why: &str| ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {why}"));
    context.cgroups.create(pod).map_err(|error| {
        (
            "FailedCreatePodContainer",
            format!("unable to ensure pod container exists: failed to create container: {error}"),
        )
    })?;
    let name = PodName::of(pod);
    std::fs::create_dir_all(context.log_directory(&name))
        .map_err(|error| no_sandbox(&format!("failed to create the pod's log folder: {error}")))?;
    if pod.spec.as_ref().is_some_and(|spec| spec.host_users == Some(false)) {
        return Err(no_sandbox("can't set `spec.hostUsers: false`, this node does not support user namespaces"));
    }
    let facts = context.facts(&context.pod_ips(pod, ips));
    let volumes = context.volumes.set_up(pod, &facts).await;
    let volumes = volumes.map_err(|error| ("FailedMount", Chain(&error).to_string()))?;
    let runtime_handler = context.runtime_handler(pod).await.map_err(|error| no_sandbox(&error.message))?;
    let around = Surroundings {
        attempt: 0,
        cluster_domain: context.config.cluster_domain.clone(),
        dns: context.dns(pod),
        log_root: context.config.log_dir.clone(),
        cgroup_parent: context.cgroups.pod_parent(pod),
        seccomp_root: context.config.seccomp_dir.clone(),
        runtime_handler,
        user_slot: None,
    };
    let sandbox = config(pod, &around).map_err(|error| no_sandbox(&error.message))?;
    Ok((volumes, sandbox))
}

pub async fn refresh(context: Arc<Context>, pod: Arc<core::Pod>, ips: Vec<String>) -> Done {
    let facts = context.facts(&context.pod_ips(&pod, &ips));
    Done::Refreshed(context.volumes.set_up(&pod, &facts).await.map_err(|error| Chain(&error).to_string()))
}

pub async fn run_sandbox(context: Arc<Context>, sandbox: SandboxConfig) -> Done {
    let made = tokio::time::timeout(limits::SANDBOX_TIMEOUT, context.runtime.run_sandbox(&sandbox)).await;
    let id = match made {
        Ok(Ok(id)) => id,
        Ok(Err(error)) => return Done::News(vec![What::SandboxFailed { message: error.to_string() }]),
        Err(_) => return Done::News(vec![What::SandboxFailed { message: "the runtime does not answer".into() }]),
    };
    match context.runtime.sandbox_status(&id).await {
        Ok(status) => {
            let ips = status.ips.iter().map(ToString::to_string).collect();
            Done::News(vec![What::SandboxUp(Sandbox { id, ips })])
        }
        Err(error) => {
            let _ = context.runtime.stop_sandbox(&id).await;
            let _ = context.runtime.remove_sandbox(&id).await;
            Done::News(vec![What::SandboxFailed { message: error.to_string() }])
        }
    }
}

/// Which container to stop, and how.
pub struct Stopping {
    pub name: String,
    pub id: String,
    pub grace_seconds: i64,
    pub pre_stop: bool,
    pub pod_ip: String,
}

/// preStop, then the stop signal, then the kill; ends when the container has ended, however long the runtime is away.
pub async fn stop(context: Arc<Context>, pod: Arc<core::Pod>, stopping: Stopping) -> Done {
    let grace = Duration::from_secs(u64::try_from(stopping.grace_seconds).unwrap_or(0));
    let from = tokio::time::Instant::now();
    if stopping.pre_stop
        && !grace.is_zero()
        && let Some(container) = order::container(&pod, &stopping.name)
    {
        let of = HookOf { pod: &pod, container, id: &stopping.id, pod_ip: &stopping.pod_ip };
        if let Err(message) = hooks::pre_stop(&context, &of, grace).await {
            context.event(
                &pod,
                Some(&stopping.name),
                true,
                "FailedPreStopHook",
                &format!("PreStopHook failed: {message}"),
            );
        }
    }
    let least = Duration::from_secs(limits::GRACE_SECONDS_MIN.unsigned_abs()).min(grace);
    let left = grace.saturating_sub(from.elapsed()).max(least);
    let mut failures = 0;
    loop {
        let outcome = context.runtime.stop_container(&stopping.id, left).await;
        if let Ok(()) | Err(RuntimeError::NotFound { .. }) = outcome
            && let Some(exit) = exit_of(&context, &stopping.id).await
        {
            return Done::News(vec![What::Exited { name: stopping.name, exit }]);
        }
        tracing::debug!(container = %stopping.id, ?outcome, "container has not stopped yet");
        tokio::time::sleep(super::slot::retry_delay(failures)).await;
        failures += 1;
    }
}

/// Tells the runtime what a container may use. The pod's cgroup gives way before and follows after.
pub async fn resize(
    context: Arc<Context>,
    pod: Arc<core::Pod>,
    name: String,
    id: String,
    resources: core::ResourceRequirements,
) -> Done {
    context.cgroups.grow(&pod);
    let wanted = of_container(Some(&resources), qos::class(&pod), context.machine.memory_bytes);
    let outcome = context.runtime.update_resources(&id, &wanted).await;
    if outcome.is_ok() {
        context.cgroups.fit(&pod);
    }
    let outcome = outcome.map(|()| resources).map_err(|error| error.to_string());
    Done::News(vec![What::Resized { name, id, outcome }])
}

/// The exit of a container that has ended; of one that nobody knows any more, an unknown exit.
async fn exit_of(context: &Context, id: &str) -> Option<Exit> {
    match context.runtime.container_status(id).await {
        Ok(status) if status.state == ContainerState::Exited => Some(observe::exit(&status)),
        Err(RuntimeError::NotFound { .. }) => Some(Exit {
            id: id.to_owned(),
            code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: "The container could not be located when the pod was terminated".into(),
            finished_at: Some(context.ports.clock.now()),
            ..Exit::default()
        }),
        Ok(_) | Err(_) => None,
    }
}

/// Looks closely at containers (name, id) that a listing did not show running, and at the sandbox if it is in doubt.
pub async fn examine(context: Arc<Context>, doubtful: Vec<(String, String)>, sandbox: Option<String>) -> Done {
    let mut news = Vec::new();
    for (name, id) in doubtful {
        if let Some(exit) = exit_of(&context, &id).await {
            news.push(What::Exited { name, exit });
        }
    }
    if let Some(id) = sandbox {
        let lost = match context.runtime.sandbox_status(&id).await {
            Ok(status) => !status.sandbox.ready,
            Err(RuntimeError::NotFound { .. }) => true,
            Err(_) => false,
        };
        if lost {
            news.push(What::SandboxLost);
        }
    }
    Done::Examined(news)
}

pub async fn stop_sandbox(context: Arc<Context>, id: String) -> Done {
    if let Err(error) = context.runtime.stop_sandbox(&id).await {
        tracing::warn!(sandbox = %id, %error, "dead sandbox was not stopped");
    }
    Done::News(Vec::new())
}

/// Sandboxes stopped, mounts and cgroups gone. Dead containers stay until their end is on record.
pub async fn clear(context: Arc<Context>, uid: String) -> Done {
    match try_clear(&context, &uid).await {
        Ok(()) => Done::News(vec![What::Cleared]),
        Err(message) => Done::News(vec![What::ClearFailed { message }]),
    }
}

async fn try_clear(context: &Context, uid: &str) -> Result<(), String> {
    let sandboxes = context.runtime.list_sandboxes(&uid_label(uid)).await.map_err(|error| error.to_string())?;
    for sandbox in sandboxes {
        context.runtime.stop_sandbox(&sandbox.id).await.map_err(|error| error.to_string())?;
    }
    context.volumes.tear_down(uid).await.map_err(|error| Chain(&error).to_string())?;
    if let Err(error) = context.cgroups.remove(uid) {
        tracing::debug!(uid, %error, "pod cgroup is not empty yet");
    }
    Ok(())
}

/// Removes dead sandboxes and containers of a pod that is over.
pub async fn collect(context: Arc<Context>, uid: String) -> Done {
    remove_all(&context, &uid).await;
    Done::Collected
}

async fn remove_all(context: &Context, uid: &str) {
    let Ok(sandboxes) = context.runtime.list_sandboxes(&uid_label(uid)).await else { return };
    for sandbox in sandboxes {
        let stopped = context.runtime.stop_sandbox(&sandbox.id).await;
        if let Err(error) = stopped.and(context.runtime.remove_sandbox(&sandbox.id).await) {
            tracing::warn!(sandbox = %sandbox.id, %error, "sandbox was not removed");
        }
    }
    let _ = context.cgroups.remove(uid);
}

/// The pod is gone from the API: its logs go too.
pub async fn bury(context: Arc<Context>, name: PodName) -> Done {
    remove_all(&context, &name.uid).await;
    let logs = context.log_directory(&name);
    if let Err(error) = std::fs::remove_dir_all(&logs)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %logs.display(), %error, "log folder was not removed");
    }
    Done::Buried
}

/// Removes dead containers of one name but the latest, and their logs: `kubectl logs --previous` needs one.
pub async fn prune(context: Arc<Context>, pod: PodName, name: String, attempt: u32) -> Done {
    let mut wanted = uid_label(&pod.uid);
    wanted.insert(labels::CONTAINER_NAME.to_owned(), name.clone());
    let containers = context.runtime.list_containers(&wanted).await.unwrap_or_default();
    for old in containers.iter().filter(|container| container.attempt + 1 < attempt) {
        if let Err(error) = context.runtime.remove_container(&old.id).await {
            tracing::debug!(container = %old.id, %error, "dead container was not removed");
        }
    }
    let folder = context.log_directory(&pod).join(&name);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let number = file.split('.').next().and_then(|number| number.parse::<u32>().ok());
        if number.is_some_and(|number| number + 1 < attempt) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Done::News(Vec::new())
}
