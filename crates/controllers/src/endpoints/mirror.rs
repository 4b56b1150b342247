//! Slices for Endpoints that a person wrote for a Service without a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::snapshot::gvr_of;
use api::{Key, Object, Plan, Snapshot, Tree};
use base::SmolStr;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::has_selector;
use super::slices::{BY_SERVICE, MANAGED_BY, SERVICE_NAME, Shape, Wanted, reconcile, service_of};
use crate::kit::value::list;
use crate::kit::{keys, op, owner};
use crate::{Controller, Ctx, Watch};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses taken of one subset (`--mirroring-max-endpoints-per-subset`).
const ADDRESSES_PER_SUBSET_MAX: usize = 1000;

pub fn controller() -> Controller {
    Controller {
        name: "endpointslice-mirroring",
        component: "endpoint-slice-mirroring-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Service>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Endpoints>(), indexes: vec![] },
            Watch { gvr: gvr_of::<EndpointSlice>(), indexes: vec![BY_SERVICE] },
        ],
        every_kind: false,
        enqueue: |gvr, old, new, _| {
            if *gvr != gvr_of::<EndpointSlice>() {
                return keys::own(old, new);
            }
            let both = [old, new].into_iter().flatten();
            both.filter(|slice| is_ours(slice)).filter_map(service_of).collect()
        },
        plan,
        workers: 2,
    }
}

fn is_ours(slice: &Object) -> bool {
    slice.header.labels.get(MANAGED_BY).is_some_and(|word| word == MANAGER)
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let slices = snapshot.of::<EndpointSlice>();
    let existing: Vec<Arc<Object>> =
        slices.by(BY_SERVICE.name, &key.to_string()).filter(|slice| is_ours(slice)).cloned().collect();
    let source = snapshot.of::<Endpoints>().get(key).cloned();
    let service = snapshot.of::<Service>().get(key).map(|service| service.tree());
    let source = source.map(|object| (object.tree(), object)).filter(|(tree, object)| {
        let skipped = object.header.labels.get(SKIP).is_some_and(|word| word == "true");
        let elected = tree.pointer("/metadata/annotations").is_some_and(|notes| notes.get(LEADER).is_some());
        !skipped && !elected && object.header.deletion.is_none()
    });
    let manual = service.is_some_and(|service| !has_selector(&service));
    let Some((tree, object)) = source.filter(|_| manual) else {
        return Plan::step(existing.iter().map(|slice| op::delete::<EndpointSlice>(slice)).collect());
    };
    let mut labels = object.header.labels.clone();
    labels.insert(SERVICE_NAME.into(), key.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let shape = Shape { stream: &slices, owner: &object, reference: owner::reference::<Endpoints>(&object), labels };
    Plan::step(reconcile(&shape, wanted(&tree), &existing))
}

fn wanted(endpoints: &Tree) -> BTreeMap<(SmolStr, String), Wanted> {
    let mut groups = BTreeMap::new();
    for subset in list(endpoints, "/subsets") {
        let ports: Vec<Tree> = list(subset, "/ports").iter().map(port).collect();
        let of = |name: &str, ready: bool| list(subset, name).iter().map(move |address| (address, ready));
        let all = of("/addresses", true).chain(of("/notReadyAddresses", false));
        for (address, ready) in all.take(ADDRESSES_PER_SUBSET_MAX) {
            let Some(ip) = address["ip"].as_str() else { continue };
            let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
            let group = groups.entry((family.into(), json!(ports).to_string()));
            group.or_insert_with(|| Wanted::new(ports.clone())).add(ip, endpoint(address, ip, ready));
        }
    }
    groups
}

fn port(port: &Tree) -> Tree {
    let name = port["name"].as_str().unwrap_or_default();
    let mut made = json!({"name": name, "port": port["port"], "protocol": port["protocol"].as_str().unwrap_or("TCP")});
    if let Some(word) = port["appProtocol"].as_str() {
        made["appProtocol"] = json!(word);
    }
    made
}

fn endpoint(address: &Tree, ip: &str, ready: bool) -> Tree {
    let mut made = json!({"addresses": [ip], "conditions": {"ready": ready}});
    for part in ["targetRef", "hostname", "nodeName"] {
        if let Some(value) = address.get(part).filter(|value| !value.is_null()) {
            made[part] = value.clone();
        }
    }
    made
}
