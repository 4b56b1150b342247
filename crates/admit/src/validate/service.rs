//! Services.

use std::collections::BTreeSet;

use api::Tree;
use serde_json::json;

use super::pod::one_of;
use crate::causes::{At, Causes};
use crate::{doc, names};

pub(super) fn object(tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let at = At::of("spec");
    let spec = doc::get(tree, "spec");
    let kind = doc::text(spec, "type");
    let headless = doc::text(spec, "clusterIP") == "None";
    one_of(spec, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &at, causes);
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], &at, causes);
    one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], &at, causes);
    one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], &at, causes);
    if doc::items(spec, "ports").is_empty() && !headless && kind != "ExternalName" {
        causes.required(&at.child("ports"), "");
    }
    if kind == "ExternalName" {
        let name = doc::text(spec, "externalName").trim_end_matches('.');
        if name.is_empty() {
            causes.required(&at.child("externalName"), "");
        } else {
            names::subdomain(name).iter().for_each(|why| causes.invalid_text(&at.child("externalName"), name, why));
        }
    }
    if matches!(kind, "NodePort" | "LoadBalancer") && headless {
        let why = format!("may not be set to 'None' for {kind} services");
        causes.invalid(&at.child("clusterIPs").index(0), &json!("None"), &why);
    }
    ports(spec, kind, &at.child("ports"), causes);
    crate::meta::labels(doc::get(spec, "selector"), &at.child("selector"), causes);
    for (index, ip) in doc::items(spec, "externalIPs").iter().enumerate() {
        let text = ip.as_str().unwrap_or_default();
        if text.parse::<std::net::IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.invalid_text(&at.child("externalIPs").index(index), text, why);
        }
    }
    if let Some(old) = old {
        immutable(spec, doc::get(old, "spec"), &at, causes);
    }
}

fn ports(spec: &Tree, kind: &str, at: &At, causes: &mut Causes) {
    let many = doc::items(spec, "ports").len() > 1;
    let (mut named, mut numbered, mut node) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in doc::items(spec, "ports").iter().enumerate() {
        let at = at.index(index);
        let (name, protocol) = (doc::text(port, "name"), doc::text(port, "protocol"));
        if name.is_empty() && many {
            causes.required(&at.child("name"), "");
        } else if !name.is_empty() {
            names::label(name).iter().for_each(|why| causes.invalid_text(&at.child("name"), name, why));
            if !named.insert(name.to_owned()) {
                causes.duplicate(&at.child("name"), &json!(name));
            }
        }
        let number = doc::int(port, "port").unwrap_or(0);
        names::port(number).iter().for_each(|why| causes.invalid(&at.child("port"), &json!(number), why));
        if !numbered.insert((number, protocol.to_owned())) {
            causes.duplicate(&at, &json!({"port": number, "protocol": protocol}));
        }
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &at, causes);
        match doc::get(port, "targetPort") {
            Tree::Number(target) => {
                let target = target.as_i64().unwrap_or(0);
                names::port(target).iter().for_each(|why| causes.invalid(&at.child("targetPort"), &json!(target), why));
            }
            Tree::String(target) => {
                names::port_name(target)
                    .iter()
                    .for_each(|why| causes.invalid_text(&at.child("targetPort"), target, why));
            }
            _ => {}
        }
        let number = doc::int(port, "nodePort").unwrap_or(0);
        if number != 0 && !matches!(kind, "NodePort" | "LoadBalancer") {
            causes.forbidden(&at.child("nodePort"), &format!("may not be used when `type` is '{kind}'"));
        } else if number != 0 && !node.insert((number, protocol.to_owned())) {
            causes.duplicate(&at.child("nodePort"), &json!(number));
        }
    }
}

/// An address stays while the Service has one.
fn immutable(spec: &Tree, old: &Tree, at: &At, causes: &mut Causes) {
    if doc::text(spec, "type") == "ExternalName" || doc::text(old, "type") == "ExternalName" {
        return;
    }
    let (now, had) = (doc::items(spec, "clusterIPs"), doc::items(old, "clusterIPs"));
    if let (Some(now_first), Some(had_first)) = (now.first(), had.first())
        && now_first != had_first
    {
        causes.invalid(&at.child("clusterIPs").index(0), &json!(now), "may not change once set");
    }
    let (now, had) = (doc::items(spec, "ipFamilies").first(), doc::items(old, "ipFamilies").first());
    if now.zip(had).is_some_and(|(now, had)| now != had) {
        causes.invalid(&at.child("ipFamilies").index(0), &json!(now), "may not change once set");
    }
}
