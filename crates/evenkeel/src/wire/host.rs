//! What is read of the machine: its name, its addresses, the image of sandboxes.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cli::NodeArgs;
use crate::layout::{DATA, Layout};

/// Used where the machine brings no image of its own.
const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// Where monitoring looks for pods.
const CGROUP_ROOT: &str = "/kubepods";

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

/// What pods' namespaces are held by: the pause image that a tarball in `agent/images` brings, else the public one.
pub fn sandbox_image(layout: &Layout) -> String {
    let brought = brought_images(layout);
    brought.into_iter().find(|name| is_pause(name)).unwrap_or_else(|| SANDBOX_IMAGE.to_owned())
}

/// The images in tarballs of `agent/images`. What cannot be read without unpacking it brings no name.
pub fn brought_images(layout: &Layout) -> BTreeSet<String> {
    let files = container::images::image_files(&layout.images()).unwrap_or_default();
    files.iter().flat_map(|file| container::archive::image_names(file).unwrap_or_default()).collect()
}

/// `any.host/pause:1`, also as mirrors name it: `host/mirrored-pause:3.10`.
fn is_pause(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    let repository = last.split([':', '@']).next().unwrap_or_default();
    repository == "pause" || repository.ends_with("-pause")
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

/// Above all pods' cgroups: the usual place for the default data folder, else one of this instance's own.
pub fn cgroup_root(layout: &Layout) -> String {
    if layout.data == Path::new(DATA) { CGROUP_ROOT.to_owned() } else { format!("/{}", super::instance(layout)) }
}

pub async fn clean_network(layout: &Layout) -> Result<()> {
    net::cleanup(&network(layout, "")).await.context("remove links and rules")
}

#[cfg(test)]
mod tests {
    use super::is_pause;

    #[test]
    fn a_pause_image_is_known_by_its_repository() {
        assert!(is_pause("evenkeel.local/pause:1") && is_pause("docker.io/rancher/mirrored-pause:3.6"));
        assert!(!is_pause("a.local/pause/web:1") && !is_pause("a.local/unpause:1"));
    }
}
