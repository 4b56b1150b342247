//! How the pods of every other node are reached: by a route where no router is in between, through a tunnel elsewhere.
//! Pure: the ways come in, the whole of routes and tunnels goes out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::fnv;

/// A hardware address.
pub type Hardware = [u8; 6];

/// What a tunnel's packets travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Underlay {
    V4,
    V6,
}

/// Another node with the ways that lead to it, the preferred one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub name: String,
    pub ranges: Vec<IpNet>,
    pub ways: Vec<Way>,
}

/// An address of a node that this node can send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    pub address: IpAddr,
    /// No router in between: the other node takes packets for its pods as they are.
    pub direct: bool,
    /// What the link takes.
    pub link_mtu: u32,
    /// What comes through, where that was found to be less.
    pub path_mtu: Option<u32>,
}

/// Everything that should be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub routes: BTreeMap<IpNet, Hop>,
    pub tunnels: BTreeMap<Underlay, Ends>,
    /// Nodes that no way leads to.
    pub unreachable: Vec<String>,
}

/// Where packets for a range go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub via: IpAddr,
    pub tunnel: Option<Underlay>,
    /// Where the path carries less than the link.
    pub mtu: Option<u32>,
}

/// The nodes behind one tunnel link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    pub mtu: u32,
    pub neighbours: BTreeMap<IpAddr, Hardware>,
    pub ends: BTreeMap<Hardware, IpAddr>,
}

// === impl Underlay ===

impl Underlay {
    pub const ALL: [Underlay; 2] = [Underlay::V4, Underlay::V6];

    fn of(address: IpAddr) -> Underlay {
        if address.is_ipv4() { Underlay::V4 } else { Underlay::V6 }
    }

    pub(crate) fn digit(self) -> char {
        match self {
            Underlay::V4 => '4',
            Underlay::V6 => '6',
        }
    }

    /// Bytes of a tunnelled packet that are not the pod's: IP, UDP and VXLAN headers, and the inner Ethernet header.
    fn overhead(self) -> u32 {
        match self {
            Underlay::V4 => 20 + 8 + 8 + 14,
            Underlay::V6 => 40 + 8 + 8 + 14,
        }
    }
}

/// The hardware address of a node's end of the tunnels. It follows from the node's name, so nobody has to publish it.
pub fn hardware(node: &str) -> Hardware {
    let hash = fnv(node.as_bytes()).to_be_bytes();
    // The second bit marks a locally administered address.
    [0x0e, hash[3], hash[4], hash[5], hash[6], hash[7]]
}

/// Same peers, same plan.
pub fn plan(peers: &[Peer]) -> Plan {
    let mut plan = Plan::default();
    for peer in peers {
        for range in &peer.ranges {
            let direct = peer.ways.iter().find(|way| way.direct && way.address.is_ipv4() == range.addr().is_ipv4());
            let hop = match direct {
                Some(way) => Some(Hop { via: way.address, tunnel: None, mtu: way.path_mtu }),
                None => peer.ways.first().map(|way| tunnelled(peer, range, way, &mut plan.tunnels)),
            };
            match hop {
                Some(hop) => drop(plan.routes.insert(range.trunc(), hop)),
                None if !plan.unreachable.contains(&peer.name) => plan.unreachable.push(peer.name.clone()),
                None => {}
            }
        }
    }
    plan
}

fn tunnelled(peer: &Peer, range: &IpNet, way: &Way, tunnels: &mut BTreeMap<Underlay, Ends>) -> Hop {
    let underlay = Underlay::of(way.address);
    let (hardware, via) = (hardware(&peer.name), next_hop(range, &peer.name));
    let mtu = way.link_mtu.saturating_sub(underlay.overhead());
    let ends = tunnels.entry(underlay).or_insert_with(|| Ends { mtu, ..Ends::default() });
    ends.mtu = ends.mtu.min(mtu);
    ends.neighbours.insert(via, hardware);
    ends.ends.insert(hardware, way.address);
    Hop { via, tunnel: Some(underlay), mtu: way.path_mtu.map(|mtu| mtu.saturating_sub(underlay.overhead())) }
}

/// The other node's address in the tunnel: no pod has it, and no other node.
fn next_hop(range: &IpNet, node: &str) -> IpAddr {
    match range {
        IpNet::V4(range) => IpAddr::V4(range.network()),
        IpNet::V6(_) => {
            let [a, b, c, d, e, f] = hardware(node).map(u16::from);
            IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, a << 8 | b, c << 8 | d, e << 8 | f))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(address: &str, direct: bool, path_mtu: Option<u32>) -> Way {
        Way { address: address.parse().unwrap(), direct, link_mtu: 1500, path_mtu }
    }

    fn peer(name: &str, ranges: &[&str], ways: Vec<Way>) -> Peer {
        Peer { name: name.into(), ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(), ways }
    }

    fn routes(plan: &Plan) -> Vec<String> {
        let line = |(to, hop): (&IpNet, &Hop)| {
            let tunnel = hop.tunnel.map(|underlay| format!(" tunnel{}", underlay.digit())).unwrap_or_default();
            let mtu = hop.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
            format!("{to} via {}{tunnel}{mtu}", hop.via)
        };
        plan.routes.iter().map(line).collect()
    }

    #[test]
    fn neighbours_are_routed_and_all_others_tunnelled() {
        let plan = plan(&[
            peer("near", &["10.42.1.0/24"], vec![way("192.0.2.1", true, Some(1400))]),
            peer("far", &["10.42.2.0/24"], vec![way("198.51.100.2", false, None)]),
            peer("gone", &["10.42.3.0/24", "fd00:3::/64"], vec![]),
        ]);
        assert_eq!(routes(&plan), ["10.42.1.0/24 via 192.0.2.1 mtu 1400", "10.42.2.0/24 via 10.42.2.0 tunnel4"]);
        assert_eq!(plan.unreachable, ["gone"]);
        let ends = &plan.tunnels[&Underlay::V4];
        assert_eq!(ends.mtu, 1450);
        assert_eq!(ends.ends[&hardware("far")].to_string(), "198.51.100.2");
        assert_eq!(plan.tunnels.len(), 1);
    }

    #[test]
    fn either_family_travels_in_either() {
        let both = ["10.42.1.0/24", "fd00:1::/64"];
        // Near by IPv4 only: pods of the other family go through a tunnel over it.
        let one = plan(&[peer("a", &both, vec![way("192.0.2.1", true, None)])]);
        assert_eq!(routes(&one)[0], "10.42.1.0/24 via 192.0.2.1");
        assert!(routes(&one)[1].starts_with("fd00:1::/64 via fe80::e") && routes(&one)[1].ends_with("tunnel4"));
        let two = plan(&[peer("a", &both, vec![way("2001:db8::1", false, Some(1400))])]);
        assert!(routes(&two).iter().all(|route| route.ends_with("tunnel6 mtu 1330")), "{:?}", routes(&two));
        assert_eq!(two.tunnels[&Underlay::V6].mtu, 1430);
    }

    #[test]
    fn hardware_addresses_are_unicast_local_and_apart() {
        assert_ne!(hardware("a"), hardware("b"));
        assert_eq!(hardware("a")[0] & 0b11, 0b10);
    }
}
