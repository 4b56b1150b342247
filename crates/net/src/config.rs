//! What the agent is told, and the names of everything it makes on the machine.
//!
//! Names derive from the instance, so that several nodes can live in one network namespace and each removes only its own.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::peers::Underlay;

/// The instance whose names are the plain ones.
pub const INSTANCE_DEFAULT: &str = "evenkeel";

/// Who carries packets between pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNetwork {
    /// This agent: a bridge on the node, routes between nodes of one segment, tunnels to all others.
    #[default]
    Bridge,
    /// Somebody else's CNI plugin. Services and names are still served.
    External,
}

/// The cluster's names, served on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// What pods have in their resolv.conf; put on [`Config::names_link`].
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    /// `cluster.local`.
    pub domain: String,
    /// Where the addresses of upstream servers are read from.
    pub resolv_conf: PathBuf,
    /// Used instead of `resolv_conf` where not empty.
    pub upstreams: Vec<SocketAddr>,
}

/// Everything the agent needs to know; complete before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    pub instance: String,
    pub node_name: String,
    /// Durable: address records, the last known pod ranges.
    pub folder: PathBuf,
    /// Ranges all pods of the cluster come from.
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    pub pod_network: PodNetwork,
    /// Translate service addresses on this node.
    pub service_proxy: bool,
    pub dns: Option<DnsConfig>,
    /// None takes the uplink's.
    pub mtu: Option<u32>,
    /// Where containerd looks for network configurations and for plugins.
    pub cni_networks: PathBuf,
    pub cni_programs: PathBuf,
    /// The program that acts as the plugin: this one.
    pub program: PathBuf,
}

/// Names and numbers that no other instance on this machine uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub table: String,
    pub bridge: String,
    /// First letters of the host's ends of pod links.
    pub link_prefix: String,
    /// First letters of the tunnels' links; the underlay's family follows.
    pub tunnel_prefix: String,
    /// The packet mark bit for "hide the source behind this node".
    pub mark: u32,
    /// Routing protocol number of our routes (rtnetlink(7): above 4 is free for users).
    pub route_protocol: u8,
}

// === impl Config ===

impl Config {
    /// The defaults of a cluster, everything below one data folder.
    pub fn new(node_name: &str, data: &std::path::Path) -> Config {
        let net = |text: &str| text.parse().expect("a literal network");
        Config {
            instance: INSTANCE_DEFAULT.to_owned(),
            node_name: node_name.to_owned(),
            folder: data.join("net"),
            cluster_cidrs: vec![net("10.42.0.0/16")],
            service_cidrs: vec![net("10.43.0.0/16")],
            pod_network: PodNetwork::Bridge,
            service_proxy: true,
            dns: Some(DnsConfig {
                addresses: vec![IpAddr::from([10, 43, 0, 10])],
                port: 53,
                domain: "cluster.local".to_owned(),
                resolv_conf: PathBuf::from("/etc/resolv.conf"),
                upstreams: Vec::new(),
            }),
            mtu: None,
            cni_networks: data.join("cni/net.d"),
            cni_programs: data.join("cni/bin"),
            program: this_program(),
        }
    }

    pub fn names(&self) -> Names {
        Names::of(&self.instance)
    }

    /// The link that holds the addresses of names.
    pub fn names_link(&self) -> String {
        match self.pod_network {
            PodNetwork::Bridge => self.names().bridge,
            PodNetwork::External => "lo".to_owned(),
        }
    }

    /// The socket that CNI plugins of this instance talk to.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("cni.sock")
    }

    pub(crate) fn conflist(&self) -> PathBuf {
        self.cni_networks.join(format!("10-{}.conflist", self.instance))
    }
}

/// Where this program lies. A program that was replaced while it runs is known by a marked path; what lies at the bare
/// path is its replacement, which plugin calls may as well be answered by.
fn this_program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("evenkeel"));
    path.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map(PathBuf::from).unwrap_or(path)
}

// === impl Names ===

impl Names {
    pub fn of(instance: &str) -> Names {
        if instance == INSTANCE_DEFAULT {
            return Names {
                table: INSTANCE_DEFAULT.to_owned(),
                bridge: "ek0".to_owned(),
                link_prefix: "ekv".to_owned(),
                tunnel_prefix: "ekx".to_owned(),
                mark: 1 << 14,
                route_protocol: 69,
            };
        }
        let hash = fnv(instance.as_bytes());
        // Interface names have 15 bytes at most: prefix 7, and 8 for the sandbox.
        let short = format!("{:04x}", hash & 0xffff);
        let letters: String = instance.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        Names {
            table: format!("evenkeel_{letters}"),
            bridge: format!("ek{short}"),
            link_prefix: format!("ekv{short}"),
            tunnel_prefix: format!("ekx{short}"),
            // Bits 15 to 25: the default instance has 14, and kubelets of others use 14 and 15 by habit.
            mark: 1 << (16 + hash % 10),
            route_protocol: 70 + u8::try_from(hash % 100).expect("below 100"),
        }
    }

    /// The tunnel over an underlay of this family.
    pub fn tunnel(&self, underlay: Underlay) -> String {
        format!("{}{}", self.tunnel_prefix, underlay.digit())
    }

    /// The host's end of a pod's link.
    pub fn link(&self, sandbox: &str, interface: &str) -> String {
        let hash = fnv(format!("{sandbox}/{interface}").as_bytes());
        format!("{}{:08x}", self.link_prefix, hash & 0xffff_ffff)
    }
}

/// FNV-1a: stable across versions, which names on a machine must be.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_no_name() {
        let (one, two) = (Names::of("evenkeel"), Names::of("evenkeel-2"));
        assert_eq!((one.bridge.as_str(), one.table.as_str(), one.mark), ("ek0", "evenkeel", 0x4000));
        assert_ne!(one.bridge, two.bridge);
        assert_eq!(two.table, "evenkeel_evenkeel_2");
        assert_ne!(one.mark, two.mark);
        assert_ne!(one.tunnel(Underlay::V4), two.tunnel(Underlay::V4));
        assert_ne!(one.tunnel(Underlay::V4), one.tunnel(Underlay::V6));
        assert_ne!(one.route_protocol, two.route_protocol);
        assert!(two.link(&"f".repeat(64), "eth0").len() <= 15, "{}", two.link("f", "eth0"));
        assert_ne!(one.link("a", "eth0"), one.link("a", "eth1"));
    }
}
