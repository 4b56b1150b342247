//! What `check-config` reads of the machine.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use base::Clock;
use jiff::Timestamp;

use super::super::args::ServerArgs;
use crate::layout::Layout;
use crate::pki::Leaf;
use crate::wire::{SystemClock, pid};

/// What was found.
#[derive(Debug)]
pub struct Machine {
    pub root: bool,
    /// No process of ours uses the data folder.
    pub data_free: bool,
    pub ports_taken: Vec<String>,
    pub missing_controllers: Vec<String>,
    pub swap: bool,
    pub forwarding: bool,
    pub bridge_filter: bool,
    pub firewalls: Vec<String>,
    pub others: Vec<String>,
    pub missing_programs: Vec<String>,
    pub missing_kernel: Vec<String>,
    pub clock_good: bool,
    pub free_megabytes: u64,
}

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const OTHERS: [&str; 6] = ["kubelet", "k3s", "k3s-server", "rke2", "k0s", "microk8s"];
const FIREWALLS: [&str; 2] = ["firewalld", "ufw"];
/// The kernel's modules, and where it shows that it has one of them.
const KERNEL: [(&str, &str); 4] = [
    ("overlay", ""),
    ("nf_tables", "/sys/module/nf_tables"),
    ("nf_conntrack", "/proc/sys/net/netfilter/nf_conntrack_max"),
    ("br_netfilter", "/proc/sys/net/bridge/bridge-nf-call-iptables"),
];
/// A clock before this program was written is wrong.
const CLOCK_MIN: &str = "2026-01-01T00:00:00Z";

pub fn read(args: &ServerArgs) -> Machine {
    let layout = args.common.layout();
    let running = pid::running(&layout).is_some();
    let filter = fs::read_to_string(KERNEL[3].1);
    Machine {
        root: rustix::process::geteuid().is_root(),
        data_free: !running,
        // What runs already holds its ports itself.
        ports_taken: if running { Vec::new() } else { ports_taken(args) },
        missing_controllers: without(&CONTROLLERS, |name| controllers().iter().any(|have| have == name)),
        swap: text("/proc/swaps").lines().count() > 1,
        forwarding: text("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        // Where the module is not loaded yet, the node loads it with the right setting.
        bridge_filter: filter.is_err() || filter.is_ok_and(|text| text.trim() == "1"),
        firewalls: with(&FIREWALLS, firewall_runs),
        others: with(&OTHERS, runs),
        missing_programs: missing_programs(args),
        missing_kernel: KERNEL
            .iter()
            .filter(|(name, shown)| !has(name, shown))
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        clock_good: clock_good(&layout, SystemClock.now()),
        free_megabytes: free_megabytes(&args.common.data_dir),
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn with(names: &[&str], holds: impl Fn(&str) -> bool) -> Vec<String> {
    names.iter().filter(|name| holds(name)).map(|name| (*name).to_owned()).collect()
}

fn without(names: &[&str], holds: impl Fn(&str) -> bool) -> Vec<String> {
    with(names, |name| !holds(name))
}

fn missing_programs(args: &ServerArgs) -> Vec<String> {
    let found = |name: &str| container::containerd::find_program(name).is_some();
    let own_runtime = args.node.container_runtime_endpoint.is_none() && !args.disable_agent;
    let wanted: &[&str] = match (args.disable_agent, own_runtime) {
        (true, _) => &[],
        (false, true) => &["containerd", "runc", "nft"],
        (false, false) => &["nft"],
    };
    // Of a server that keeps its state in an etcd of its own.
    let etcd = (args.cluster_init || args.common.layout().etcd().exists()).then_some("etcd");
    let wanted: Vec<&str> = wanted.iter().copied().chain(etcd).collect();
    without(&wanted, found)
}

fn ports_taken(args: &ServerArgs) -> Vec<String> {
    let mut taken = Vec::new();
    let api = SocketAddr::new(args.bind_address, args.https_listen_port);
    let kubelet = SocketAddr::new(args.node.kubelet_address, args.node.kubelet_port);
    for address in [Some(api), (!args.disable_agent).then_some(kubelet)].into_iter().flatten() {
        if TcpListener::bind(address).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            taken.push(format!("tcp {}", address.port()));
        }
    }
    // The cluster's DNS has an address of its own; only a wildcard listener is in its way.
    if UdpSocket::bind(("0.0.0.0", 53)).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
        && text("/proc/net/udp").contains(" 00000000:0035 ")
    {
        taken.push("udp 53 on every address".to_owned());
    }
    taken
}

/// Controllers of either cgroup version.
fn controllers() -> Vec<String> {
    let two = text("/sys/fs/cgroup/cgroup.controllers");
    let one = text("/proc/cgroups");
    let enabled = one.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.nth(2) == Some("1")).then(|| name.to_owned())
    });
    two.split_whitespace().map(str::to_owned).chain(enabled).collect()
}

/// Whether the kernel has something: at work, built in, or as a module that can be loaded.
fn has(name: &str, shown: &str) -> bool {
    if (!shown.is_empty() && Path::new(shown).exists())
        || text("/proc/filesystems").split_whitespace().any(|known| known == name)
        || text("/proc/modules").lines().any(|line| line.split(' ').next() == Some(name))
    {
        return true;
    }
    let folder = format!("/lib/modules/{}", rustix::system::uname().release().to_string_lossy());
    let lists = ["modules.builtin", "modules.dep"].map(|file| format!("{folder}/{file}"));
    let listed = lists.iter().any(|list| text(list).contains(&format!("/{name}.ko")));
    // A kernel without lists of modules (a container's, a virtual machine's) tells by doing.
    listed || (name == "nf_tables" && !Path::new(&folder).exists() && nft_works())
}

fn nft_works() -> bool {
    let Some(program) = container::containerd::find_program("nft") else { return false };
    let listed = std::process::Command::new(program).args(["list", "tables"]).output();
    listed.is_ok_and(|output| output.status.success())
}

fn runs(name: &str) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    entries.flatten().any(|entry| text(&entry.path().join("comm").display().to_string()).trim() == name)
}

/// ufw is no process: it has loaded its chains, or it has not.
fn firewall_runs(name: &str) -> bool {
    match name {
        "ufw" => text("/etc/ufw/ufw.conf").lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes")),
        _ => runs(name),
    }
}

/// Not before this program was written, nor before this cluster's own certificates.
fn clock_good(layout: &Layout, now: Timestamp) -> bool {
    let written: Timestamp = CLOCK_MIN.parse().expect("a constant");
    let serving = Leaf::load(&layout.server_tls(), "serving").ok().flatten();
    written <= now && serving.is_none_or(|leaf| leaf.not_before <= now)
}

fn free_megabytes(data: &Path) -> u64 {
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statvfs(existing).map_or(u64::MAX, |stat| (stat.f_bavail.saturating_mul(stat.f_frsize)) >> 20)
}
