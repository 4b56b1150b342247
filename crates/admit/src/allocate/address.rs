//! Service addresses: which ranges there are, which address is free.

use std::net::IpAddr;

use api::Tree;
use ipnet::IpNet;
use serde_json::json;

use super::is_free;
use crate::context::{Cx, place_of, put};
use crate::{Change, Place, doc, names};

const GROUP: &str = "networking.k8s.io";
/// Random tries before the range is searched from its start.
const TRIES_MAX: usize = 64;
/// Addresses that a search looks at; a range this full is as good as full.
const SEARCH_MAX: u128 = 1 << 16;
/// The lower part of a range is left to addresses that people choose (as upstream splits it).
const RESERVED_MIN: u128 = 16;
const RESERVED_MAX: u128 = 256;

/// The ranges in use: of the ServiceCIDR objects, else of the configuration.
pub(super) fn ranges(cx: &Cx<'_>) -> Vec<IpNet> {
    let mut ranges: Vec<IpNet> = Vec::new();
    for object in cx.list(GROUP, "servicecidrs", None) {
        let tree = object.tree();
        if object.header.deletion.is_none() {
            ranges.extend(
                doc::items(&tree, "spec.cidrs").iter().filter_map(Tree::as_str).filter_map(|c| c.parse::<IpNet>().ok()),
            );
        }
    }
    if ranges.is_empty() {
        ranges.clone_from(&cx.ports.config.service_cidrs);
    }
    // The configured order decides which family comes first.
    let first = |range: &IpNet| {
        cx.ports.config.service_cidrs.iter().position(|have| family(&have.addr()) == family(&range.addr())).unwrap_or(9)
    };
    ranges.sort_by_key(first);
    ranges
}

pub(super) fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The cluster's families, the default one first.
pub(super) fn families(ranges: &[IpNet]) -> Vec<&'static str> {
    let mut families: Vec<&str> = ranges.iter().map(|range| family(&range.addr())).collect();
    families.dedup();
    families
}

pub(super) fn place(address: &IpAddr) -> Place {
    place_of(GROUP, "ipaddresses", "", &address.to_string())
}

/// A free address of a family, at random so that concurrent writers rarely meet.
pub(super) fn choose(cx: &Cx<'_>, ranges: &[IpNet], wanted: &str, taken: &[IpAddr]) -> Option<IpAddr> {
    let free = |address: &IpAddr| !taken.contains(address) && is_free(cx, &place(address));
    for range in ranges.iter().filter(|range| family(&range.addr()) == wanted) {
        let (first, count) = hosts(range);
        if count == 0 {
            continue;
        }
        let reserved = (count / 16).clamp(RESERVED_MIN, RESERVED_MAX).min(count - 1);
        for _ in 0..TRIES_MAX {
            let offset = reserved + u128::from(cx.ports.rng.next_u64()) % (count - reserved);
            let address = nth(range, first + offset);
            if free(&address) {
                return Some(address);
            }
        }
        let search = (0..count.min(SEARCH_MAX)).rev().map(|offset| nth(range, first + offset));
        if let Some(address) = search.into_iter().find(|address| free(address)) {
            return Some(address);
        }
    }
    None
}

pub(super) fn contains(ranges: &[IpNet], address: &IpAddr) -> bool {
    ranges.iter().any(|range| {
        let (first, count) = hosts(range);
        let at = number(address);
        range.contains(address) && (first..first + count).contains(&at)
    })
}

/// The claim: an IPAddress that names the Service.
pub(super) fn claim(cx: &Cx<'_>, address: &IpAddr, service: &Tree) -> Change {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(), "uid": names::uid(cx.ports.rng), "creationTimestamp": cx.stamp(),
            "labels": {
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                "ipaddress.kubernetes.io/ip-family": family(address),
            },
        },
        "spec": {"parentRef": {
            "group": "", "resource": "services",
            "namespace": doc::text(service, "metadata.namespace"), "name": doc::text(service, "metadata.name"),
        }},
    });
    put(place(address), None, &object)
}

/// The first usable address of a range and how many there are: not the network's own, nor IPv4's broadcast.
fn hosts(range: &IpNet) -> (u128, u128) {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = if bits >= 127 { u128::MAX >> 1 } else { 1_u128 << bits };
    let spare = if range.addr().is_ipv4() { 2 } else { 1 };
    (number(&range.network()) + 1, size.saturating_sub(spare))
}

fn number(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(*address)),
        IpAddr::V6(address) => u128::from(*address),
    }
}

fn nth(range: &IpNet, number: u128) -> IpAddr {
    match range {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}
