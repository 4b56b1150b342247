//! Routes to the pod ranges of other nodes, and the way the kernel would take to an address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use rustix::io::Errno;

use super::{LinkError, by_index, failed, unless};

const MTU_DEFAULT: u32 = 1500;

/// How a range of pods is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub via: IpAddr,
    /// The link's index, where the next hop is no neighbour that the kernel would find by itself.
    pub link: Option<u32>,
    /// What programs of this node are seen as.
    pub source: Option<IpAddr>,
    /// Where the path carries less than the link.
    pub mtu: Option<u32>,
}

/// The way to an address, as the kernel would take it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub link: u32,
    /// No router in between.
    pub direct: bool,
}

/// Makes our routes (known by their protocol number) exactly `wanted`. One that changes is replaced at once, without a
/// moment in which there is none.
pub async fn sync(handle: &Handle, protocol: u8, wanted: &BTreeMap<IpNet, Route>) -> Result<(), LinkError> {
    let mut missing = wanted.clone();
    for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        for route in list(handle, family).await? {
            if route.header.protocol != RouteProtocol::from(protocol) {
                continue;
            }
            let (to, found) = read(&route).unzip();
            match to.and_then(|to| Some((to, wanted.get(&to)?))) {
                Some((to, wanted)) if found.is_some_and(|found| satisfies(&found, wanted)) => drop(missing.remove(&to)),
                Some(_) => {}
                None => {
                    let removed = handle.route().del(route).execute().await;
                    unless(Errno::SRCH, removed).map_err(failed("remove a route"))?;
                }
            }
        }
    }
    for (to, route) in missing {
        let via = route.via;
        let added = handle.route().add(message(to, route, protocol)).replace().execute().await;
        added.map_err(failed(format!("route {to} via {via}")))?;
    }
    Ok(())
}

/// The kernel names the link of every route, also where we left it to the kernel.
fn satisfies(found: &Route, wanted: &Route) -> bool {
    let link = wanted.link.or(found.link);
    *found == Route { link, ..wanted.clone() }
}

/// The way to an address; None where there is none.
pub async fn lookup(handle: &Handle, to: IpAddr) -> Result<Option<Lookup>, LinkError> {
    let message = match to {
        IpAddr::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).build(),
        IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128).build(),
    };
    let route = match handle.route().get(message).execute().try_next().await {
        Ok(Some(route)) if route.header.kind == RouteType::Unicast => route,
        // Of this node itself, forbidden, or without any route.
        Ok(_) | Err(rtnetlink::Error::NetlinkError(_)) => return Ok(None),
        Err(error) => return Err(failed(format!("find the way to {to}"))(error)),
    };
    let mut link = None;
    let mut direct = true;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => direct = false,
            _ => {}
        }
    }
    Ok(link.map(|link| Lookup { link, direct }))
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
    Ok(mtu_of(handle, index).await?.unwrap_or(MTU_DEFAULT))
}

/// The largest packet a link takes; None where there is no such link.
pub async fn mtu_of(handle: &Handle, index: u32) -> Result<Option<u32>, LinkError> {
    Ok(by_index(handle, index).await?.and_then(|link| {
        link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(mtu),
            _ => None,
        })
    }))
}

async fn list(handle: &Handle, family: IpAddr) -> Result<Vec<RouteMessage>, LinkError> {
    let filter = match family {
        IpAddr::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpAddr::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    handle.route().get(filter).execute().try_collect().await.map_err(failed("list routes"))
}

fn read(route: &RouteMessage) -> Option<(IpNet, Route)> {
    let mut to = None;
    let mut via = None;
    let (mut link, mut source, mut mtu) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let to = IpNet::new(to?, route.header.destination_prefix_length).ok()?;
    Some((to, Route { via: via?, link, source, mtu }))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn message(to: IpNet, route: Route, protocol: u8) -> RouteMessage {
    let protocol = RouteProtocol::from(protocol);
    let mut message = match (to, route.via) {
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
    };
    if let Some(index) = route.link {
        message.attributes.push(RouteAttribute::Oif(index));
        message.header.flags |= RouteFlags::Onlink;
    }
    message.attributes.extend(route.source.map(|source| {
        RouteAttribute::PrefSource(match source {
            IpAddr::V4(v4) => RouteAddress::Inet(v4),
            IpAddr::V6(v6) => RouteAddress::Inet6(v6),
        })
    }));
    message.attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}
