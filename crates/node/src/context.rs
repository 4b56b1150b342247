//! What every pod's worker shares: the runtime, the API, and facts of this machine. Read-only for workers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use api::fit::{Amounts, Taint};
use api::{Gvr, Key, Object};
use base::SmolStr;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::watch;
use view::{Client, View};

use crate::admission::Room;
use crate::cgroup::Cgroups;
use crate::config::{Config, Ports};
use crate::counts::Counts;
use crate::events::Recorder;
use crate::images::Images;
use crate::objects::Objects;
use crate::pod::status::Host;
use crate::pressure::decide::History;
use crate::pressure::meter::Meter;
use crate::register::nodes;
use crate::runtime::{DnsConfig, Handler, Runtime};
use crate::spec::SpecError;
use crate::spec::env::{self, Facts};
use crate::spec::{dns, names::PodName};
use crate::volumes::VolumesContext;

pub struct Context {
    pub config: Config,
    pub ports: Ports,
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    pub images: Images,
    pub objects: Arc<Objects>,
    pub volumes: VolumesContext,
    pub cgroups: Cgroups,
    pub events: Recorder,
    /// Services of the cluster and this node's own object.
    pub view: View,
    pub machine: Machine,
    /// Name of the runtime for container ids; known once it answered.
    pub runtime_name: RwLock<String>,
    /// What the runtime offers; known once it answered.
    pub handlers: RwLock<Vec<Handler>>,
    pub counts: Counts,
    pub meter: Meter,
    /// What the node runs short of. Changes are told when the conditions change.
    pub pressure: watch::Sender<History>,
}

/// What does not change while the agent runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory_bytes: i64,
    pub storage_bytes: i64,
    pub allocatable_storage_bytes: i64,
    /// The kernel enforces AppArmor profiles.
    pub apparmor: bool,
}

impl Context {
    pub fn host(&self) -> Host {
        let runtime = self.runtime_name.read().expect("no holder of this lock panics").clone();
        Host { ips: self.config.node_ips.iter().map(ToString::to_string).collect(), runtime }
    }

    /// Wakes those who follow the pressure where its conditions changed.
    pub fn change_pressure<T>(&self, change: impl FnOnce(&mut History) -> T) -> T {
        let mut answer = None;
        self.pressure.send_if_modified(|history| {
            let before = history.conditions();
            answer = Some(change(history));
            before != history.conditions()
        });
        answer.expect("the change was made")
    }

    /// This node's own object as the API last showed it.
    pub fn node(&self) -> Option<Arc<Object>> {
        self.view.snapshot().stream(&nodes()).get(&Key::cluster(&self.config.node_name)).cloned()
    }

    /// What this node has for pods: its own counts, and what others added to its object.
    pub fn allocatable(&self, node: Option<&core::Node>) -> Amounts {
        let status = node.and_then(|node| node.status.as_ref());
        let mut all = Amounts::parse(status.and_then(|status| status.allocatable.as_ref()));
        let own = [
            ("cpu", self.machine.allocatable_cpu_milli),
            ("memory", self.machine.allocatable_memory_bytes),
            ("ephemeral-storage", self.machine.allocatable_storage_bytes),
            ("pods", i64::from(self.config.max_pods)),
        ];
        all.0.extend(own.map(|(name, amount)| (SmolStr::new_static(name), amount)));
        all
    }

    /// What a pod that comes finds here.
    pub fn room(&self, node: Option<&Object>, others: Vec<Arc<core::Pod>>) -> Room {
        let typed = node.and_then(|node| node.typed::<core::Node>().ok());
        let taints = typed.as_ref().and_then(|node| node.spec.as_ref()?.taints.as_ref()).into_iter().flatten();
        let features = typed.as_ref().and_then(|node| node.status.as_ref()?.features.as_ref());
        Room {
            node: SmolStr::from(self.config.node_name.as_str()),
            labels: node.map(|node| node.header.labels.clone()).unwrap_or_default(),
            taints: taints.map(Taint::parse).collect(),
            allocatable: self.allocatable(typed.as_deref()),
            others,
            pressure: self.pressure.borrow().conditions(),
            sysctls: self.config.allowed_unsafe_sysctls.clone(),
            apparmor: self.machine.apparmor,
            strict_groups: features.and_then(|features| features.supplemental_groups_policy) == Some(true),
        }
    }

