//! Containers: names, images, ports, environment, mounts, resources, probes.

use std::collections::BTreeSet;

use api::Tree;
use serde_json::json;

use super::pod::one_of;
use super::{resources, security};
use crate::causes::{At, Causes};
use crate::{doc, names};

/// All containers of a pod spec; names are unique over the lists.
pub(super) fn lists(spec: &Tree, volumes: &BTreeSet<String>, at: &At, causes: &mut Causes) {
    if doc::items(spec, "containers").is_empty() {
        causes.required(&at.child("containers"), "");
    }
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (index, one) in doc::items(spec, list).iter().enumerate() {
            let at = at.child(list).index(index);
            let name = doc::text(one, "name");
            if name.is_empty() {
                causes.required(&at.child("name"), "");
            } else if !names::label(name).is_empty() {
                names::label(name).iter().for_each(|why| causes.invalid_text(&at.child("name"), name, why));
            } else if !seen.insert(name.to_owned()) {
                causes.duplicate(&at.child("name"), &json!(name));
            }
            container(one, list, volumes, &at, causes);
            ports(one, list, &mut host_ports, &at.child("ports"), causes);
        }
    }
}

fn container(one: &Tree, list: &str, volumes: &BTreeSet<String>, at: &At, causes: &mut Causes) {
    let image = doc::text(one, "image");
    if image.is_empty() {
        causes.required(&at.child("image"), "");
    } else if image.trim() != image {
        causes.invalid_text(&at.child("image"), image, "must not have leading or trailing whitespace");
    }
    one_of(one, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], at, causes);
    one_of(one, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], at, causes);
    if list == "containers" && doc::has(one, "restartPolicy") && !doc::has(one, "restartPolicyRules") {
        one_of(one, "restartPolicy", &["Always", "OnFailure", "Never"], at, causes);
    }
    security::container(one, at, causes);
    environment(one, at, causes);
    mounts(one, volumes, &at.child("volumeMounts"), causes);
    resources::check(doc::get(one, "resources"), &at.child("resources"), causes);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe_tree) = doc::at(one, probe) {
            let at = at.child(probe);
            if list == "initContainers" && doc::text(one, "restartPolicy") != "Always" {
                causes.forbidden(&at, "may not be set for init containers without restartPolicy=Always");
                continue;
            }
            self::probe(probe_tree, probe, &at, causes);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook_tree) = doc::at(one, &format!("lifecycle.{hook}")) {
            handler(hook_tree, &["exec", "httpGet", "tcpSocket", "sleep"], &at.child("lifecycle").child(hook), causes);
        }
    }
}

fn ports(one: &Tree, list: &str, host_ports: &mut BTreeSet<String>, at: &At, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (index, port) in doc::items(one, "ports").iter().enumerate() {
        let at = at.index(index);
        let name = doc::text(port, "name");
        if !name.is_empty() {
            names::port_name(name).iter().for_each(|why| causes.invalid_text(&at.child("name"), name, why));
            if !seen.insert(name.to_owned()) {
                causes.duplicate(&at.child("name"), &json!(name));
            }
        }
        match doc::int(port, "containerPort") {
            None | Some(0) => causes.required(&at.child("containerPort"), ""),
            Some(number) => {
                names::port(number)
                    .iter()
                    .for_each(|why| causes.invalid(&at.child("containerPort"), &json!(number), why));
            }
        }
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &at, causes);
        let Some(host) = doc::int(port, "hostPort").filter(|host| *host != 0) else { continue };
        names::port(host).iter().for_each(|why| causes.invalid(&at.child("hostPort"), &json!(host), why));
        let taken = format!("{}/{}/{host}", doc::text(port, "protocol"), doc::text(port, "hostIP"));
        if list == "containers" && !host_ports.insert(taken.clone()) {
            causes.duplicate(&at.child("hostPort"), &json!(taken));
        }
    }
}

