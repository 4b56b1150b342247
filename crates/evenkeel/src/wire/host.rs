//! What is read of the machine: its name, its addresses, the image of sandboxes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use anyhow::{Context, Result, ensure};

use crate::cli::NodeArgs;
use crate::layout::Layout;

/// Used where the machine brings no image of its own.
const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.10";
/// The image that a tarball `pause*.tar` in `agent/images` brings.
const SANDBOX_IMAGE_LOCAL: &str = "evenkeel.local/pause:1";

/// Lower-case, as node names must be.
pub fn node_name(args: &NodeArgs) -> Result<String> {
    let name = match &args.node_name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let name = name.to_lowercase();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let good = !name.is_empty() && name.len() <= 253 && name.bytes().all(plain);
    ensure!(good, "{name:?} cannot be a node's name; set --node-name to letters, digits, dashes and dots");
    Ok(name)
}

/// The addresses of this node, primary first: the given ones, else those of the default routes.
pub fn node_addresses(args: &NodeArgs) -> Result<Vec<IpAddr>> {
    if !args.node_ip.is_empty() {
        return Ok(args.node_ip.clone());
    }
    let four = towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let six = towards(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    let found: Vec<IpAddr> = four.into_iter().chain(six).collect();
    // A machine without a network still is a cluster of one.
    if found.is_empty() { any_address().context("this machine has no address; set --node-ip") } else { Ok(found) }
}

/// The source address the kernel would use; nothing is sent.
fn towards(from: IpAddr, to: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// The first address in the kernel's own table that is no loopback.
fn any_address() -> Option<Vec<IpAddr>> {
    let table = fs::read_to_string("/proc/net/fib_trie").ok()?;
    let mut last: Option<Ipv4Addr> = None;
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["|--", address] = words.as_slice() {
            last = address.parse().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last.filter(|address| !address.is_loopback())
        {
            return Some(vec![address.into()]);
        }
    }
    None
}

/// What pods' namespaces are held by: a local image where a tarball brings one, else the public one.
pub fn sandbox_image(layout: &Layout) -> String {
    let brought = fs::read_dir(layout.images()).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("pause") && name.contains(".tar")
    });
    if brought { SANDBOX_IMAGE_LOCAL.to_owned() } else { SANDBOX_IMAGE.to_owned() }
}

/// The network of this instance, as its agent is told: everything but the cluster's settings.
pub fn network(layout: &Layout, node: &str) -> net::Config {
    let runtime = super::containerd_config(layout).settings;
    net::Config {
        instance: super::instance(layout),
        folder: layout.net(),
        cni_networks: runtime.cni_networks,
        cni_programs: runtime.cni_programs,
        ..net::Config::new(node, &layout.agent())
    }
}

pub async fn clean_network(layout: &Layout) -> Result<()> {
    net::cleanup(&network(layout, "")).await.context("remove links and rules")
}