    pub fn facts(&self, pod_ips: &[String]) -> Facts {
        let host_ips: Vec<String> = self.config.node_ips.iter().map(ToString::to_string).collect();
        Facts {
            node_name: self.config.node_name.clone(),
            host_ips,
            pod_ips: pod_ips.to_vec(),
            allocatable_cpu_milli: self.machine.allocatable_cpu_milli,
            allocatable_memory_bytes: self.machine.allocatable_memory_bytes,
            allocatable_storage_bytes: self.machine.allocatable_storage_bytes,
        }
    }

    /// With the host's network the pod has the host's addresses.
    pub fn pod_ips(&self, pod: &core::Pod, ips: &[String]) -> Vec<String> {
        let host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        if host { self.config.node_ips.iter().map(ToString::to_string).collect() } else { ips.to_vec() }
    }

    /// Service variables; waits for the first list so that no pod starts without them.
    pub async fn service_variables(&self, pod: &core::Pod) -> BTreeMap<String, String> {
        let gvr = Gvr::new("", "v1", "services");
        let ready = self.view.wait_for(|snapshot| snapshot.stream(&gvr).synced);
        let _ = tokio::time::timeout(crate::limits::OBJECT_WAIT, ready).await;
        let stream = self.view.snapshot().stream(&gvr);
        let services: Vec<Arc<core::Service>> = stream.iter().filter_map(|object| object.typed().ok()).collect();
        let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        env::service_variables(services.iter().map(|service| &**service), namespace, links)
    }

    pub fn dns(&self, pod: &core::Pod) -> DnsConfig {
        let text = std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default();
        dns::config(pod, &self.config.cluster_dns, &self.config.cluster_domain, &dns::parse(&text))
    }

    /// The handler of a pod's RuntimeClass; empty for none.
    pub async fn runtime_handler(&self, pod: &core::Pod) -> Result<String, SpecError> {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone()).unwrap_or_default();
        if class.is_empty() {
            return Ok(String::new());
        }
        let gvr = Gvr::new("node.k8s.io", "v1", "runtimeclasses");
        let found = self.client.get(&gvr, &Key::cluster(&class)).await;
        let found = found.map_err(|error| SpecError::new(format!("failed to get sandbox runtime: {error}")))?;
        Ok(found["handler"].as_str().unwrap_or_default().to_owned())
    }

    /// Whether a runtime handler can make a whole tree of mounts read-only.
    pub fn recursive_read_only(&self, handler: &str) -> bool {
        let handlers = self.handlers.read().expect("no holder of this lock panics");
        handlers.iter().any(|known| known.name == handler && known.recursive_read_only)
    }

    pub fn log_directory(&self, name: &PodName) -> PathBuf {
        crate::spec::sandbox::log_directory(&self.config.log_dir, name)
    }

    pub fn event(&self, pod: &core::Pod, container: Option<&str>, warning: bool, reason: &str, message: &str) {
        let path = container.map(|name| field_path(pod, name)).unwrap_or_default();
        self.events.pod(&PodName::of(pod), path, warning, reason, message);
    }
}

fn field_path(pod: &core::Pod, name: &str) -> String {
    let spec = pod.spec.as_ref();
    let init = spec.is_some_and(|spec| spec.init_containers.iter().flatten().any(|c| c.name == name));
    let extra = spec.is_some_and(|spec| spec.ephemeral_containers.iter().flatten().any(|c| c.name == name));
    let field = match (init, extra) {
        (true, _) => "initContainers",
        (_, true) => "ephemeralContainers",
        _ => "containers",
    };
    format!("spec.{field}{{{name}}}")
}
