//! Routes to the pod ranges of nodes on our segment.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Handle, RouteMessageBuilder};
use rustix::io::Errno;

use super::{LinkError, addresses, failed, unless};

const MTU_DEFAULT: u32 = 1500;

/// Makes our routes (known by their protocol number) exactly `wanted`: range to next hop.
pub async fn sync(handle: &Handle, protocol: u8, wanted: &BTreeMap<IpNet, IpAddr>) -> Result<(), LinkError> {
    let mut missing = wanted.clone();
    for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        for route in list(handle, family).await? {
            if route.header.protocol != RouteProtocol::from(protocol) {
                continue;
            }
            match read(&route) {
                Some((to, via)) if wanted.get(&to) == Some(&via) => drop(missing.remove(&to)),
                _ => {
                    let removed = handle.route().del(route).execute().await;
                    unless(Errno::SRCH, removed).map_err(failed("remove a route"))?;
                }
            }
        }
    }
    for (to, via) in missing {
        let message = message(to, via, protocol);
        let added = handle.route().add(message).replace().execute().await;
        added.map_err(failed(format!("route {to} via {via}")))?;
    }
    Ok(())
}

/// Of these addresses, those that a link of ours reaches without a router.
pub async fn on_segment(handle: &Handle, candidates: &[IpAddr], except: &[IpNet]) -> Result<Vec<IpAddr>, LinkError> {
    let own = addresses(handle, None).await?;
    let nets: Vec<IpNet> = own.into_iter().map(|(_, net)| net).filter(|net| !except.contains(&net.trunc())).collect();
    let near = |address: &&IpAddr| nets.iter().any(|net| net.contains(*address) && net.addr() != **address);
    Ok(candidates.iter().filter(near).copied().collect())
}

/// The MTU of the link that the default route leaves through.
pub async fn uplink_mtu(handle: &Handle) -> Result<u32, LinkError> {
    let routes = list(handle, IpAddr::V4(Ipv4Addr::UNSPECIFIED)).await?;
    let default = routes.iter().find(|route| route.header.destination_prefix_length == 0);
    let index = default.and_then(|route| {
        route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    });
    let Some(index) = index else { return Ok(MTU_DEFAULT) };
    let link = handle.link().get().match_index(index).execute().try_next().await.map_err(failed("find the uplink"))?;
    let mtu = link.and_then(|link| {
        link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(mtu),
            _ => None,
        })
    });
    Ok(mtu.unwrap_or(MTU_DEFAULT))
}

async fn list(handle: &Handle, family: IpAddr) -> Result<Vec<RouteMessage>, LinkError> {
    let filter = match family {
        IpAddr::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpAddr::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    handle.route().get(filter).execute().try_collect().await.map_err(failed("list routes"))
}

fn read(route: &RouteMessage) -> Option<(IpNet, IpAddr)> {
    let mut to = None;
    let mut via = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            _ => {}
        }
    }
    Some((IpNet::new(to?, route.header.destination_prefix_length).ok()?, via?))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn message(to: IpNet, via: IpAddr, protocol: u8) -> RouteMessage {
    let protocol = RouteProtocol::from(protocol);
    match (to, via) {
        (IpNet::V4(to), IpAddr::V4(via)) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .gateway(via)
            .protocol(protocol)
            .build(),
        (IpNet::V6(to), IpAddr::V6(via)) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .gateway(via)
            .protocol(protocol)
            .build(),
        (to, via) => unreachable!("{to} and {via} are of one family: routes are planned per family"),
    }
}
