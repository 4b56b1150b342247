//! A pod's sandbox as the runtime is told of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;

use super::names::{self, PodName};
use super::{SpecError, security};
use crate::runtime::{DnsConfig, PortMapping, Protocol, SandboxConfig, labels};

/// What the machine adds.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub attempt: u32,
    pub cluster_domain: String,
    pub dns: DnsConfig,
    pub log_root: PathBuf,
    pub cgroup_parent: String,
    pub seccomp_root: PathBuf,
    pub runtime_handler: String,
    /// Slot of host ids for a pod with its own users.
    pub user_slot: Option<u32>,
}

pub fn config(pod: &core::Pod, around: &Surroundings) -> Result<SandboxConfig, SpecError> {
    let name = PodName::of(pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let context = spec.security_context.as_ref();
    let mut security = security::sandbox(pod, &around.seccomp_root);
    security.namespaces.user = security::user_namespace(pod, around.user_slot);
    Ok(SandboxConfig {
        attempt: around.attempt,
        hostname: if host_network { String::new() } else { names::inner_hostname(pod, &around.cluster_domain)? },
        log_directory: log_directory(&around.log_root, &name),
        dns: Some(around.dns.clone()),
        port_mappings: if host_network { Vec::new() } else { port_mappings(&spec) },
        labels: sandbox_labels(pod, &name),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: around.cgroup_parent.clone(),
        sysctls: context
            .iter()
            .flat_map(|c| c.sysctls.iter().flatten())
            .map(|s| (s.name.clone(), s.value.clone()))
            .collect(),
        security,
        runtime_handler: around.runtime_handler.clone(),
        name: name.name,
        uid: name.uid,
        namespace: name.namespace,
    })
}

pub fn log_directory(root: &Path, name: &PodName) -> PathBuf {
    root.join(name.log_folder())
}

pub fn identity(name: &PodName) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::POD_NAME.to_owned(), name.name.clone()),
        (labels::POD_NAMESPACE.to_owned(), name.namespace.clone()),
        (labels::POD_UID.to_owned(), name.uid.clone()),
    ])
}

fn sandbox_labels(pod: &core::Pod, name: &PodName) -> BTreeMap<String, String> {
    let mut all = pod.metadata.labels.clone().unwrap_or_default();
    all.extend(identity(name));
    all
}

fn port_mappings(spec: &core::PodSpec) -> Vec<PortMapping> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mapping = |port: &core::ContainerPort| {
        let host_port = u16::try_from(port.host_port?).ok().filter(|port| *port != 0)?;
        Some(PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            container_port: u16::try_from(port.container_port).ok()?,
            host_port,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    };
    ports.filter_map(mapping).collect()
}
