//! What a Service claims: addresses per family, node ports, a health check port.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::{Status, Tree};
use serde_json::json;

use super::{address, node_port, released};
use crate::causes::{At, Causes};
use crate::context::{Cx, Gathered};
use crate::{Place, doc};

const NONE: &str = "None";

pub(super) fn claim(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>, gathered: &mut Gathered) -> Result<(), Status> {
    let mut causes = Causes::default();
    inherit(tree, old);
    addresses(cx, tree, old, gathered, &mut causes);
    node_ports(cx, tree, old, gathered, &mut causes);
    if !causes.is_empty() {
        return Err(cx.invalid(doc::text(tree, "metadata.name"), causes.into_vec()));
    }
    let kept: BTreeSet<Place> = places(tree).into_iter().collect();
    let gone = old.map(places).unwrap_or_default().into_iter().filter(|place| !kept.contains(place));
    gathered.changes.extend(gone.filter_map(|place| released(cx, place)));
    Ok(())
}

/// Every place that a Service holds.
pub(super) fn places(service: &Tree) -> Vec<Place> {
    let mut places: Vec<Place> = cluster_ips(service).iter().map(address::place).collect();
    places.extend(ports(service).into_iter().map(node_port::place));
    places
}

fn cluster_ips(service: &Tree) -> Vec<IpAddr> {
    doc::items(service, "spec.clusterIPs").iter().filter_map(Tree::as_str).filter_map(|ip| ip.parse().ok()).collect()
}

fn ports(service: &Tree) -> BTreeSet<u16> {
    let mut numbers: Vec<i64> =
        doc::items(service, "spec.ports").iter().filter_map(|port| doc::int(port, "nodePort")).collect();
    numbers.extend(doc::int(service, "spec.healthCheckNodePort"));
    numbers.into_iter().filter_map(|number| u16::try_from(number).ok()).filter(|number| *number != 0).collect()
}

fn kind(service: &Tree) -> &str {
    doc::text(service, "spec.type")
}

fn needs_ports(service: &Tree) -> bool {
    let balancer = kind(service) == "LoadBalancer"
        && doc::get(service, "spec.allocateLoadBalancerNodePorts").as_bool().unwrap_or(true);
    kind(service) == "NodePort" || balancer
}

fn needs_health_port(service: &Tree) -> bool {
    kind(service) == "LoadBalancer" && doc::text(service, "spec.externalTrafficPolicy") == "Local"
}

/// An update that leaves out what was allocated keeps it; one that changes the type gives up what the type had.
fn inherit(tree: &mut Tree, old: Option<&Tree>) {
    let Some(old) = old else { return };
    if kind(tree) != "ExternalName" && kind(old) != "ExternalName" {
        if doc::text(tree, "spec.clusterIP").is_empty() && doc::items(tree, "spec.clusterIPs").is_empty() {
            doc::copy(old, tree, "spec.clusterIP");
            doc::copy(old, tree, "spec.clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if !doc::has(tree, &format!("spec.{field}")) {
                doc::copy(old, tree, &format!("spec.{field}"));
            }
        }
    }
    if kind(tree) == "ExternalName" && kind(old) != "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            doc::remove(tree, &format!("spec.{field}"));
        }
    }
    let had: Vec<Tree> = doc::items(old, "spec.ports").to_vec();
    let same = |a: &Tree, b: &Tree| a["port"] == b["port"] && a["protocol"] == b["protocol"];
    let (needs, needed) = (needs_ports(tree), needs_ports(old));
    for port in doc::items_mut(tree, "spec.ports") {
        let before = had.iter().find(|before| same(before, port));
        let empty = doc::int(port, "nodePort").unwrap_or(0) == 0;
        match before {
            Some(before) if needs && needed && empty => doc::copy(before, port, "nodePort"),
            Some(before) if !needs && needed && before.get("nodePort") == port.get("nodePort") => {
                doc::remove(port, "nodePort");
            }
            _ => {}
        }
    }
    if needs_health_port(tree) && needs_health_port(old) {
        doc::copy(old, tree, "spec.healthCheckNodePort");
    } else if !needs_health_port(tree) {
        doc::remove(tree, "spec.healthCheckNodePort");
    }
    drop_by_type(tree, old);
}

