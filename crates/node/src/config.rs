//! What the agent is told at start, and the ports it reaches the world by.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use api::builtin::git_version;
use base::{Clock, Rng};

use crate::pressure::{self, Threshold};
use crate::server::Extension;

/// Complete and parsed; building from it has no effects.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// Addresses other nodes reach this one by, primary first.
    pub node_ips: Vec<IpAddr>,
    /// `/var/lib/evenkeel`: pods live in `kubelet/pods` below it.
    pub data_dir: PathBuf,
    /// `/var/log/pods`.
    pub log_dir: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The kubelet API: `0.0.0.0:10250`.
    pub listen: SocketAddr,
    /// Labels and taints (`key`, `value`, `effect`) given at registration.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<(String, String, String)>,
    pub max_pods: u32,
    /// Kept from pods: thousandths of a core and bytes.
    pub reserved_cpu_milli: i64,
    pub reserved_memory_bytes: i64,
    /// cgroup under which pods live: `/kubepods`.
    pub cgroup_root: String,
    pub resolv_conf: PathBuf,
    pub seccomp_dir: PathBuf,
    /// Where `local-path` volumes lie; None keeps none here.
    pub local_path: Option<PathBuf>,
    /// Sysctls beyond the safe ones that pods may set: `net.core.somaxconn`, `kernel.msg*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// What is kept free of memory, disk and processes: below it pods have to leave.
    pub eviction_hard: Vec<Threshold>,
    /// Images are removed when their disk is fuller than the first, until it is emptier than the second; in percent.
    pub image_gc_high: u32,
    pub image_gc_low: u32,
    /// `kubeletVersion` of its status.
    pub version: String,
    pub provider_id: String,
}

/// Time, randomness and the serving certificate, which changes while the agent runs.
#[derive(Clone)]
pub struct Ports {
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    /// Must ask for client certificates of the cluster's client CA without requiring them.
    pub tls: Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>,
    /// Further paths of the kubelet API's port.
    pub extension: Option<Arc<dyn Extension>>,
}

impl Config {
    /// The defaults of a small cluster; everything is public and may be set after.
    pub fn new(node_name: &str, node_ips: Vec<IpAddr>, data_dir: PathBuf) -> Config {
        Config {
            node_name: node_name.to_owned(),
            node_ips,
            seccomp_dir: data_dir.join("kubelet/seccomp"),
            data_dir,
            log_dir: PathBuf::from("/var/log/pods"),
            cluster_dns: vec![IpAddr::from([10, 43, 0, 10])],
            cluster_domain: "cluster.local".to_owned(),
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            max_pods: 110,
            reserved_cpu_milli: 0,
            reserved_memory_bytes: 0,
            cgroup_root: "/kubepods".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            local_path: None,
            allowed_unsafe_sysctls: Vec::new(),
            eviction_hard: pressure::defaults(),
            image_gc_high: 85,
            image_gc_low: 80,
            version: git_version(),
            provider_id: String::new(),
        }
    }
}
