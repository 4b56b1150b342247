//! Routes to the pods of other nodes, as the kernel has them.

use std::fs;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use keeper::wrong::{Name, What};

use super::super::reach::Target;
use crate::layout::Layout;

const ROUTES: &str = "/proc/net/route";

/// Nodes whose pods have no route here; nothing where no network of ours was ever made.
pub fn unrouted<'a>(layout: &Layout, others: impl Iterator<Item = &'a Target>) -> Option<What> {
    if !layout.net().exists() {
        return None;
    }
    let routes = fs::read_to_string(ROUTES).ok()?;
    let unrouted: Vec<Name> =
        others.filter(|target| !has_all(&routes, &target.ranges)).map(|target| target.node.clone()).collect();
    (!unrouted.is_empty()).then_some(What::Network { table: true, unrouted })
}

/// Of IPv4; the other family's come and go with them.
fn has_all(routes: &str, ranges: &[IpNet]) -> bool {
    let found: Vec<Ipv4Net> = routes.lines().filter_map(route).collect();
    ranges.iter().all(|range| match range {
        IpNet::V4(range) => found.contains(range),
        IpNet::V6(_) => true,
    })
}

/// Destination and mask of a line.
fn route(line: &str) -> Option<Ipv4Net> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let address = |at: usize| Some(Ipv4Addr::from(u32::from_str_radix(words.get(at)?, 16).ok()?.to_le_bytes()));
    Ipv4Net::with_netmask(address(1)?, address(7)?).ok()
}

#[cfg(test)]
mod tests {
    use super::has_all;

    #[test]
    fn a_range_without_its_route_is_seen() {
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                      eth0 00012A0A 0B4D1FAC 0003 0 0 0 00FFFFFF 0 0 0\n";
        assert!(has_all(routes, &["10.42.1.0/24".parse().unwrap(), "fd42::/64".parse().unwrap()]));
        assert!(!has_all(routes, &["10.42.2.0/24".parse().unwrap()]));
        assert!(has_all(routes, &[]));
    }
}
