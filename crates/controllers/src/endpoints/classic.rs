//! `v1 Endpoints` of Services with a selector: addresses grouped by the ports they have.

use std::collections::BTreeMap;

use api::snapshot::gvr_of;
use api::{Key, Plan, Snapshot, Tree};
use base::SmolStr;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use serde_json::json;

use super::{Backend, backends, enqueue_pods, has_selector, service_labels};
use crate::kit::value::{merge_diff, text};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

const MANAGED: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Addresses of one Endpoints object; Services beyond need EndpointSlices.
const ADDRESSES_MAX: usize = 1000;

pub fn controller() -> Controller {
    Controller {
        name: "endpoints",
        component: "endpoint-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Service>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Endpoints>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue: |gvr, old, new, snapshot| {
            if *gvr == gvr_of::<Endpoints>() { keys::own(old, new) } else { enqueue_pods(gvr, old, new, snapshot) }
        },
        plan,
        workers: 5,
    }
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let existing = snapshot.of::<Endpoints>().get(key).cloned();
    let services = snapshot.of::<Service>();
    let Some(object) = services.get(key) else {
        let ours = existing.filter(|old| old.header.labels.get(MANAGED.0).is_some_and(|word| word == MANAGED.1));
        return Plan::step(ours.iter().map(|old| op::delete::<Endpoints>(old)).collect());
    };
    let service = object.tree();
    if !has_selector(&service) || object.header.deletion.is_some() {
        return Plan::NOTHING;
    }
    let mut labels = service_labels(object, &service);
    labels.insert(MANAGED.0.into(), MANAGED.1.into());
    let (subsets, over) = subsets(&backends(snapshot, key, &service), family(&service));
    let mut wanted = json!({"metadata": {"labels": labels}, "subsets": subsets});
    if over {
        wanted["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"] = json!("truncated");
    }
    let Some(old) = existing else {
        wanted["apiVersion"] = json!("v1");
        wanted["kind"] = json!("Endpoints");
        wanted["metadata"]["name"] = json!(key.name);
        wanted["metadata"]["namespace"] = json!(key.namespace);
        return Plan::step(vec![op::create::<Endpoints>(&key.namespace, wanted)]);
    };
    let tree = old.tree();
    let mut change = json!({});
    if tree.get("subsets").and_then(Tree::as_array).is_none_or(|before| *before != subsets)
        && !(tree.get("subsets").is_none() && subsets.is_empty())
    {
        change["subsets"] = json!(subsets);
    }
    if let Some(labels) = merge_diff(&json!(old.header.labels), &wanted["metadata"]["labels"]) {
        change["metadata"] = json!({ "labels": labels });
    }
    if change == json!({}) {
        return Plan::NOTHING;
    }
    Plan::step(vec![op::merge::<Endpoints>(&old, change)])
}

fn family(service: &Tree) -> &'static str {
    let first = text(service, "/spec/ipFamilies/0");
    let address = text(service, "/spec/clusterIP");
    if first == "IPv6" || first.is_empty() && address.contains(':') { "IPv6" } else { "IPv4" }
}

/// Ports, and by address whether it is ready and its entry.
type Group = (Vec<Tree>, BTreeMap<SmolStr, (bool, Tree)>);

/// Groups by identical ports; ready and not ready addresses apart, in address order. True where addresses were left out.
fn subsets(backends: &[Backend], family: &str) -> (Vec<Tree>, bool) {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    // Terminating pods are not listed: this API has no word for them, save where not ready ones are published.
    let mut room = ADDRESSES_MAX;
    for backend in backends.iter().filter(|backend| !backend.terminating || backend.ready) {
        let Some(address) = backend.address(family) else { continue };
        let Some(rest) = room.checked_sub(1) else { return (render(groups), true) };
        room = rest;
        let mut entry = json!({"ip": address, "targetRef": backend.target()});
        if !backend.pod.node().is_empty() {
            entry["nodeName"] = json!(backend.pod.node());
        }
        if let Some(hostname) = &backend.hostname {
            entry["hostname"] = json!(hostname);
        }
        let mut ports = backend.ports.clone();
        for port in &mut ports {
            if port["name"] == "" {
                port.as_object_mut().expect("made as an object").remove("name");
            }
        }
        ports.sort_by_key(Tree::to_string);
        let group = groups.entry(json!(ports).to_string()).or_insert_with(|| (ports, BTreeMap::new()));
        group.1.insert(address.into(), (backend.ready, entry));
    }
    (render(groups), false)
}

fn render(groups: BTreeMap<String, Group>) -> Vec<Tree> {
    let subset = |(ports, addresses): Group| {
        let mut made = json!({});
        let of = |wanted: bool| -> Vec<&Tree> {
            addresses.values().filter(|(ready, _)| *ready == wanted).map(|(_, entry)| entry).collect()
        };
        for (name, entries) in [("addresses", of(true)), ("notReadyAddresses", of(false))] {
            if !entries.is_empty() {
                made[name] = json!(entries);
            }
        }
        if !ports.is_empty() {
            made["ports"] = json!(ports);
        }
        made
    };
    groups.into_values().map(subset).collect()
}
