//! CRI's answers in the node's types.

use std::path::PathBuf;

use container::v1;
use node::runtime::{
    Container, ContainerState, ContainerStats, ContainerStatus, FilesystemUse, Handler, Image, Resources, RuntimeEvent,
    RuntimeEventKind, RuntimeStatus, Sandbox, SandboxStatus, labels,
};

const RUNTIME_READY: &str = "RuntimeReady";
const NETWORK_READY: &str = "NetworkReady";

pub fn status(answer: v1::StatusResponse) -> RuntimeStatus {
    let conditions = answer.status.map(|status| status.conditions).unwrap_or_default();
    let ready = |name: &str| conditions.iter().any(|condition| condition.r#type == name && condition.status);
    let failing = conditions.iter().filter(|condition| !condition.status);
    let said = failing.map(|condition| format!("{}: {}", condition.reason, condition.message));
    RuntimeStatus {
        runtime_ready: ready(RUNTIME_READY),
        network_ready: ready(NETWORK_READY),
        message: said.collect::<Vec<_>>().join("; "),
        handlers: answer.runtime_handlers.into_iter().map(handler).collect(),
        strict_groups: answer.features.is_some_and(|features| features.supplemental_groups_policy),
    }
}

fn handler(found: v1::RuntimeHandler) -> Handler {
    let features = found.features.unwrap_or_default();
    Handler { name: found.name, recursive_read_only: features.recursive_read_only_mounts }
}

pub fn sandbox(found: v1::PodSandbox) -> Sandbox {
    let metadata = found.metadata.unwrap_or_default();
    Sandbox {
        id: found.id,
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
        ready: found.state == i32::from(v1::PodSandboxState::SandboxReady),
        created_at: found.created_at,
        labels: found.labels.into_iter().collect(),
        annotations: found.annotations.into_iter().collect(),
    }
}

pub fn sandbox_status(status: v1::PodSandboxStatus) -> SandboxStatus {
    let metadata = status.metadata.unwrap_or_default();
    let network = status.network.unwrap_or_default();
    let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|one| one.ip));
    let options = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    SandboxStatus {
        sandbox: Sandbox {
            id: status.id,
            name: metadata.name,
            uid: metadata.uid,
            namespace: metadata.namespace,
            attempt: metadata.attempt,
            ready: status.state == i32::from(v1::PodSandboxState::SandboxReady),
            created_at: status.created_at,
            labels: status.labels.into_iter().collect(),
            annotations: status.annotations.into_iter().collect(),
        },
        ips: texts.filter_map(|text| text.parse().ok()).collect(),
        host_network: options.is_some_and(|options| options.network == i32::from(v1::NamespaceMode::Node)),
    }
}

