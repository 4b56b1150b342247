//! Services and what stands behind and before them.

use std::collections::BTreeSet;

use serde_json::json;

use super::{NONE, UNKNOWN, labels, number, or, plain, texts};
use crate::{Tree, meta};

/// Elements a cell names before it only counts.
const SHOWN: usize = 3;

/// Cluster-IP, External-IP, Port(s), Selector.
pub(super) fn service(object: &Tree) -> Vec<Tree> {
    let ports: Vec<String> = meta::list_at(object, "spec.ports").iter().map(port).collect();
    vec![
        json!(or(meta::str_at(object, "spec.clusterIP"), NONE)),
        json!(external(object)),
        json!(or(&ports.join(","), NONE)),
        json!(labels(meta::tree_at(object, "spec.selector"))),
    ]
}

fn port(port: &Tree) -> String {
    let (number, protocol) = (number(port, "port"), meta::str_at(port, "protocol"));
    match meta::i64_at(port, "nodePort") {
        Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external(object: &Tree) -> String {
    let mut ips = texts(meta::list_at(object, "spec.externalIPs"));
    match meta::str_at(object, "spec.type") {
        "ClusterIP" | "NodePort" => or(&ips.join(","), NONE).to_owned(),
        "LoadBalancer" => {
            let given = balancer(object);
            let mut all: Vec<&str> = given.split(',').filter(|ip| !ip.is_empty()).collect();
            all.append(&mut ips);
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => meta::str_at(object, "spec.externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

fn balancer(object: &Tree) -> String {
    let ingress = meta::list_at(object, "status.loadBalancer.ingress").iter();
    let names: BTreeSet<&str> = ingress
        .map(|one| or(meta::str_at(one, "ip"), meta::str_at(one, "hostname")))
        .filter(|n| !n.is_empty())
        .collect();
    names.into_iter().collect::<Vec<_>>().join(",")
}

fn shortened(words: &[String], total: usize) -> String {
    let shown = words.join(",");
    if total > words.len() { format!("{shown} + {} more...", total - words.len()) } else { shown }
}

/// Endpoints.
pub(super) fn endpoints(object: &Tree) -> Vec<Tree> {
    let subsets = meta::list_at(object, "subsets");
    if subsets.is_empty() {
        return vec![json!(NONE)];
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || meta::list_at(subset, "addresses").iter().map(|one| meta::str_at(one, "ip"));
        let ports = meta::list_at(subset, "ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            all.extend(addresses().map(|ip| {
                let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                format!("{ip}:{}", number(port, "port"))
            }));
        }
    }
    vec![json!(shortened(&all[..all.len().min(SHOWN)], all.len()))]
}

/// Ports, Endpoints.
pub(super) fn endpoint_slice(object: &Tree) -> Vec<Tree> {
    let port = |port: &Tree| meta::i64_at(port, "port").map_or_else(|| "*".to_owned(), |port| port.to_string());
    let ports: Vec<String> = meta::list_at(object, "ports").iter().map(port).collect();
    let endpoints = meta::list_at(object, "endpoints").iter();
    let addresses: Vec<String> =
        endpoints.flat_map(|one| texts(meta::list_at(one, "addresses"))).map(str::to_owned).collect();
    let cell = |words: &[String]| match words.len() {
        0 => "<unset>".to_owned(),
        all => shortened(&words[..all.min(SHOWN)], all),
    };
    vec![json!(cell(&ports)), json!(cell(&addresses))]
}

/// Class, Hosts, Address, Ports.
pub(super) fn ingress(object: &Tree) -> Vec<Tree> {
    let rules = meta::list_at(object, "spec.rules");
    let hosts: Vec<String> =
        rules.iter().map(|rule| meta::str_at(rule, "host").to_owned()).filter(|host| !host.is_empty()).collect();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        all if all > SHOWN => shortened(&hosts[..SHOWN], rules.len()),
        _ => hosts.join(","),
    };
    let class = or(
        meta::str_at(object, "spec.ingressClassName"),
        meta::annotation(object, "kubernetes.io/ingress.class").unwrap_or(NONE),
    );
    let ports = if meta::list_at(object, "spec.tls").is_empty() { "80" } else { "80, 443" };
    vec![json!(class), json!(hosts), json!(balancer(object)), json!(ports)]
}

/// Parameters.
pub(super) fn ingress_class(object: &Tree) -> Vec<Tree> {
    let parameters = meta::tree_at(object, "spec.parameters");
    let text = parameters.map_or_else(
        || NONE.to_owned(),
        |parameters| {
            let kind = meta::str_at(parameters, "kind");
            let group = meta::tree_at(parameters, "apiGroup").map(|group| format!(".{}", plain(group)));
            format!("{kind}{}/{}", group.unwrap_or_default(), meta::str_at(parameters, "name"))
        },
    );
    vec![json!(text)]
}

/// ParentRef.
pub(super) fn ip_address(object: &Tree) -> Vec<Tree> {
    let part = |name: &str| meta::str_at(object, &format!("spec.parentRef.{name}")).to_owned();
    let parts = [part("group"), part("resource"), part("namespace"), part("name")];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    vec![json!(parts.join("/"))]
}
