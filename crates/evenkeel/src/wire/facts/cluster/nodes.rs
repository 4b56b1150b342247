//! Nodes: their state, by what they reported last.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use keeper::wrong::{Name, Role, State, What};
use serde_json::Value;

use super::super::reach::Target;
use super::{Lists, condition, list_at, number, socket, text, time};

/// A lease is renewed every ten seconds; after two that did not come, a node is silent.
const LEASE_AGE_MAX: SignedDuration = SignedDuration::from_secs(22);
/// Routes to a node that is ready are there after this.
const SETTLED: SignedDuration = SignedDuration::from_secs(60);
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
const KUBELET_PORT: u32 = 10_250;

pub fn facts(lists: &Lists, now: Timestamp) -> Vec<(Name, What)> {
    lists.nodes.items.iter().map(|node| (text(node, "/metadata/name").into(), fact(node, lists, now))).collect()
}

fn fact(node: &Value, lists: &Lists, now: Timestamp) -> What {
    let name = text(node, "/metadata/name");
    let lease = lists.leases.items.iter().find(|lease| text(lease, "/metadata/name") == name);
    let renewed = lease.and_then(|lease| time(lease, "/spec/renewTime"));
    let ready = condition(node, "Ready");
    let status = ready.map_or("Unknown", |ready| text(ready, "/status"));
    let late = renewed.is_some_and(|at| LEASE_AGE_MAX < now.duration_since(at));
    let state = match status {
        _ if late => State::Silent,
        "True" => State::Ready,
        "False" => State::NotReady,
        _ => State::Silent,
    };
    let said = ready.map_or("it has not reported", |ready| text(ready, "/message"));
    let since = ready.and_then(|ready| time(ready, "/lastTransitionTime"));
    let pressures = list_at(node, "/status/conditions");
    let pressures = pressures.filter(|one| text(one, "/type").ends_with("Pressure") && one["status"] == "True");
    What::Node {
        role: role(node),
        state,
        since: if state == State::Silent { renewed.or(since) } else { since },
        why: if state == State::Silent { "its reports stopped".to_owned() } else { said.to_owned() },
        version: text(node, "/status/nodeInfo/kubeletVersion").to_owned(),
        cordoned: node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)),
        pressures: pressures.map(|one| text(one, "/type").to_owned()).collect(),
    }
}

fn role(node: &Value) -> Role {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    if labels.is_some_and(|labels| labels.contains_key(CONTROL_PLANE)) { Role::Server } else { Role::Agent }
}

/// Where a node's doors are.
pub fn target(node: &Value, api_port: u16, now: Timestamp) -> Option<Target> {
    let addresses = list_at(node, "/status/addresses").filter(|one| one["type"] == "InternalIP");
    let address: IpAddr = addresses.filter_map(|one| text(one, "/address").parse().ok()).next()?;
    let port = number(node, "/status/daemonEndpoints/kubeletEndpoint/Port").filter(|port| *port != 0);
    let port = u16::try_from(port.unwrap_or(KUBELET_PORT)).ok()?;
    Some(Target {
        node: text(node, "/metadata/name").into(),
        api: (role(node) == Role::Server).then(|| socket(address, api_port)),
        agent: Some(socket(address, port)),
        ranges: if is_settled(node, now) { ranges(node) } else { Vec::new() },
    })
}

/// Ready for so long that everybody has heard of it.
fn is_settled(node: &Value, now: Timestamp) -> bool {
    let ready = condition(node, "Ready").filter(|ready| ready["status"] == "True");
    ready.and_then(|ready| time(ready, "/lastTransitionTime")).is_some_and(|at| SETTLED < now.duration_since(at))
}

fn ranges(node: &Value) -> Vec<IpNet> {
    list_at(node, "/spec/podCIDRs").filter_map(|range| range.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{SETTLED, fact, target};
    use crate::wire::facts::cluster::{List, Lists};
    use jiff::Timestamp;
    use keeper::wrong::{State, What};
    use serde_json::{Value, json};

    fn node(status: &str) -> Value {
        json!({
            "metadata": {"name": "a", "labels": {"node-role.kubernetes.io/control-plane": "true"}},
            "status": {
                "conditions": [
                    {"type": "Ready", "status": status, "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "DiskPressure", "status": "True"},
                ],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            },
        })
    }

    #[test]
    fn a_lease_that_is_late_says_more_than_the_condition() {
        let lease = json!({"metadata": {"name": "a"}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
        let lists = Lists { leases: List { items: vec![lease], ..List::default() }, ..Lists::default() };
        let state = |status: &str, at: &str| {
            let at: Timestamp = at.parse().unwrap();
            match fact(&node(status), &lists, at) {
                What::Node { state, pressures, .. } => (state, pressures.len()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(state("True", "2026-01-01T00:00:09Z"), (State::Ready, 1));
        assert_eq!(state("True", "2026-01-01T00:00:29Z"), (State::Silent, 1));
        assert_eq!(state("False", "2026-01-01T00:00:09Z"), (State::NotReady, 1));
    }

    #[test]
    fn a_server_has_two_doors() {
        let now: Timestamp = "2026-01-01T00:00:30Z".parse().unwrap();
        let mut node = node("True");
        node["spec"] = json!({"podCIDRs": ["10.42.1.0/24"]});
        let found = target(&node, 6443, now).unwrap();
        assert_eq!(found.api.unwrap().to_string(), "10.0.0.1:6443");
        assert_eq!((found.agent.unwrap().port(), found.ranges.len()), (10_250, 0));
        let later = target(&node, 6443, now + SETTLED).unwrap();
        assert_eq!(later.ranges, ["10.42.1.0/24".parse().unwrap()]);
    }
}
