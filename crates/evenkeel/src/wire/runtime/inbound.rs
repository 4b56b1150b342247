//! From CRI's words to the node's.

use std::collections::{BTreeMap, HashMap};

use container::v1;
use node::runtime as port;
use node::runtime::{ContainerState, RuntimeEventKind, labels};

fn map(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

pub fn status(reply: v1::StatusResponse) -> port::RuntimeStatus {
    let conditions = reply.status.map(|status| status.conditions).unwrap_or_default();
    let holds = |name: &str| conditions.iter().any(|condition| condition.r#type == name && condition.status);
    let bad = conditions.iter().filter(|condition| !condition.status);
    let bad: Vec<String> = bad.map(|condition| format!("{}: {}", condition.reason, condition.message)).collect();
    port::RuntimeStatus {
        runtime_ready: holds("RuntimeReady"),
        network_ready: holds("NetworkReady"),
        message: bad.join("; "),
        handlers: reply.runtime_handlers.into_iter().map(|handler| handler.name).collect(),
    }
}

pub fn sandbox(sandbox: v1::PodSandbox) -> port::Sandbox {
    let ready = sandbox.state() == v1::PodSandboxState::SandboxReady;
    let metadata = sandbox.metadata.unwrap_or_default();
    port::Sandbox {
        id: sandbox.id,
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
        ready,
        created_at: sandbox.created_at,
        labels: map(sandbox.labels),
        annotations: map(sandbox.annotations),
    }
}

pub fn sandbox_status(status: v1::PodSandboxStatus) -> port::SandboxStatus {
    let namespaces = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    let host_network = namespaces.is_some_and(|options| options.network() == v1::NamespaceMode::Node);
    let network = status.network.clone().unwrap_or_default();
    let further = network.additional_ips.into_iter().map(|ip| ip.ip);
    let ips = std::iter::once(network.ip).chain(further).filter_map(|ip| ip.parse().ok()).collect();
    let plain = v1::PodSandbox {
        id: status.id.clone(),
        metadata: status.metadata.clone(),
        state: status.state,
        created_at: status.created_at,
        labels: status.labels,
        annotations: status.annotations,
        runtime_handler: status.runtime_handler,
    };
    port::SandboxStatus { sandbox: sandbox(plain), ips, host_network }
}

fn state(state: v1::ContainerState) -> ContainerState {
    match state {
        v1::ContainerState::ContainerCreated => ContainerState::Created,
        v1::ContainerState::ContainerRunning => ContainerState::Running,
        v1::ContainerState::ContainerExited => ContainerState::Exited,
        v1::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

pub fn container(container: v1::Container) -> port::Container {
    let state = state(container.state());
    let metadata = container.metadata.unwrap_or_default();
    port::Container {
        id: container.id,
        sandbox: container.pod_sandbox_id,
        name: metadata.name,
        attempt: metadata.attempt,
        state,
        created_at: container.created_at,
        image: container.image.map(|image| image.image).unwrap_or_default(),
        image_ref: container.image_ref,
        labels: map(container.labels),
        annotations: map(container.annotations),
    }
}

pub fn container_status(status: v1::ContainerStatus) -> port::ContainerStatus {
    let state = state(status.state());
    let metadata = status.metadata.unwrap_or_default();
    let linux = status.resources.and_then(|resources| resources.linux).unwrap_or_default();
    let user = status.user.and_then(|user| user.linux);
    port::ContainerStatus {
        id: status.id,
        name: metadata.name,
        attempt: metadata.attempt,
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: status.image_ref,
        log_path: status.log_path.into(),
        labels: map(status.labels),
        annotations: map(status.annotations),
        resources: resources(linux),
        user: user.map(|user| (user.uid, user.gid, user.supplemental_groups)),
    }
}

fn resources(linux: v1::LinuxContainerResources) -> port::Resources {
    port::Resources {
        cpu_period_us: linux.cpu_period,
        cpu_quota_us: linux.cpu_quota,
        cpu_shares: linux.cpu_shares,
        memory_limit_bytes: linux.memory_limit_in_bytes,
        oom_score_adj: linux.oom_score_adj,
        cpuset_cpus: linux.cpuset_cpus,
        cpuset_mems: linux.cpuset_mems,
        hugepages: linux.hugepage_limits.into_iter().map(|limit| (limit.page_size, limit.limit)).collect(),
        unified: map(linux.unified),
        memory_swap_limit_bytes: linux.memory_swap_limit_in_bytes,
    }
}

pub fn container_stats(stats: v1::ContainerStats) -> Option<port::ContainerStats> {
    let attributes = stats.attributes?;
    let value = |value: Option<v1::UInt64Value>| value.map(|value| value.value).unwrap_or_default();
    let cpu = stats.cpu.unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    let layer = stats.writable_layer.unwrap_or_default();
    Some(port::ContainerStats {
        id: attributes.id,
        name: attributes.metadata.unwrap_or_default().name,
        labels: map(attributes.labels),
        timestamp: cpu.timestamp,
        cpu_usage_nanos: value(cpu.usage_core_nano_seconds),
        memory_usage_bytes: value(memory.usage_bytes),
        memory_working_set_bytes: value(memory.working_set_bytes),
        memory_rss_bytes: value(memory.rss_bytes),
        memory_page_faults: value(memory.page_faults),
        memory_major_page_faults: value(memory.major_page_faults),
        layer_used_bytes: value(layer.used_bytes),
        layer_inodes_used: value(layer.inodes_used),
    })
}

pub fn image(image: v1::Image) -> port::Image {
    port::Image {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size_bytes: image.size,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
        pinned: image.pinned,
    }
}

pub fn image_filesystem(reply: v1::ImageFsInfoResponse) -> port::FilesystemUse {
    let usage = reply.image_filesystems.into_iter().next().unwrap_or_default();
    port::FilesystemUse {
        mountpoint: usage.fs_id.map(|id| id.mountpoint).unwrap_or_default().into(),
        used_bytes: usage.used_bytes.map(|value| value.value).unwrap_or_default(),
        inodes_used: usage.inodes_used.map(|value| value.value).unwrap_or_default(),
    }
}

pub fn event(event: v1::ContainerEventResponse) -> port::RuntimeEvent {
    let kind = match event.container_event_type() {
        v1::ContainerEventType::ContainerCreatedEvent => RuntimeEventKind::Created,
        v1::ContainerEventType::ContainerStartedEvent => RuntimeEventKind::Started,
        v1::ContainerEventType::ContainerStoppedEvent => RuntimeEventKind::Stopped,
        v1::ContainerEventType::ContainerDeletedEvent => RuntimeEventKind::Deleted,
    };
    let sandbox = event.pod_sandbox_status.unwrap_or_default();
    let uid = sandbox.labels.get(labels::POD_UID).cloned();
    let uid = uid.or_else(|| sandbox.metadata.map(|metadata| metadata.uid)).unwrap_or_default();
    port::RuntimeEvent { kind, pod_uid: uid, container: event.container_id }
}
