//! The end of the tunnels to nodes that are not on our segment: a VXLAN link that learns nothing. Who is behind which
//! hardware address is told to it, and nobody else is heard of.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, LinkUnspec, LinkVxlan};
use rustix::io::Errno;

use super::{LinkError, addresses, drop_address, failed, find, index_of, put_address, set_up, unless};
use crate::peers::{Hardware, Underlay};
use crate::sys;

/// The port of VXLAN that k3s and flannel use, and firewalls of such clusters let through; IANA's is 4789.
const PORT: u16 = 8472;
/// The number of our network. Flannel has 1: both can be on a machine.
const NETWORK: u32 = 69;

/// What a tunnel link should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub underlay: Underlay,
    pub hardware: Hardware,
    pub mtu: u32,
    /// This node as others see it through the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Next hops, and whose they are.
    pub neighbours: BTreeMap<IpAddr, Hardware>,
    /// The node behind each.
    pub ends: BTreeMap<Hardware, IpAddr>,
}

/// Makes the link as it should be, in place where that is possible; its index.
pub async fn sync(handle: &Handle, name: &str, tunnel: &Tunnel) -> Result<u32, LinkError> {
    if find(handle, name).await?.is_some_and(|link| !fits(&link)) {
        super::remove(handle, name).await?;
    }
    let message = LinkVxlan::new(name, NETWORK).port(PORT).learning(false).append_info_data(match tunnel.underlay {
        // Without any address the kernel takes the tunnel for one over IPv4.
        Underlay::V4 => InfoVxlan::Local(std::net::Ipv4Addr::UNSPECIFIED),
        Underlay::V6 => InfoVxlan::Local6(std::net::Ipv6Addr::UNSPECIFIED),
    });
    let message = message.append_extra_attribute(LinkAttribute::Address(tunnel.hardware.to_vec()));
    let made = handle.link().add(message.build()).execute().await;
    unless(Errno::EXIST, made).map_err(failed(format!("make tunnel {name}")))?;
    let index = index_of(handle, name).await?;
    let message = LinkUnspec::new_with_index(index).mtu(tunnel.mtu).address(tunnel.hardware.to_vec());
    handle.link().set(message.build()).execute().await.map_err(failed(format!("set tunnel {name}")))?;
    for (setting, value) in [("ipv4/conf", "rp_filter=2"), ("ipv6/conf", "accept_ra=0")] {
        let (key, value) = value.split_once('=').expect("a literal setting");
        // Where IPv6 is off there is nothing to set.
        let _ = sys::set_sysctl(&format!("net/{setting}/{name}/{key}"), value);
    }
    set_up(handle, index).await?;
    own_addresses(handle, index, &tunnel.addresses).await?;
    neighbours(handle, index, &tunnel.neighbours).await?;
    ends(handle, index, &tunnel.ends).await?;
    Ok(index)
}

/// Whether a link of this name is our kind of tunnel; another cannot be made into one.
fn fits(link: &LinkMessage) -> bool {
    let info = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    });
    let info = info.map(Vec::as_slice).unwrap_or_default();
    let data = info.iter().find_map(|one| match one {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    });
    let has = |wanted: InfoVxlan| data.is_some_and(|data| data.contains(&wanted));
    info.contains(&LinkInfo::Kind(InfoKind::Vxlan))
        && has(InfoVxlan::Id(NETWORK))
        && has(InfoVxlan::Port(PORT))
        && has(InfoVxlan::Learning(false))
}

async fn own_addresses(handle: &Handle, index: u32, wanted: &[IpAddr]) -> Result<(), LinkError> {
    let wanted: Vec<IpNet> = wanted.iter().map(|address| IpNet::from(*address)).collect();
    for (_, old) in addresses(handle, Some(index)).await? {
        let link_local = matches!(old, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
        if !link_local && !wanted.contains(&old) {
            drop_address(handle, index, old).await?;
        }
    }
    for address in wanted {
        put_address(handle, index, address).await?;
    }
    Ok(())
}

/// Permanent entries only: what the kernel found out by itself it also forgets by itself.
async fn neighbours(handle: &Handle, index: u32, wanted: &BTreeMap<IpAddr, Hardware>) -> Result<(), LinkError> {
    let mut missing = wanted.clone();
    for message in list(handle, index, AddressFamily::Unspec).await? {
        let Some(address) = destination(&message) else { continue };
        if message.header.state != NeighbourState::Permanent || message.header.family == AddressFamily::Bridge {
            continue;
        }
        match wanted.get(&address) {
            Some(hardware) if hardware_of(&message) == Some(&hardware[..]) => drop(missing.remove(&address)),
            _ => remove(handle, message).await?,
        }
    }
    for (address, hardware) in missing {
        let add = handle.neighbours().add(index, address).link_layer_address(&hardware);
        add.replace().execute().await.map_err(failed(format!("neighbour {address}")))?;
    }
    Ok(())
}

async fn ends(handle: &Handle, index: u32, wanted: &BTreeMap<Hardware, IpAddr>) -> Result<(), LinkError> {
    let mut missing = wanted.clone();
    for message in list(handle, index, AddressFamily::Bridge).await? {
        let hardware = hardware_of(&message).and_then(|bytes| Hardware::try_from(bytes).ok());
        match hardware.and_then(|hardware| Some((hardware, wanted.get(&hardware)?))) {
            Some((hardware, end)) if destination(&message) == Some(*end) => drop(missing.remove(&hardware)),
            _ => remove(handle, message).await?,
        }
    }
    for (hardware, end) in missing {
        let add = handle.neighbours().add_bridge(index, &hardware).destination(end).flags(NeighbourFlags::Own);
        add.replace().execute().await.map_err(failed(format!("tunnel to {end}")))?;
    }
    Ok(())
}

async fn list(handle: &Handle, index: u32, family: AddressFamily) -> Result<Vec<NeighbourMessage>, LinkError> {
    let listed = handle.neighbours().get().set_address_family(family).execute();
    let all: Vec<NeighbourMessage> = listed.try_collect().await.map_err(failed("list neighbours"))?;
    Ok(all.into_iter().filter(|message| message.header.ifindex == index).collect())
}

async fn remove(handle: &Handle, message: NeighbourMessage) -> Result<(), LinkError> {
    let removed = handle.neighbours().del(message).execute().await;
    unless(Errno::NOENT, removed).map_err(failed("remove a neighbour"))
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
}

fn hardware_of(message: &NeighbourMessage) -> Option<&[u8]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Some(bytes.as_slice()),
        _ => None,
    })
}
