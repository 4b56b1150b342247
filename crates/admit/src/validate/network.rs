//! Ingresses, NetworkPolicies, IngressClasses, EndpointSlices.

use api::{LabelSelector, Tree};
use serde_json::json;

use super::pod::one_of;
use crate::causes::{At, Causes};
use crate::{doc, names};

/// Upstream's bounds of one slice.
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;

pub(super) fn object(kind: &str, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    match kind {
        "Ingress" => ingress(tree, causes),
        "NetworkPolicy" => policy(tree, causes),
        "EndpointSlice" => slice(tree, old, causes),
        "IngressClass" => {
            let now = doc::get(tree, "spec.controller");
            if old.is_some_and(|old| doc::get(old, "spec.controller") != now) {
                causes.immutable(&At::of("spec.controller"), now);
            }
        }
        "ServiceCIDR" => {
            for (index, cidr) in doc::items(tree, "spec.cidrs").iter().enumerate() {
                cidr_rule(cidr, &At::of("spec.cidrs").index(index), causes);
            }
        }
        _ => {}
    }
}

fn ingress(tree: &Tree, causes: &mut Causes) {
    let at = At::of("spec");
    let rules = doc::items(tree, "spec.rules");
    if rules.is_empty() && !doc::has(tree, "spec.defaultBackend") {
        causes.invalid(&at, doc::get(tree, "spec.rules"), "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(default) = doc::at(tree, "spec.defaultBackend") {
        backend(default, &at.child("defaultBackend"), causes);
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = at.child("rules").index(index);
        let host = doc::text(rule, "host");
        if !host.is_empty() {
            if host.parse::<std::net::IpAddr>().is_ok() {
                causes.invalid_text(&at.child("host"), host, "must be a DNS name, not an IP address");
            }
            let plain = host.strip_prefix("*.").unwrap_or(host);
            names::subdomain(plain).iter().for_each(|why| causes.invalid_text(&at.child("host"), host, why));
        }
        if doc::has(rule, "http") && doc::items(rule, "http.paths").is_empty() {
            causes.required(&at.child("http").child("paths"), "");
        }
        for (index, path) in doc::items(rule, "http.paths").iter().enumerate() {
            self::path(path, &at.child("http").child("paths").index(index), causes);
        }
    }
}

fn path(path: &Tree, at: &At, causes: &mut Causes) {
    let (text, kind) = (doc::text(path, "path"), doc::get(path, "pathType"));
    let supported = ["Exact", "ImplementationSpecific", "Prefix"];
    match kind.as_str() {
        None => causes.required(&at.child("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") if !text.starts_with('/') => {
            causes.invalid_text(&at.child("path"), text, "must be an absolute path");
        }
        Some("Exact" | "Prefix") => {
            for bad in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|bad| text.contains(*bad)) {
                causes.invalid_text(&at.child("path"), text, &format!("must not contain '{bad}'"));
            }
        }
        Some("ImplementationSpecific") => {}
        Some(_) => causes.not_supported(&at.child("pathType"), kind, &supported),
    }
    backend(doc::get(path, "backend"), &at.child("backend"), causes);
}

fn backend(backend: &Tree, at: &At, causes: &mut Causes) {
    match (doc::at(backend, "service"), doc::has(backend, "resource")) {
        (Some(_), true) => causes.invalid_text(at, "", "cannot set both resource and service backends"),
        (None, true) => {}
        (None, false) => causes.required(at, "resource or service backend is required"),
        (Some(service), false) => {
            let at = at.child("service");
            if doc::text(service, "name").is_empty() {
                causes.required(&at.child("name"), "");
            }
            let (name, number) = (doc::text(service, "port.name"), doc::int(service, "port.number"));
            match (name.is_empty(), number) {
                (false, Some(_)) => causes.invalid_text(&at, "", "cannot set both port name & port number"),
                (true, None) => causes.required(&at, "port name or number is required"),
                (true, Some(number)) => {
                    let at = at.child("port").child("number");
                    names::port(number).iter().for_each(|why| causes.invalid(&at, &json!(number), why));
                }
                (false, None) => {}
            }
        }
    }
}

fn policy(tree: &Tree, causes: &mut Causes) {
    let at = At::of("spec");
    selector(doc::get(tree, "spec.podSelector"), &at.child("podSelector"), causes);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in doc::items(doc::get(tree, "spec"), list).iter().enumerate() {
            let at = at.child(list).index(index);
            for (index, port) in doc::items(rule, "ports").iter().enumerate() {
                policy_port(port, &at.child("ports").index(index), causes);
            }
            for (index, peer) in doc::items(rule, peers).iter().enumerate() {
                self::peer(peer, &at.child(peers).index(index), causes);
            }
        }
    }
    for (index, kind) in doc::items(tree, "spec.policyTypes").iter().enumerate() {
        if kind != "Ingress" && kind != "Egress" {
            causes.not_supported(&at.child("policyTypes").index(index), kind, &["Egress", "Ingress"]);
        }
    }
}