/// Fields that only the former type had.
fn drop_by_type(tree: &mut Tree, old: &Tree) {
    if kind(tree) == "ClusterIP" && kind(old) != "ClusterIP" && doc::items(tree, "spec.externalIPs").is_empty() {
        doc::remove(tree, "spec.externalTrafficPolicy");
    }
    if kind(tree) != "LoadBalancer" && kind(old) == "LoadBalancer" {
        doc::remove(tree, "spec.allocateLoadBalancerNodePorts");
        doc::remove(tree, "spec.loadBalancerClass");
        doc::set(tree, "status.loadBalancer", json!({}));
    }
}

fn addresses(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>, gathered: &mut Gathered, causes: &mut Causes) {
    if kind(tree) == "ExternalName" {
        return;
    }
    let ranges = address::ranges(cx);
    let (ip, mut ips) = (doc::text(tree, "spec.clusterIP").to_owned(), doc::items(tree, "spec.clusterIPs").to_vec());
    if ips.is_empty() && !ip.is_empty() {
        ips = vec![json!(ip)];
    }
    let headless = ips.first().is_some_and(|first| first == NONE);
    let given: Vec<IpAddr> = ips.iter().filter_map(Tree::as_str).filter_map(|text| text.parse().ok()).collect();
    if !headless && given.len() != ips.len() {
        return causes.invalid(&At::of("spec.clusterIPs"), &json!(ips), "must be a valid IP address");
    }
    let Some(families) = families(tree, &ranges, &given, headless, causes) else { return };
    doc::set(tree, "spec.ipFamilies", json!(families));
    if headless {
        doc::set(tree, "spec.clusterIP", NONE);
        doc::set(tree, "spec.clusterIPs", json!([NONE]));
        return;
    }
    let had = old.map(cluster_ips).unwrap_or_default();
    let mut chosen = Vec::new();
    for family in families {
        let given = given.iter().find(|ip| address::family(ip) == family);
        match given {
            Some(ip) if had.contains(ip) => chosen.push(*ip),
            Some(ip) => match refusal(cx, &ranges, ip) {
                Some(why) => return causes.invalid(&At::of("spec.clusterIPs"), &json!([ip.to_string()]), &why),
                None => {
                    gathered.changes.push(address::claim(cx, ip, tree));
                    chosen.push(*ip);
                }
            },
            None => match address::choose(cx, &ranges, family, &chosen) {
                Some(ip) => {
                    gathered.changes.push(address::claim(cx, &ip, tree));
                    chosen.push(ip);
                }
                None => {
                    return causes.invalid(
                        &At::of("spec.clusterIPs"),
                        &json!([]),
                        "failed to allocate a serviceIP: range is full",
                    );
                }
            },
        }
    }
    let chosen: Vec<String> = chosen.iter().map(ToString::to_string).collect();
    doc::set(tree, "spec.clusterIP", chosen.first().cloned().unwrap_or_default());
    doc::set(tree, "spec.clusterIPs", json!(chosen));
}

fn refusal(cx: &Cx<'_>, ranges: &[ipnet::IpNet], ip: &IpAddr) -> Option<String> {
    if !address::contains(ranges, ip) {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let why =
            format!("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}", ranges.join(","));
        return Some(format!("failed to allocate IP {ip}: {why}"));
    }
    (!super::is_free(cx, &address::place(ip)))
        .then(|| format!("failed to allocate IP {ip}: provided IP is already allocated"))
}

