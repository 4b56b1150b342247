//! A pod's link: one end on the bridge, the other in the pod's network namespace with its addresses and routes.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use netlink_packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::io::Errno;

use super::{Bridge, LinkError, addresses, failed, hardware_address, index_of, put_address, set_up, unless};
use crate::address::gateway;
use crate::sys;

/// What is to be made.
#[derive(Clone, Debug)]
pub struct PodLink {
    /// On the host.
    pub host: String,
    /// In the pod: `eth0`.
    pub interface: String,
    /// One per range of the bridge.
    pub addresses: Vec<IpAddr>,
}

/// A route: to a gateway, or to whoever is on the link.
pub(super) struct Route {
    pub destination: IpNet,
    pub via: Option<IpAddr>,
}

/// Makes the link anew: what an earlier attempt left behind is removed first.
pub async fn connect(handle: &Handle, bridge: &Bridge, netns: OwnedFd, link: &PodLink) -> Result<(), LinkError> {
    super::remove(handle, &link.host).await?;
    let hardware = link.addresses.first().map(|address| hardware_address(*address)).unwrap_or_default();
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(link.interface.clone())
        .mtu(bridge.mtu)
        .setns_by_fd(netns.as_fd().as_raw_fd());
    if !hardware.is_empty() {
        peer = peer.address(hardware);
    }
    let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(link.host.clone())
        .mtu(bridge.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
        .append_extra_attribute(LinkAttribute::Controller(bridge.index))
        .build();
    handle.link().add(message).execute().await.map_err(failed(format!("make link {}", link.host)))?;
    let made = finish(handle, bridge, netns, link).await;
    if made.is_err() {
        super::remove(handle, &link.host).await?;
    }
    made
}

async fn finish(handle: &Handle, bridge: &Bridge, netns: OwnedFd, link: &PodLink) -> Result<(), LinkError> {
    let index = index_of(handle, &link.host).await?;
    // Where the bridge calls netfilter, a pod that reaches itself through a service goes out by the port it came in by.
    let port = LinkBridgePort::new(index).hairpin(true).build();
    handle.link().set_port(port).execute().await.map_err(failed(format!("set bridge port {}", link.host)))?;
    set_up(handle, index).await?;
    let gateways: Vec<IpAddr> = bridge.ranges.iter().map(gateway).collect();
    let (interface, addresses) = (link.interface.clone(), link.addresses.clone());
    sys::inside(netns, move |handle| async move { configure(&handle, &interface, &addresses, &gateways).await }).await
}

/// Inside the pod's namespace.
async fn configure(
    handle: &Handle,
    interface: &str,
    addresses: &[IpAddr],
    gateways: &[IpAddr],
) -> Result<(), LinkError> {
    for (name, value) in [("all", "0"), (interface, "0")] {
        // The bridge never advises; a pod on it must not be able to.
        let _ = sys::set_sysctl(&format!("net/ipv4/conf/{name}/accept_redirects"), value);
        let _ = sys::set_sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), value);
    }
    loopback_up(handle).await?;
    let index = index_of(handle, interface).await?;
    for address in addresses {
        put_address(handle, index, IpNet::from(*address)).await?;
    }
    set_up(handle, index).await?;
    for gateway in gateways {
        let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let default = Route { destination: all.parse().expect("a literal network"), via: Some(*gateway) };
        for route in [Route { destination: IpNet::from(*gateway), via: None }, default] {
            add_route(handle, index, &route).await?;
        }
    }
    Ok(())
}

pub(super) async fn add_route(handle: &Handle, index: u32, route: &Route) -> Result<(), LinkError> {
    let action = format!("add route to {}", route.destination);
    let (destination, prefix) = (route.destination.addr(), route.destination.prefix_len());
    let message = match (destination, route.via) {
        (IpAddr::V4(to), via) => {
            let builder = RouteMessageBuilder::<std::net::Ipv4Addr>::new();
            let builder = builder.destination_prefix(to, prefix).output_interface(index);
            match via {
                Some(IpAddr::V4(gateway)) => builder.gateway(gateway).build(),
                _ => builder.scope(RouteScope::Link).build(),
            }
        }
        (IpAddr::V6(to), via) => {
            let builder = RouteMessageBuilder::<std::net::Ipv6Addr>::new();
            let builder = builder.destination_prefix(to, prefix).output_interface(index);
            match via {
                Some(IpAddr::V6(gateway)) => builder.gateway(gateway).build(),
                _ => builder.build(),
            }
        }
    };
    let added = handle.route().add(message).execute().await;
    unless(Errno::EXIST, added).map_err(failed(action))
}

pub async fn loopback_up(handle: &Handle) -> Result<(), LinkError> {
    let index = index_of(handle, "lo").await?;
    set_up(handle, index).await
}

/// Checks that a pod still has what it was given.
pub async fn probe(netns: OwnedFd, link: PodLink) -> Result<(), LinkError> {
    let look = move |handle: Handle| async move {
        let index = index_of(&handle, &link.interface).await?;
        let present = addresses(&handle, Some(index)).await?;
        let missing = link.addresses.iter().find(|address| !present.iter().any(|(_, net)| net.addr() == **address));
        match missing {
            Some(address) => Err(LinkError::Unset { name: link.interface.clone(), address: *address }),
            None => Ok(()),
        }
    };
    sys::inside(netns, look).await
}
