//! The bridge that pods hang on. It carries the gateway addresses; pods route everything through it.
//!
//! Pods have /32 addresses, so packets between two pods of a node pass the node's IP layer like all others, and service
//! translation sees both directions whether or not the bridge calls netfilter (`bridge-nf-call-iptables`, which is the
//! host's to choose).

use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink_packet_route::link::{InfoBridge, LinkAttribute};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use rustix::io::Errno;

use super::pod::{Route, add_route};
use super::{LinkError, addresses, drop_address, failed, hardware_address, index_of, put_address, set_up, unless};
use crate::address::gateway;
use crate::sys;

/// The node's end of the pod network.
#[derive(Clone, Debug)]
pub struct Bridge {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub ranges: Vec<IpNet>,
    /// Kernel settings that were made with it, by their path below `/proc/sys`.
    pub settings: BTreeMap<String, String>,
}

/// Makes the bridge as it should be, keeping whatever hangs on it.
///
/// Service addresses get a route to it, too: programs of a node without a default route must be able to begin a packet to
/// one, which is translated on its way out.
pub async fn raise(
    handle: &Handle,
    name: &str,
    mtu: u32,
    ranges: &[IpNet],
    services: &[IpNet],
) -> Result<Bridge, LinkError> {
    // A bridge without an address of its own takes the lowest of its ports' and changes it as pods come and go.
    let hardware = ranges.first().map(|range| hardware_address(gateway(range)));
    let message = LinkBridge::new(name)
        .append_info_data(InfoBridge::ForwardDelay(0))
        .append_extra_attribute(LinkAttribute::Mtu(mtu));
    let message = match &hardware {
        Some(bytes) => message.append_extra_attribute(LinkAttribute::Address(bytes.clone())),
        None => message,
    };
    let made = handle.link().add(message.build()).execute().await;
    unless(Errno::EXIST, made).map_err(failed(format!("make bridge {name}")))?;
    let index = index_of(handle, name).await?;
    let mut message = LinkUnspec::new_with_index(index).mtu(mtu);
    if let Some(bytes) = hardware {
        message = message.address(bytes);
    }
    handle.link().set(message.build()).execute().await.map_err(failed(format!("set bridge {name}")))?;
    let settings = settings(name, ranges);
    set_up(handle, index).await?;
    own_addresses(handle, index, ranges).await?;
    let family = |net: &&IpNet| ranges.iter().any(|range| range.addr().is_ipv4() == net.addr().is_ipv4());
    for destination in services.iter().filter(family) {
        add_route(handle, index, &Route { destination: destination.trunc(), via: None }).await?;
    }
    Ok(Bridge { name: name.to_owned(), index, mtu, ranges: ranges.to_vec(), settings })
}

/// The gateway addresses and no others of ours: a node that came back may have another range.
async fn own_addresses(handle: &Handle, index: u32, ranges: &[IpNet]) -> Result<(), LinkError> {
    let wanted: Vec<IpNet> = ranges.iter().map(with_prefix).collect();
    for (_, old) in addresses(handle, Some(index)).await? {
        // Host routes on the bridge are the cluster's DNS address; link-local ones are the kernel's.
        let kept = old.prefix_len() == old.max_prefix_len() || link_local(&old);
        if !kept && !wanted.contains(&old) {
            drop_address(handle, index, old).await?;
        }
    }
    for address in wanted {
        put_address(handle, index, address).await?;
    }
    Ok(())
}

fn with_prefix(range: &IpNet) -> IpNet {
    IpNet::new(gateway(range), range.prefix_len()).expect("the range's own prefix length")
}

fn link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

/// Forwarding, and no advice to pods to reach each other past us. `/proc/sys` may be read-only in a container whose
/// owner has set these already: then it is only noted. Answers those that could be set.
fn settings(bridge: &str, ranges: &[IpNet]) -> BTreeMap<String, String> {
    let mut wanted = vec![("net.ipv4.ip_forward".to_owned(), "1")];
    // Slashes instead of dots in names are for links whose name holds a dot.
    wanted.push((format!("net/ipv4/conf/{bridge}/send_redirects"), "0"));
    wanted.push((format!("net/ipv4/conf/{bridge}/rp_filter"), "2"));
    if ranges.iter().any(|range| range.addr().is_ipv6()) {
        wanted.push(("net.ipv6.conf.all.forwarding".to_owned(), "1"));
        wanted.push((format!("net/ipv6/conf/{bridge}/accept_ra"), "0"));
    }
    let mut set = BTreeMap::new();
    for (name, value) in wanted {
        match sys::set_sysctl(&name, value) {
            Ok(()) => drop(set.insert(name.replace('.', "/"), value.to_owned())),
            Err(error) => tracing::warn!(name, value, err = %error, "cannot set a kernel setting"),
        }
    }
    set
}
