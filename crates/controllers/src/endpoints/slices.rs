//! EndpointSlices of Services with a selector: at most 100 endpoints a slice, each kept in the slice where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::snapshot::gvr_of;
use api::{Gvr, Index, Key, Object, Op, Plan, Snapshot, Stream, Tree};
use base::{SmolStr, format_smolstr};
use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::{Backend, backends, enqueue_pods, has_selector, service_labels, zone};
use crate::kit::value::{list, merge_diff, text, words};
use crate::kit::{name, op, owner};
use crate::{Controller, Ctx, Watch};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Endpoints of one slice (`--max-endpoints-per-slice`).
const ENDPOINTS_PER_SLICE_MAX: usize = 100;

/// Slices by `namespace/service`.
pub const BY_SERVICE: Index = Index {
    name: "service",
    words: |object| {
        let service = object.header.labels.get(SERVICE_NAME);
        service.map(|name| format_smolstr!("{}/{name}", object.key.namespace)).into_iter().collect()
    },
};

pub fn controller() -> Controller {
    Controller {
        name: "endpointslice",
        component: "endpoint-slice-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Service>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
            Watch { gvr: gvr_of::<EndpointSlice>(), indexes: vec![BY_SERVICE] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 5,
    }
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<EndpointSlice>() {
        let both = [old, new].into_iter().flatten();
        let ours = both.filter(|slice| slice.header.labels.get(MANAGED_BY).is_some_and(|word| word == MANAGER));
        return ours.filter_map(service_of).collect();
    }
    enqueue_pods(gvr, old, new, snapshot)
}

pub fn service_of(slice: &Object) -> Option<Key> {
    Some(Key { namespace: slice.key.namespace.clone(), name: slice.header.labels.get(SERVICE_NAME)?.clone() })
}

/// Slices of one address family and one set of ports are one group.
type Group = (SmolStr, String);

/// What a group of slices must hold together.
#[derive(Default)]
pub struct Wanted {
    ports: Vec<Tree>,
    /// By address and target: stable under reordering.
    endpoints: BTreeMap<(SmolStr, SmolStr), Tree>,
}

/// What all slices of one owner share.
pub struct Shape<'a> {
    /// All slices there are.
    pub stream: &'a Stream,
    pub owner: &'a Object,
    pub reference: Tree,
    pub labels: BTreeMap<SmolStr, SmolStr>,
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let slices = snapshot.of::<EndpointSlice>();
    let found = slices.by(BY_SERVICE.name, &key.to_string()).cloned().collect::<Vec<_>>();
    let ours = |slice: &Arc<Object>| slice.header.labels.get(MANAGED_BY).is_some_and(|word| word == MANAGER);
    let existing: Vec<Arc<Object>> = found.into_iter().filter(ours).collect();
    let services = snapshot.of::<Service>();
    let Some(object) = services.get(key) else {
        return Plan::step(existing.iter().map(|slice| op::delete::<EndpointSlice>(slice)).collect());
    };
    let service = object.tree();
    if !has_selector(&service) || object.header.deletion.is_some() {
        return Plan::NOTHING;
    }
    let mut labels = service_labels(object, &service);
    labels.insert(SERVICE_NAME.into(), key.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let shape = Shape { stream: &slices, owner: object, reference: owner::reference::<Service>(object), labels };
    let wanted = wanted(snapshot, key, &service);
    Plan::step(reconcile(&shape, wanted, &existing))
}

fn families(service: &Tree) -> Vec<SmolStr> {
    let families = words(list(service, "/spec/ipFamilies"));
    if !families.is_empty() {
        return families;
    }
    let v6 = text(service, "/spec/clusterIP").contains(':');
    vec![if v6 { "IPv6".into() } else { "IPv4".into() }]
}

fn wanted(snapshot: &Snapshot, key: &Key, service: &Tree) -> BTreeMap<Group, Wanted> {
    let backends = backends(snapshot, key, service);
    let mut groups: BTreeMap<Group, Wanted> = BTreeMap::new();
    for family in families(service) {
        for backend in &backends {
            let Some(address) = backend.address(&family) else { continue };
            let endpoint = endpoint(snapshot, backend, address);
            let group = groups.entry((family.clone(), json!(backend.ports).to_string())).or_default();
            group.ports.clone_from(&backend.ports);
            group.endpoints.insert((address.into(), backend.pod.object.header.uid.clone()), endpoint);
        }
        // A Service without endpoints has one empty slice, so that "none" is known from "not yet".
        if !groups.keys().any(|(known, _)| *known == family) {
            groups.insert((family.clone(), "[]".to_owned()), Wanted::default());
        }
    }
    groups
}

fn endpoint(snapshot: &Snapshot, backend: &Backend, address: &str) -> Tree {
    let mut made = json!({
        "addresses": [address],
        "conditions": {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating},
        "targetRef": backend.target(),
    });
    let node = backend.pod.node();
    if !node.is_empty() {
        made["nodeName"] = json!(node);
        if let Some(zone) = zone(snapshot, node) {
            made["zone"] = json!(zone);
        }
    }
    if let Some(hostname) = &backend.hostname {
        made["hostname"] = json!(hostname);
    }
    made
}

impl Wanted {
    pub fn new(ports: Vec<Tree>) -> Wanted {
        Wanted { ports, endpoints: BTreeMap::new() }
    }

    pub fn add(&mut self, address: &str, endpoint: Tree) {
        let target = text(&endpoint, "/targetRef/uid").into();
        self.endpoints.insert((address.into(), target), endpoint);
    }
}

fn identity(endpoint: &Tree) -> (SmolStr, SmolStr) {
    (text(endpoint, "/addresses/0").into(), text(endpoint, "/targetRef/uid").into())
}

/// Keeps endpoints in their slices, drops what is not wanted, fills free room, makes new slices for the rest and
/// deletes slices that nothing needs.
pub fn reconcile(shape: &Shape<'_>, wanted: BTreeMap<Group, Wanted>, existing: &[Arc<Object>]) -> Vec<Op> {
    let mut ops = vec![];
    let mut used: BTreeSet<&Key> = BTreeSet::new();
    let salt = name::salt(shape.stream, shape.owner, existing.iter().map(|slice| &**slice));
    let mut ordinal = 0;
    for ((family, _), mut group) in wanted {
        let mine: Vec<(&Arc<Object>, Tree)> = existing
            .iter()
            .map(|slice| (slice, slice.tree()))
            .filter(|(slice, tree)| slice.header.deletion.is_none() && tree["addressType"] == family.as_str())
            .filter(|(slice, tree)| !used.contains(&slice.key) && same_ports(tree, &group.ports))
            .collect();
        let mut fills: Vec<(&Arc<Object>, Tree, Vec<Tree>)> = vec![];
        for (slice, tree) in mine {
            let kept =
                list(&tree, "/endpoints").iter().filter_map(|old| group.endpoints.remove(&identity(old))).collect();
            fills.push((slice, tree, kept));
        }
        let mut fresh = group.endpoints.into_values().collect::<Vec<_>>().into_iter().peekable();
        for (_, _, kept) in &mut fills {
            // Fill only slices that change or hold something: an emptied slice is deleted instead.
            while kept.len() < ENDPOINTS_PER_SLICE_MAX && fresh.peek().is_some() {
                kept.extend(fresh.next());
            }
        }
        let any = fills.iter().any(|(_, _, kept)| !kept.is_empty());
        let mut placeholder = !any && fresh.peek().is_none();
        for (slice, tree, kept) in fills {
            if kept.is_empty() && !std::mem::take(&mut placeholder) {
                continue;
            }
            used.insert(&slice.key);
            ops.extend(change(shape, slice, &tree, &kept));
        }
        while fresh.peek().is_some() || std::mem::take(&mut placeholder) {
            let endpoints: Vec<Tree> = fresh.by_ref().take(ENDPOINTS_PER_SLICE_MAX).collect();
            ops.push(make(shape, &family, &group.ports, endpoints, salt, ordinal));
            ordinal += 1;
        }
    }
    let idle = existing.iter().filter(|slice| !used.contains(&slice.key) && slice.header.deletion.is_none());
    ops.extend(idle.map(|slice| op::delete::<EndpointSlice>(slice)));
    ops
}

fn same_ports(tree: &Tree, ports: &[Tree]) -> bool {
    list(tree, "/ports") == ports
}

fn change(shape: &Shape<'_>, slice: &Object, tree: &Tree, endpoints: &[Tree]) -> Option<Op> {
    let mut body = json!({});
    if list(tree, "/endpoints") != endpoints {
        body["endpoints"] = json!(endpoints);
    }
    if let Some(labels) = merge_diff(&json!(slice.header.labels), &json!(shape.labels)) {
        body["metadata"] = json!({ "labels": labels });
    }
    (body != json!({})).then(|| op::merge::<EndpointSlice>(slice, body))
}

fn make(shape: &Shape<'_>, family: &str, ports: &[Tree], endpoints: Vec<Tree>, salt: u64, ordinal: usize) -> Op {
    let base = format!("{}-", shape.owner.key.name);
    let name = name::child(&base, &shape.owner.header.uid, salt, &format!("{family}{ordinal}"));
    let namespace = &shape.owner.key.namespace;
    let object = json!({
        "apiVersion": EndpointSlice::API_VERSION, "kind": EndpointSlice::KIND, "addressType": family,
        "metadata": {
            "name": name, "generateName": base, "namespace": namespace, "labels": shape.labels,
            "ownerReferences": [shape.reference],
        },
        "endpoints": endpoints, "ports": ports,
    });
    op::create::<EndpointSlice>(namespace, object)
}
