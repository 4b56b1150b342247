//! Pods, and the pod templates in other kinds.

use std::collections::BTreeSet;

use api::Tree;
use serde_json::json;

use super::{affinity, container, pod_update, security};
use crate::causes::{At, Causes};
use crate::context::Cx;
use crate::{doc, names};

pub(super) fn object(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let at = At::of("spec");
    match old {
        None => {
            if !doc::items(tree, "spec.ephemeralContainers").is_empty() {
                causes.forbidden(&at.child("ephemeralContainers"), "cannot be set on create");
            }
            spec(doc::get(tree, "spec"), &at, causes);
        }
        Some(old) => pod_update::check(cx.sub(), tree, old, causes),
    }
}

/// `/proc` unmasked shows the host's, unless the pod has users of its own.
fn unmasked(spec: &Tree, at: &At, causes: &mut Causes) {
    if doc::get(spec, "hostUsers").as_bool() == Some(false) {
        return;
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (index, one) in doc::items(spec, list).iter().enumerate() {
            if doc::text(one, "securityContext.procMount") == "Unmasked" {
                let at = at.child(list).index(index).child("securityContext").child("procMount");
                causes.invalid_text(&at, "Unmasked", "`hostUsers` must be false to use `Unmasked`");
            }
        }
    }
}

/// A pod spec that brings all its volumes along.
pub(super) fn spec(spec: &Tree, at: &At, causes: &mut Causes) {
    spec_with(spec, &[], at, causes);
}