/// The families a Service gets, after its policy; None when its wish cannot be met.
fn families(
    tree: &mut Tree,
    ranges: &[ipnet::IpNet],
    given: &[IpAddr],
    headless: bool,
    causes: &mut Causes,
) -> Option<Vec<&'static str>> {
    let cluster = address::families(ranges);
    let known = |name: &str| ["IPv4", "IPv6"].into_iter().find(|family| *family == name);
    let mut wanted: Vec<&str> = given.iter().map(|ip| address::family(ip)).collect();
    for family in doc::items(tree, "spec.ipFamilies").iter().filter_map(Tree::as_str).filter_map(known) {
        if !wanted.contains(&family) {
            wanted.push(family);
        }
    }
    let selectorless = doc::get(tree, "spec.selector").as_object().is_none_or(serde_json::Map::is_empty);
    let dual = wanted.len() > 1 || headless && selectorless;
    doc::fill(tree, "spec.ipFamilyPolicy", if dual { "RequireDualStack" } else { "SingleStack" });
    let policy = doc::text(tree, "spec.ipFamilyPolicy").to_owned();
    if policy == "SingleStack" {
        wanted.truncate(1);
    }
    let defaults: &[&'static str] = if headless && selectorless { &["IPv4", "IPv6"] } else { &cluster };
    let count = if policy == "SingleStack" { 1 } else { 2 };
    let mut families = wanted;
    for family in cluster.iter().chain(defaults) {
        if families.len() < count && !families.contains(family) {
            families.push(family);
        }
    }
    if headless && selectorless {
        return Some(families);
    }
    if policy == "RequireDualStack" && cluster.len() < 2 {
        let at = At::of("spec.ipFamilyPolicy");
        causes.invalid_text(&at, &policy, "this cluster is not configured for dual-stack services");
        return None;
    }
    if let Some(missing) = families.iter().find(|family| !cluster.contains(family)) {
        let at = At::of("spec.ipFamilies");
        causes.invalid(&at.index(0), &json!(missing), "not configured on this cluster");
        return None;
    }
    Some(families)
}

fn node_ports(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>, gathered: &mut Gathered, causes: &mut Causes) {
    let mut held = old.map(ports).unwrap_or_default();
    let holder = tree.clone();
    let mut settle = |slot: &mut Tree, field: &str, at: At, twin: Option<u16>| {
        let asked = doc::int(slot, field).unwrap_or(0);
        let port = match (u16::try_from(asked), twin) {
            (Ok(0), Some(twin)) => Some(twin),
            (Ok(0), None) => node_port::choose(cx, &held),
            (Ok(asked), _) => Some(asked),
            (Err(_), _) => return causes.invalid(&at, &json!(asked), "must be between 0 and 65535, inclusive"),
        };
        let Some(port) = port else {
            return causes.invalid(&at, &json!(0), "failed to allocate a nodePort: range is full");
        };
        if !held.contains(&port) {
            if let Some(why) = node_port::refusal(cx, port) {
                return causes.invalid(&at, &json!(port), &why);
            }
            gathered.changes.push(node_port::claim(port, &holder));
            held.insert(port);
        }
        doc::set(slot, field, port);
    };
    if needs_ports(tree) {
        // The same port number over two protocols shares one node port.
        let mut settled: Vec<(i64, String, u16)> = Vec::new();
        for (index, port) in doc::items_mut(tree, "spec.ports").enumerate() {
            let number = doc::int(port, "port").unwrap_or(0);
            let protocol = doc::text(port, "protocol").to_owned();
            let twin = settled.iter().find(|(have, other, _)| *have == number && *other != protocol).map(|(.., p)| *p);
            settle(port, "nodePort", At::of("spec.ports").index(index).child("nodePort"), twin);
            let port = doc::int(port, "nodePort").and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
            settled.push((number, protocol, port));
        }
    }
    if needs_health_port(tree) {
        settle(tree, "spec.healthCheckNodePort", At::of("spec.healthCheckNodePort"), None);
    }
}