fn state(number: i32) -> ContainerState {
    match v1::ContainerState::try_from(number) {
        Ok(v1::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(v1::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(v1::ContainerState::ContainerExited) => ContainerState::Exited,
        Ok(v1::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
    }
}

pub fn container(found: v1::Container) -> Container {
    let metadata = found.metadata.unwrap_or_default();
    Container {
        id: found.id,
        sandbox: found.pod_sandbox_id,
        name: metadata.name,
        attempt: metadata.attempt,
        state: state(found.state),
        created_at: found.created_at,
        image: found.image.map(|image| image.image).unwrap_or_default(),
        image_ref: found.image_ref,
        labels: found.labels.into_iter().collect(),
        annotations: found.annotations.into_iter().collect(),
    }
}

pub fn container_status(status: v1::ContainerStatus) -> ContainerStatus {
    let metadata = status.metadata.unwrap_or_default();
    let image = status.image.unwrap_or_default();
    let specified = Some(image.user_specified_image).filter(|name| !name.is_empty());
    let user = status.user.and_then(|user| user.linux);
    ContainerStatus {
        id: status.id,
        name: metadata.name,
        attempt: metadata.attempt,
        state: state(status.state),
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: specified.unwrap_or(image.image),
        image_ref: status.image_ref,
        log_path: PathBuf::from(status.log_path),
        labels: status.labels.into_iter().collect(),
        annotations: status.annotations.into_iter().collect(),
        resources: status.resources.and_then(|all| all.linux).map(resources).unwrap_or_default(),
        user: user.map(|user| (user.uid, user.gid, user.supplemental_groups)),
    }
}

fn resources(found: v1::LinuxContainerResources) -> Resources {
    Resources {
        cpu_period_us: found.cpu_period,
        cpu_quota_us: found.cpu_quota,
        cpu_shares: found.cpu_shares,
        memory_limit_bytes: found.memory_limit_in_bytes,
        oom_score_adj: found.oom_score_adj,
        cpuset_cpus: found.cpuset_cpus,
        cpuset_mems: found.cpuset_mems,
        hugepages: found.hugepage_limits.into_iter().map(|one| (one.page_size, one.limit)).collect(),
        unified: found.unified.into_iter().collect(),
        memory_swap_limit_bytes: found.memory_swap_limit_in_bytes,
    }
}

pub fn stats(found: v1::ContainerStats) -> ContainerStats {
    let attributes = found.attributes.unwrap_or_default();
    let metadata = attributes.metadata.unwrap_or_default();
    let (cpu, memory) = (found.cpu.unwrap_or_default(), found.memory.unwrap_or_default());
    let layer = found.writable_layer.unwrap_or_default();
    ContainerStats {
        id: attributes.id,
        name: metadata.name,
        labels: attributes.labels.into_iter().collect(),
        timestamp: cpu.timestamp.max(memory.timestamp),
        cpu_usage_nanos: value(cpu.usage_core_nano_seconds),
        memory_usage_bytes: value(memory.usage_bytes),
        memory_working_set_bytes: value(memory.working_set_bytes),
        memory_rss_bytes: value(memory.rss_bytes),
        memory_page_faults: value(memory.page_faults),
        memory_major_page_faults: value(memory.major_page_faults),
        layer_used_bytes: value(layer.used_bytes),
        layer_inodes_used: value(layer.inodes_used),
    }
}

fn value(number: Option<v1::UInt64Value>) -> u64 {
    number.map(|number| number.value).unwrap_or_default()
}

pub fn image(found: v1::Image) -> Image {
    Image {
        id: found.id,
        tags: found.repo_tags,
        digests: found.repo_digests,
        size_bytes: found.size,
        uid: found.uid.map(|uid| uid.value),
        username: found.username,
        pinned: found.pinned,
    }
}

pub fn filesystem(answer: v1::ImageFsInfoResponse) -> FilesystemUse {
    let found = answer.image_filesystems.into_iter().next().unwrap_or_default();
    FilesystemUse {
        mountpoint: PathBuf::from(found.fs_id.map(|id| id.mountpoint).unwrap_or_default()),
        used_bytes: value(found.used_bytes),
        inodes_used: value(found.inodes_used),
    }
}

pub fn event(event: v1::ContainerEventResponse) -> RuntimeEvent {
    use v1::ContainerEventType as Kind;
    let kind = match Kind::try_from(event.container_event_type) {
        Ok(Kind::ContainerCreatedEvent) => RuntimeEventKind::Created,
        Ok(Kind::ContainerStartedEvent) => RuntimeEventKind::Started,
        Ok(Kind::ContainerStoppedEvent) => RuntimeEventKind::Stopped,
        Ok(Kind::ContainerDeletedEvent) => RuntimeEventKind::Deleted,
        Err(_) => RuntimeEventKind::Resync,
    };
    let sandbox = event.pod_sandbox_status.and_then(|status| status.metadata).map(|metadata| metadata.uid);
    let labelled = || {
        let mut statuses = event.containers_statuses.iter();
        statuses.find(|one| one.id == event.container_id).and_then(|one| one.labels.get(labels::POD_UID).cloned())
    };
    let pod_uid = sandbox.or_else(labelled).unwrap_or_default();
    RuntimeEvent { kind, pod_uid, container: event.container_id }
}
