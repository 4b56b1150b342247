//! Flags of what runs: a server, an agent, and the names beside them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use jiff::SignedDuration;
use keeper::drift::Policy;

use super::Common;
use super::values::{address_on_link, drift_policy, span};
use crate::cli::backup::BackupFlags;

/// Flags of every command that runs a node.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this node [default: that of the default route]
    #[arg(long, short = 'i', value_name = "IP", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Address that is reached from outside
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub node_external_ip: Vec<IpAddr>,
    /// Labels of this node, set when it registers
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub node_label: Vec<String>,
    /// Taints of this node, set when it registers
    #[arg(long, value_name = "KEY=VALUE:EFFECT", value_delimiter = ',')]
    pub node_taint: Vec<String>,
    /// What of memory, disk and processes pods must leave free [default: memory.available<100Mi,
    /// nodefs.available<5%,imagefs.available<5%,nodefs.inodesFree<5%,imagefs.inodesFree<5%,pid.available<1000]
    #[arg(long, value_name = "SIGNAL<LEAST", value_delimiter = ',')]
    pub eviction_hard: Vec<String>,
    /// Fill of the images' disk, in percent, at which unused images go, and at which they stop going
    #[arg(long, default_value_t = 85, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub image_gc_high_threshold: u32,
    #[arg(long, default_value_t = 80, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub image_gc_low_threshold: u32,
    /// Kernel settings beyond the safe ones that pods may change: names, or beginnings as net.core.*
    #[arg(long, value_name = "SYSCTL", value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Port of the kubelet API
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    pub kubelet_port: u16,
    /// Address of the kubelet API
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    pub kubelet_address: IpAddr,
    /// Use this CRI socket instead of running a containerd
    #[arg(long, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    /// DNS configuration that pods inherit
    #[arg(long, value_name = "PATH")]
    pub resolv_conf: Option<PathBuf>,
    /// What becomes of what was changed by hand on this node: report, or repair what can be put back
    #[arg(long, default_value = "report", value_name = "POLICY", value_parser = drift_policy)]
    pub drift_policy: Policy,
    /// Registry mirrors and credentials
    #[arg(long, default_value = "/etc/evenkeel/registries.yaml", value_name = "PATH")]
    pub private_registry: PathBuf,
    /// Root of the pods' cgroups, below each hierarchy
    #[arg(long, default_value = "", value_name = "PATH", hide = true)]
    pub cgroup_root: String,
    /// Name of the pods' bridge
    #[arg(long, default_value = "evk0", value_name = "NAME", hide = true)]
    pub bridge_name: String,
}

#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Address to listen on
    #[arg(long, default_value = "::", value_name = "IP")]
    pub bind_address: IpAddr,
    /// Port to listen on
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub https_listen_port: u16,
    /// Address at which others reach this server [default: the node's]
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<IpAddr>,
    /// More names and addresses for the serving certificate
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// An address for people, held by one of the servers that serve; the same on all of them
    #[arg(long, value_name = "IP[/PREFIX]", value_parser = address_on_link)]
    pub virtual_address: Option<IpNet>,
    /// Range of pod addresses
    #[arg(long, default_value = "10.42.0.0/16", value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// Range of service addresses
    #[arg(long, default_value = "10.43.0.0/16", value_name = "CIDR", value_delimiter = ',')]
    pub service_cidr: Vec<String>,
    /// Range of node ports
    #[arg(long, default_value = "30000-32767", value_name = "FROM-TO")]
    pub service_node_port_range: String,
    /// Address of the cluster's DNS [default: the tenth of the service range]
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,
    /// Where every node keeps `local-path` volumes [default: storage in the data folder]
    #[arg(long, value_name = "PATH")]
    pub default_local_storage_path: Option<PathBuf>,
    /// Domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// Secret that machines join with [default: drawn on the first start]
    #[arg(long, short = 't', value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the secret that agents join with
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// Where to write the administrator's kubeconfig
    #[arg(long, short = 'o', value_name = "PATH")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Its mode, octal
    #[arg(long, default_value = "0600", value_name = "MODE")]
    pub write_kubeconfig_mode: String,
    /// What to leave out: local-storage, servicelb, dns, network, network-policy, proxy, or a file of server/manifests
    #[arg(long, value_name = "COMPONENT", value_delimiter = ',')]
    pub disable: Vec<String>,
    /// Run no node on this machine
    #[arg(long)]
    pub disable_agent: bool,
    #[command(flatten)]
    pub datastore: DatastoreArgs,
    /// Keep the state in an etcd of this server's own, which more servers can join; what is in the data folder moves there
    #[arg(long)]
    pub cluster_init: bool,
    /// Further flags of that etcd
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub etcd_arg: Vec<String>,
    #[command(flatten)]
    pub backup: BackupFlags,
    /// How long certificates last, as 365d, 12h or 30m; they renew themselves at two thirds of it
    #[arg(long, default_value = "365d", value_name = "SPAN", value_parser = span)]
    pub certificate_lifetime: SignedDuration,
    /// Join the server there: https://HOST:6443, with a server's --token. Needed once
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

/// Where the state is, if not in the data folder.
#[derive(Clone, Debug, Args)]
pub struct DatastoreArgs {
    /// An etcd to keep the state in, instead of the data folder: http(s)://HOST:2379,...
    #[arg(long, value_name = "URL,...")]
    pub datastore_endpoint: Option<String>,
    /// CA of that etcd
    #[arg(long, value_name = "PATH")]
    pub datastore_cafile: Option<PathBuf>,
    /// Client certificate for that etcd
    #[arg(long, value_name = "PATH", requires = "datastore_keyfile")]
    pub datastore_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "PATH", requires = "datastore_certfile")]
    pub datastore_keyfile: Option<PathBuf>,
}

impl ServerArgs {
    /// Where every node of the cluster keeps `local-path` volumes.
    pub fn local_storage(&self) -> PathBuf {
        self.default_local_storage_path.clone().unwrap_or_else(|| self.common.layout().local_storage())
    }

    /// Whether a component is not left out.
    pub fn enables(&self, component: &str) -> bool {
        self.disable.iter().all(|disabled| disabled != component)
    }
}

#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub node: NodeArgs,
    /// The server to join: https://HOST:6443
    #[arg(long, short = 's', value_name = "URL")]
    pub server: String,
    /// Join token, needed until the node has joined
    #[arg(long, short = 't', value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the join token
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct NamesArgs {
    /// What to serve and whom to ask
    #[arg(long, value_name = "PATH")]
    pub settings: PathBuf,
}