fn environment(one: &Tree, at: &At, causes: &mut Causes) {
    for (index, env) in doc::items(one, "env").iter().enumerate() {
        let at = at.child("env").index(index);
        let name = doc::text(env, "name");
        if name.is_empty() {
            causes.required(&at.child("name"), "");
        } else {
            names::env_name(name).iter().for_each(|why| causes.invalid_text(&at.child("name"), name, why));
        }
        let Some(from) = doc::at(env, "valueFrom") else { continue };
        let at = at.child("valueFrom");
        if !doc::text(env, "value").is_empty() {
            causes.invalid_text(&at, "", "may not be specified when `value` is not empty");
        }
        match from.as_object().map_or(0, serde_json::Map::len) {
            0 => causes.invalid_text(&at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"),
            1 => {}
            _ => causes.invalid_text(&at, "", "may not have more than one field specified at a time"),
        }
        for reference in ["secretKeyRef", "configMapKeyRef"] {
            if doc::has(from, reference) && doc::text(from, &format!("{reference}.key")).is_empty() {
                causes.required(&at.child(reference).child("key"), "");
            }
        }
    }
    for (index, from) in doc::items(one, "envFrom").iter().enumerate() {
        let sources = ["configMapRef", "secretRef"].iter().filter(|source| doc::has(from, source)).count();
        if sources != 1 {
            let why = "must specify one of: `configMapRef` or `secretRef`";
            causes.invalid_text(&at.child("envFrom").index(index), "", why);
        }
    }
}

fn mounts(one: &Tree, volumes: &BTreeSet<String>, at: &At, causes: &mut Causes) {
    let mut paths = BTreeSet::new();
    for (index, mount) in doc::items(one, "volumeMounts").iter().enumerate() {
        let at = at.index(index);
        let (name, path) = (doc::text(mount, "name"), doc::text(mount, "mountPath"));
        if name.is_empty() {
            causes.required(&at.child("name"), "");
        } else if !volumes.contains(name) {
            causes.not_found(&at.child("name"), name);
        }
        if path.is_empty() {
            causes.required(&at.child("mountPath"), "");
        } else if !paths.insert(path.to_owned()) {
            causes.invalid_text(&at.child("mountPath"), path, "must be unique");
        }
        let sub = doc::text(mount, "subPath");
        if sub.starts_with('/') {
            causes.invalid_text(&at.child("subPath"), sub, "must be a relative path");
        } else if sub.split('/').any(|part| part == "..") {
            causes.invalid_text(&at.child("subPath"), sub, "must not contain '..'");
        }
    }
}

fn probe(probe: &Tree, kind: &str, at: &At, causes: &mut Causes) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], at, causes);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if doc::int(probe, field).is_some_and(|value| value < 0) {
            causes.invalid(&at.child(field), doc::get(probe, field), "must be greater than or equal to 0");
        }
    }
    if kind != "readinessProbe" && doc::int(probe, "successThreshold").is_some_and(|value| value != 1) {
        causes.invalid(&at.child("successThreshold"), doc::get(probe, "successThreshold"), "must be 1");
    }
}

fn handler(tree: &Tree, kinds: &[&str], at: &At, causes: &mut Causes) {
    let given: Vec<&&str> = kinds.iter().filter(|kind| doc::has(tree, kind)).collect();
    match given.as_slice() {
        [] => causes.required(at, "must specify a handler type"),
        [_] => {}
        [_, rest @ ..] => {
            for kind in rest {
                causes.forbidden(&at.child(kind), "may not specify more than 1 handler type");
            }
        }
    }
    if doc::has(tree, "exec") && doc::items(tree, "exec.command").is_empty() {
        causes.required(&at.child("exec").child("command"), "");
    }
    for kind in ["httpGet", "tcpSocket", "grpc"].into_iter().filter(|kind| doc::has(tree, kind)) {
        let at = at.child(kind).child("port");
        match doc::get(doc::get(tree, kind), "port") {
            Tree::Number(number) => {
                let number = number.as_i64().unwrap_or(0);
                names::port(number).iter().for_each(|why| causes.invalid(&at, &json!(number), why));
            }
            Tree::String(name) => names::port_name(name).iter().for_each(|why| causes.invalid_text(&at, name, why)),
            _ => causes.required(&at, ""),
        }
    }
}