fn policy_port(port: &Tree, at: &At, causes: &mut Causes) {
    one_of(port, "protocol", &["SCTP", "TCP", "UDP"], at, causes);
    let (first, last) = (doc::int(port, "port"), doc::int(port, "endPort"));
    if let Some(number) = first {
        names::port(number).iter().for_each(|why| causes.invalid(&at.child("port"), &json!(number), why));
    }
    if let Some(last) = last.filter(|last| first.is_some_and(|first| *last < first)) {
        causes.invalid(&at.child("endPort"), &json!(last), "must be greater than or equal to `port`");
    }
}

fn peer(peer: &Tree, at: &At, causes: &mut Causes) {
    let Some(block) = doc::at(peer, "ipBlock") else {
        if !doc::has(peer, "podSelector") && !doc::has(peer, "namespaceSelector") {
            causes.required(at, "must specify a peer");
        }
        return;
    };
    if doc::has(peer, "podSelector") || doc::has(peer, "namespaceSelector") {
        causes.forbidden(at, "may not specify both ipBlock and another peer");
    }
    let at = at.child("ipBlock");
    cidr_rule(doc::get(block, "cidr"), &at.child("cidr"), causes);
    for (index, except) in doc::items(block, "except").iter().enumerate() {
        cidr_rule(except, &at.child("except").index(index), causes);
    }
}

fn cidr_rule(value: &Tree, at: &At, causes: &mut Causes) {
    if value.as_str().and_then(|text| text.parse::<ipnet::IpNet>().ok()).is_none() {
        causes.invalid(at, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
}

pub(super) fn selector(selector: &Tree, at: &At, causes: &mut Causes) {
    if let Err(error) = LabelSelector::from_tree(selector) {
        causes.invalid(at, selector, &error.message);
    }
    crate::meta::labels(doc::get(selector, "matchLabels"), &at.child("matchLabels"), causes);
}

fn slice(tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let kind = doc::get(tree, "addressType");
    if kind.is_null() || kind == "" {
        causes.required(&At::of("addressType"), "");
    }
    one_of(tree, "addressType", &["FQDN", "IPv4", "IPv6"], &At::root(), causes);
    if old.is_some_and(|old| doc::get(old, "addressType") != kind) {
        causes.immutable(&At::of("addressType"), kind);
    }
    let endpoints = doc::items(tree, "endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        causes.too_many(&At::of("endpoints"), endpoints.len(), ENDPOINTS_MAX);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let at = At::of("endpoints").index(index).child("addresses");
        let addresses = doc::items(endpoint, "addresses");
        if addresses.is_empty() {
            causes.required(&at, "must contain at least 1 address");
        } else if addresses.len() > ADDRESSES_MAX {
            causes.too_many(&at, addresses.len(), ADDRESSES_MAX);
        }
    }
}