/// A pod spec wherever it stands. `claims` names the volumes that its owner adds to each pod.
pub(super) fn spec_with(spec: &Tree, claims: &[&str], at: &At, causes: &mut Causes) {
    let mut volumes = volumes(spec, &at.child("volumes"), causes);
    volumes.extend(claims.iter().copied().map(str::to_owned));
    container::lists(spec, &volumes, at, causes);
    enums(spec, at, causes);
    unmasked(spec, at, causes);
    if doc::int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let value = doc::get(spec, "terminationGracePeriodSeconds");
        causes.invalid(&at.child("terminationGracePeriodSeconds"), value, "must be greater than or equal to 0");
    }
    if doc::int(spec, "activeDeadlineSeconds").is_some_and(|seconds| seconds < 1) {
        let value = doc::get(spec, "activeDeadlineSeconds");
        causes.invalid(&at.child("activeDeadlineSeconds"), value, "must be between 1 and 2147483647, inclusive");
    }
    for (field, rule) in [
        ("serviceAccountName", names::subdomain as fn(&str) -> names::Wrong),
        ("nodeName", names::subdomain),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
    ] {
        let text = doc::text(spec, field);
        if !text.is_empty() {
            rule(text).iter().for_each(|why| causes.invalid_text(&at.child(field), text, why));
        }
    }
    crate::meta::labels(doc::get(spec, "nodeSelector"), &at.child("nodeSelector"), causes);
    if doc::is_true(spec, "hostPID") && doc::is_true(spec, "shareProcessNamespace") {
        let at = at.child("shareProcessNamespace");
        causes.invalid(&at, &json!(true), "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    tolerations(spec, &at.child("tolerations"), causes);
    affinity::check(spec, at, causes);
    security::pod(spec, at, causes);
    dns(spec, &at.child("dnsConfig"), causes);
    spread(spec, &at.child("topologySpreadConstraints"), causes);
    aliases(spec, &at.child("hostAliases"), causes);
}

fn enums(spec: &Tree, at: &At, causes: &mut Causes) {
    let all: [(&str, &[&str]); 3] = [
        ("restartPolicy", &["Always", "OnFailure", "Never"]),
        ("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
        ("preemptionPolicy", &["PreemptLowerPriority", "Never"]),
    ];
    for (field, supported) in all {
        one_of(spec, field, supported, at, causes);
    }
    if doc::text(spec, "dnsPolicy") == "None" && doc::items(spec, "dnsConfig.nameservers").is_empty() {
        let at = at.child("dnsConfig").child("nameservers");
        causes.required(&at, "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
}

/// Upstream's bounds of a pod's own names.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

fn dns(spec: &Tree, at: &At, causes: &mut Causes) {
    let Some(config) = doc::at(spec, "dnsConfig") else { return };
    let servers = doc::items(config, "nameservers");
    if servers.len() > NAMESERVERS_MAX {
        let why = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        causes.invalid(&at.child("nameservers"), &json!(servers), &why);
    }
    for (index, server) in servers.iter().enumerate() {
        let text = server.as_str().unwrap_or_default();
        if text.parse::<std::net::IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.invalid_text(&at.child("nameservers").index(index), text, why);
        }
    }
    let searches = doc::items(config, "searches");
    if searches.len() > SEARCHES_MAX {
        let why = format!("must not have more than {SEARCHES_MAX} search paths");
        causes.invalid(&at.child("searches"), &json!(searches), &why);
    }
    for (index, option) in doc::items(config, "options").iter().enumerate() {
        if doc::text(option, "name").is_empty() {
            causes.required(&at.child("options").index(index), "must not be empty");
        }
    }
}

pub(super) fn one_of(tree: &Tree, field: &str, supported: &[&str], at: &At, causes: &mut Causes) {
    let value = doc::get(tree, field);
    if !value.is_null() && !value.as_str().is_some_and(|word| supported.contains(&word)) {
        causes.not_supported(&at.child(field), value, supported);
    }
}

/// Checks volumes; returns their names, for mounts to refer to.
fn volumes(spec: &Tree, at: &At, causes: &mut Causes) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, volume) in doc::items(spec, "volumes").iter().enumerate() {
        let at = at.index(index);
        let name = doc::text(volume, "name");
        if name.is_empty() {
            causes.required(&at.child("name"), "");
        } else if !names::label(name).is_empty() {
            names::label(name).iter().for_each(|why| causes.invalid_text(&at.child("name"), name, why));
        } else if !names.insert(name.to_owned()) {
            causes.duplicate(&at.child("name"), &json!(name));
        }
        let sources = volume.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let sources: Vec<&str> = sources.filter(|source| *source != "name").collect();
        match sources.as_slice() {
            [] => causes.required(&at, "must specify a volume type"),
            [source] => self::source(source, doc::get(volume, source), &at.child(source), causes),
            [_, rest @ ..] => {
                for source in rest {
                    causes.forbidden(&at.child(source), "may not specify more than 1 volume type");
                }
            }
        }
    }
    names
}

fn source(kind: &str, source: &Tree, at: &At, causes: &mut Causes) {
    let required: &[&str] = match kind {
        "secret" => &["secretName"],
        "configMap" => &["name"],
        "hostPath" => &["path"],
        "persistentVolumeClaim" => &["claimName"],
        "nfs" => &["server", "path"],
        "csi" => &["driver"],
        _ => &[],
    };
    for field in required.iter().filter(|field| doc::text(source, field).is_empty()) {
        causes.required(&at.child(field), "");
    }
    for list in ["items"] {
        for (index, item) in doc::items(source, list).iter().enumerate() {
            let at = at.child(list).index(index);
            if kind != "downwardAPI" && doc::text(item, "key").is_empty() {
                causes.required(&at.child("key"), "");
            }
            relative_path(doc::text(item, "path"), &at.child("path"), causes);
        }
    }
    if let Some(mode) = doc::int(source, "defaultMode").filter(|mode| !(0..=0o777).contains(mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        causes.invalid(&at.child("defaultMode"), &json!(mode), why);
    }
    if doc::text(source, "path").split('/').any(|part| part == "..") {
        causes.invalid(&at.child("path"), doc::get(source, "path"), "must not contain '..'");
    }
}

fn relative_path(path: &str, at: &At, causes: &mut Causes) {
    if path.is_empty() {
        causes.required(at, "");
    } else if path.starts_with('/') {
        causes.invalid_text(at, path, "must be a relative path");
    } else if path.split('/').any(|part| part == "..") {
        causes.invalid_text(at, path, "must not contain '..'");
    }
}

fn tolerations(spec: &Tree, at: &At, causes: &mut Causes) {
    for (index, toleration) in doc::items(spec, "tolerations").iter().enumerate() {
        let at = at.index(index);
        let (key, operator) = (doc::text(toleration, "key"), doc::text(toleration, "operator"));
        if !key.is_empty() {
            names::qualified(key).iter().for_each(|why| causes.invalid_text(&at.child("key"), key, why));
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            causes.invalid_text(&at.child("operator"), operator, why);
        }
        if operator == "Exists" && !doc::text(toleration, "value").is_empty() {
            let why = "value must be empty when `operator` is 'Exists'";
            causes.invalid(&at.child("operator"), toleration, why);
        }
        let effect = doc::text(toleration, "effect");
        if doc::has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            causes.invalid_text(&at.child("effect"), effect, why);
        }
        if !effect.is_empty() {
            one_of(toleration, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], &at, causes);
        }
        if !operator.is_empty() {
            one_of(toleration, "operator", &["Equal", "Exists", "Lt", "Gt"], &at, causes);
        }
    }
}

fn spread(spec: &Tree, at: &At, causes: &mut Causes) {
    for (index, constraint) in doc::items(spec, "topologySpreadConstraints").iter().enumerate() {
        let at = at.index(index);
        if doc::int(constraint, "maxSkew").unwrap_or(0) < 1 {
            causes.invalid(&at.child("maxSkew"), doc::get(constraint, "maxSkew"), "must be greater than zero");
        }
        if doc::text(constraint, "topologyKey").is_empty() {
            causes.required(&at.child("topologyKey"), "can not be empty");
        }
        one_of(constraint, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], &at, causes);
    }
}

fn aliases(spec: &Tree, at: &At, causes: &mut Causes) {
    for (index, alias) in doc::items(spec, "hostAliases").iter().enumerate() {
        let ip = doc::text(alias, "ip");
        if ip.parse::<std::net::IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.invalid_text(&at.index(index).child("ip"), ip, why);
        }
    }
}
