//! Services of type LoadBalancer get the addresses of the nodes, on which the service rules answer.

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Plan, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use serde_json::json;
use std::collections::BTreeSet;

use crate::kit::condition::is_true;
use crate::kit::value::{list, text, words};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Addresses told by one Service.
const ADDRESSES_MAX: usize = 32;

pub fn controller() -> Controller {
    Controller {
        name: "service-load-balancer",
        component: "service-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Service>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 2,
    }
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<Service>() {
        return keys::own(old, new);
    }
    // Heartbeats change a node often; only its addresses and readiness matter here.
    let facts = |node: &Object| usable(node);
    if old.map(facts) == new.map(facts) {
        return vec![];
    }
    let services = snapshot.of::<Service>();
    services.iter().filter(|service| wants_address(&service.tree())).map(|service| service.key.clone()).collect()
}

fn wants_address(service: &Tree) -> bool {
    text(service, "/spec/type") == "LoadBalancer" && text(service, "/spec/loadBalancerClass").is_empty()
}

/// External addresses of a ready node, or else its internal ones.
fn usable(node: &Object) -> Vec<String> {
    let tree = node.tree();
    let ready = is_true(list(&tree, "/status/conditions"), "Ready");
    if !ready || node.header.labels.contains_key(EXCLUDE) || node.header.deletion.is_some() {
        return vec![];
    }
    let of = |kind: &str| -> Vec<String> {
        let addresses = list(&tree, "/status/addresses").iter().filter(|address| text(address, "/type") == kind);
        addresses.map(|address| text(address, "/address").to_owned()).collect()
    };
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let services = snapshot.of::<Service>();
    let Some(service) = services.get(key) else { return Plan::NOTHING };
    let tree = service.tree();
    if !text(&tree, "/spec/loadBalancerClass").is_empty() {
        return Plan::NOTHING;
    }
    let told = list(&tree, "/status/loadBalancer/ingress");
    let mut addresses = vec![];
    if wants_address(&tree) && service.header.deletion.is_none() {
        let families = words(list(&tree, "/spec/ipFamilies"));
        let wanted = |address: &String| {
            let family = if address.contains(':') { "IPv6" } else { "IPv4" };
            families.is_empty() || families.iter().any(|known| known == family)
        };
        let nodes = snapshot.of::<Node>();
        let all: BTreeSet<String> = nodes.iter().flat_map(|node| usable(node)).filter(wanted).collect();
        addresses.extend(all.into_iter().take(ADDRESSES_MAX).map(|address| json!({"ip": address, "ipMode": "VIP"})));
    }
    if addresses == told {
        return Plan::NOTHING;
    }
    let mut status = tree.get("status").cloned().unwrap_or_else(|| json!({}));
    status["loadBalancer"] = if addresses.is_empty() { json!({}) } else { json!({ "ingress": addresses }) };
    let event = op::event::<Service>(service, "EnsuredLoadBalancer", "Ensured load balancer");
    let events = if addresses.is_empty() { vec![] } else { vec![event] };
    Plan::step(op::status::<Service>(service, &tree, &status).into_iter().collect()).then(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn addresses_of_ready_nodes_and_no_others() {
        let mut world = World::new(&["service-load-balancer"]);
        for (name, ready) in [("n1", "True"), ("n2", "False")] {
            world.put(json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{}", &name[1..])}],
                           "conditions": [{"type": "Ready", "status": ready}]},
            }));
        }
        world.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "a"}, "spec": {"type": "LoadBalancer"}}));
        world.converge();
        let told = |world: &World| world.get("v1", "Service", "a/s")["status"]["loadBalancer"].clone();
        assert_eq!(told(&world), json!({"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}));
        world.edit("v1", "Service", "a/s", json!({"spec": {"type": "ClusterIP"}}));
        world.converge();
        assert_eq!(told(&world), json!({}));
    }
}
