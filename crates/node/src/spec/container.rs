//! One container as the runtime is told of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1 as core;

use super::names::PodName;
use super::qos::Qos;
use super::{SpecError, expand, resources, sandbox, security};
use crate::runtime::{ContainerConfig, Device, Image, Mount, NamespaceMode, labels};

/// Annotations that survive the agent: what adoption cannot read elsewhere.
pub const ANNOTATION_RESTARTS: &str = "io.kubernetes.container.restartCount";
pub const ANNOTATION_TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const ANNOTATION_TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const ANNOTATION_TERMINATION_FILE: &str = "evenkeel.io/termination-file";
pub const ANNOTATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// What was prepared for this container.
pub struct Prepared<'a> {
    pub attempt: u32,
    pub image: &'a Image,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub qos: Qos,
    pub machine_memory: i64,
    pub seccomp_root: PathBuf,
    pub volume_groups: Vec<i64>,
    /// Host file behind `terminationMessagePath`.
    pub termination_file: PathBuf,
    /// Of an ephemeral container: the container whose processes it sees.
    pub target: Option<String>,
}

pub fn config(pod: &core::Pod, container: &core::Container, ready: Prepared<'_>) -> Result<ContainerConfig, SpecError> {
    let vars: BTreeMap<String, String> = ready.env.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| expand::expand(word, &vars)).collect()
    };
    let context = container.security_context.as_ref();
    let mut security = security::container(pod, context, ready.image, &ready.seccomp_root, &ready.volume_groups)?;
    if let Some(target) = &ready.target {
        security.namespaces.pid = NamespaceMode::Target;
        security.target_container.clone_from(target);
    }
    let name = PodName::of(pod);
    let mut labels = sandbox::identity(&name);
    labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: ready.attempt,
        image_ref: ready.image.id.clone(),
        image_name: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        annotations: annotations(pod, container, &ready),
        env: ready.env,
        mounts: ready.mounts,
        devices: ready.devices,
        labels,
        log_path: PathBuf::from(&container.name).join(format!("{}.log", ready.attempt)),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        resources: resources::of_container(container.resources.as_ref(), ready.qos, ready.machine_memory),
        security,
        stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).unwrap_or_default(),
    })
}

fn annotations(pod: &core::Pod, container: &core::Container, ready: &Prepared<'_>) -> BTreeMap<String, String> {
    let path = container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned());
    let policy = container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned());
    let mut all = BTreeMap::from([
        (ANNOTATION_RESTARTS.to_owned(), ready.attempt.to_string()),
        (ANNOTATION_TERMINATION_PATH.to_owned(), path),
        (ANNOTATION_TERMINATION_POLICY.to_owned(), policy),
        (ANNOTATION_TERMINATION_FILE.to_owned(), ready.termination_file.to_string_lossy().into_owned()),
    ]);
    if let Some(seconds) = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds) {
        all.insert(ANNOTATION_GRACE.to_owned(), seconds.to_string());
    }
    all
}

/// An ephemeral container has the same fields under another type.
pub fn of_ephemeral(extra: &core::EphemeralContainer) -> core::Container {
    core::Container {
        name: extra.name.clone(),
        image: extra.image.clone(),
        command: extra.command.clone(),
        args: extra.args.clone(),
        working_dir: extra.working_dir.clone(),
        env: extra.env.clone(),
        env_from: extra.env_from.clone(),
        image_pull_policy: extra.image_pull_policy.clone(),
        security_context: extra.security_context.clone(),
        stdin: extra.stdin,
        stdin_once: extra.stdin_once,
        tty: extra.tty,
        termination_message_path: extra.termination_message_path.clone(),
        termination_message_policy: extra.termination_message_policy.clone(),
        volume_mounts: extra.volume_mounts.clone(),
        volume_devices: extra.volume_devices.clone(),
        resources: extra.resources.clone(),
        ..core::Container::default()
    }
}
