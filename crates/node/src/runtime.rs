//! The container runtime port: what the node needs of whatever runs containers.
//!
//! The verbs are close to CRI so that an adapter is a translation, but the types are ours: no engine is named here and a
//! built-in runtime can stand behind the same trait. Every verb is safe to repeat; stop and remove of something that is
//! already gone succeed. Times are nanoseconds since the epoch, 0 where unknown.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

/// Labels the node puts on every sandbox and container; adoption after a restart reads them back.
pub mod labels {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
}

#[async_trait]
pub trait Runtime: Send + Sync {
    async fn version(&self) -> Result<Version, RuntimeError>;
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError>;

    /// Creates and starts a sandbox (network included) and returns its id.
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String, RuntimeError>;
    /// Kills what still runs in it and tears the network down. Idempotent.
    async fn stop_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError>;
    /// Idempotent; removes its containers too.
    async fn remove_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError>;
    /// All sandboxes that carry these labels.
    async fn list_sandboxes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Sandbox>, RuntimeError>;
    /// `RuntimeError::NotFound` when it is gone.
    async fn sandbox_status(&self, sandbox: &str) -> Result<SandboxStatus, RuntimeError>;

    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
        sandbox_config: &SandboxConfig,
    ) -> Result<String, RuntimeError>;
    async fn start_container(&self, container: &str) -> Result<(), RuntimeError>;
    /// Stop signal, then kill after `grace`. Zero kills at once. Returns when it has stopped. Idempotent.
    async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), RuntimeError>;
    /// Idempotent.
    async fn remove_container(&self, container: &str) -> Result<(), RuntimeError>;
    /// All containers, running or not, that carry these labels.
    async fn list_containers(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Container>, RuntimeError>;
    /// `RuntimeError::NotFound` when it is gone.
    async fn container_status(&self, container: &str) -> Result<ContainerStatus, RuntimeError>;
    async fn update_resources(&self, container: &str, resources: &Resources) -> Result<(), RuntimeError>;
    /// The log file was renamed: open its path anew.
    async fn reopen_log(&self, container: &str) -> Result<(), RuntimeError>;

    /// Runs a command to its end. `RuntimeError::Timeout` when it takes longer.
    async fn exec_sync(
        &self,
        container: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError>;
    /// Where the stream can be fetched once: an http URL that accepts an upgrade to `SPDY/3.1` with `v4.channel.k8s.io`.
    async fn exec(&self, container: &str, request: &ExecRequest) -> Result<String, RuntimeError>;
    async fn attach(&self, container: &str, request: &ExecRequest) -> Result<String, RuntimeError>;
    async fn port_forward(&self, sandbox: &str) -> Result<String, RuntimeError>;

    async fn container_stats(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerStats>, RuntimeError>;

    /// Pulls and returns the reference to start containers with (an image id or a digest reference).
    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<String, RuntimeError>;
    /// None when it is not on this machine.
    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError>;
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError>;
    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError>;
    /// Where images and writable layers live, and how much they use.
    async fn image_filesystem(&self) -> Result<FilesystemUse, RuntimeError>;

    /// Container and sandbox state changes as they happen. `RuntimeError::Unsupported` when the runtime has none; the
    /// node then lists once a second. A stream that ends is asked for again.
    async fn events(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError>;
}

/// Why a verb failed. `message` is the runtime's own text: users see it in events.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuntimeError {
    #[error("{what} is not there")]
    NotFound { what: String },
    #[error("{message}")]
    InvalidArgument { message: String },
    #[error("timed out after {after:?}")]
    Timeout { after: Duration },
    #[error("the runtime does not offer {what}")]
    Unsupported { what: &'static str },
    /// The runtime's socket does not answer: everything it said before still holds.
    #[error("container runtime is down: {message}")]
    Unavailable { message: String },
    #[error("{message}")]
    Failed { message: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `containerd`.
    pub name: String,
    /// `1.6.20`.
    pub version: String,
    /// CRI API version: `v1`.
    pub api: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    pub runtime_ready: bool,
    pub network_ready: bool,
    /// Why not, in the runtime's words; empty when both are ready.
    pub message: String,
    /// What a RuntimeClass may ask for; empty where the runtime does not tell. The default handler has no name.
    pub handlers: Vec<Handler>,
    /// Knows `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    pub name: String,
    pub recursive_read_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxConfig {
    pub name: String,
    pub uid: String,
    pub namespace: String,
    /// Counts sandboxes of this pod; a new attempt after the old sandbox died.
    pub attempt: u32,
    /// Empty with the host's network.
    pub hostname: String,
    pub log_directory: PathBuf,
    /// None leaves the runtime's default.
    pub dns: Option<DnsConfig>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// cgroupfs path, made by the node: `/kubepods/burstable/pod<uid>`.
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    pub security: SandboxSecurity,
    /// RuntimeClass handler; empty is the default.
    pub runtime_handler: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSecurity {
    pub namespaces: Namespaces,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub readonly_rootfs: bool,
    /// At least one container of the pod is privileged.
    pub privileged: bool,
    pub seccomp: SecurityProfile,
    pub selinux: Option<SelinuxOptions>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// `Node` or `Pod`.
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    /// `Node` or `Pod`.
    pub ipc: NamespaceMode,
    /// `hostUsers: false`: a user namespace with this mapping.
    pub user: Option<UserNamespace>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespaceMode {
    /// Shared by the pod's containers.
    #[default]
    Pod,
    /// One for each container.
    Container,
    /// The host's.
    Node,
    /// Of another container (ephemeral containers); its id travels in the container's config.
    Target,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNamespace {
    pub host_id: u32,
    pub container_id: u32,
    pub length: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecurityProfile {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// For seccomp a path of a file on this machine, for AppArmor a profile's name.
    Localhost(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelinuxOptions {
    pub user: String,
    pub role: String,
    pub r#type: String,
    pub level: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    /// Never 0: those are left out.
    pub host_port: u16,
    /// Empty is every address.
    pub host_ip: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub name: String,
    pub uid: String,
    pub namespace: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: i64,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxStatus {
    pub sandbox: Sandbox,
    /// Primary address first; empty with the host's network.
    pub ips: Vec<IpAddr>,
    pub host_network: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerConfig {
    pub name: String,
    pub attempt: u32,
    /// What `pull_image` or `image_status` gave: id or digest reference.
    pub image_ref: String,
    /// As the pod's author wrote it.
    pub image_name: String,
    /// Overrides the entry point when not empty.
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Relative to the sandbox's log directory.
    pub log_path: PathBuf,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: ContainerSecurity,
    /// `lifecycle.stopSignal`: `SIGUSR1`; empty is the image's.
    pub stop_signal: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub container_path: String,
    pub host_path: PathBuf,
    pub readonly: bool,
    pub recursive_readonly: bool,
    pub propagation: Propagation,
    pub selinux_relabel: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub container_path: String,
    pub host_path: PathBuf,
    /// `rwm`.
    pub permissions: String,
}

/// 0 or None leaves a value at the runtime's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_period_us: i64,
    pub cpu_quota_us: i64,
    pub cpu_shares: i64,
    pub memory_limit_bytes: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// page size (`2MB`) and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// cgroup v2 keys.
    pub unified: BTreeMap<String, String>,
    pub memory_swap_limit_bytes: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSecurity {
    pub privileged: bool,
    pub namespaces: Namespaces,
    /// Container id that `NamespaceMode::Target` means.
    pub target_container: String,
    pub run_as_user: Option<i64>,
    pub run_as_username: String,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    /// `supplementalGroupsPolicy: Strict`: the image's own groups do not count.
    pub strict_groups: bool,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub seccomp: SecurityProfile,
    /// None leaves the runtime's choice.
    pub apparmor: Option<SecurityProfile>,
    pub selinux: Option<SelinuxOptions>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    pub attempt: u32,
    pub state: ContainerState,
    pub created_at: i64,
    pub image: String,
    pub image_ref: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStatus {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub state: ContainerState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, ...
    pub reason: String,
    pub message: String,
    /// As the pod's author wrote it, where the runtime knows.
    pub image: String,
    /// Digest reference or id, for `imageID`.
    pub image_ref: String,
    pub log_path: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub resources: Resources,
    /// User the process runs as, where the runtime knows: uid, gid, supplementary groups.
    pub user: Option<(i64, i64, Vec<i64>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Also for attach, where `command` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
    /// base64 of `username:password`.
    pub auth: String,
    pub server_address: String,
    pub identity_token: String,
    pub registry_token: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size_bytes: u64,
    /// Numeric user of the image's config, when it is numeric.
    pub uid: Option<i64>,
    /// Named user of the image's config; empty when numeric or absent.
    pub username: String,
    /// Must not be collected.
    pub pinned: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUse {
    pub mountpoint: PathBuf,
    pub used_bytes: u64,
    pub inodes_used: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub timestamp: i64,
    /// Cumulative.
    pub cpu_usage_nanos: u64,
    pub memory_usage_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub memory_page_faults: u64,
    pub memory_major_page_faults: u64,
    /// Writable layer.
    pub layer_used_bytes: u64,
    pub layer_inodes_used: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    pub kind: RuntimeEventKind,
    /// Pod uid label; empty when the runtime did not say: the node then lists.
    pub pod_uid: String,
    pub container: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeEventKind {
    Created,
    Started,
    Stopped,
    Deleted,
    /// Events were lost or their pod is unknown: look at everything.
    Resync,
}
