//! Nodes that stop renewing their lease become `Unknown`; conditions become taints; pods of lost nodes are not ready.

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Op, PatchType, Plan, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use crate::kit::condition::find;
use crate::kit::keys::{self, NODE};
use crate::kit::op;
use crate::kit::pod::PodRef;
use crate::kit::value::{flag, list, text, time, time_at};
use crate::node::lost;
use crate::{Controller, Ctx, Watch};

const LEASES: &str = "kube-node-lease";
const KUBELET_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Why a pod is not ready any more, in its condition, and that its node is not, in an event.
pub const NODE_NOT_READY: &str = "NodeNotReady";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status that hurts, and its taint.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

pub fn controller() -> Controller {
    Controller {
        name: "node-lifecycle",
        component: "node-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Lease>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![NODE] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 4,
    }
}

/// A renewed lease is no reason to look: the plan knows when the present one would expire. A pod is looked at when it
/// arrives on its node, for it may arrive late.
fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<Node>() {
        return keys::own(old, new);
    }
    let Some(object) = new.or(old) else { return vec![] };
    if *gvr == gvr_of::<Lease>() {
        let key = keys::cluster(&object.key.name);
        let lost = || snapshot.of::<Node>().get(&key).is_some_and(|node| ready_status(&node.tree()) != "True");
        let ours = object.key.namespace == LEASES && (old.is_none() || lost());
        return if ours { vec![key] } else { vec![] };
    }
    if *gvr == gvr_of::<Pod>() && new.is_some() {
        let bound = |pod: &Object| crate::kit::pod::node_name(pod);
        let node = new.map(bound).unwrap_or_default();
        let arrived = !node.is_empty() && old.map(bound).unwrap_or_default() != node;
        return if arrived { vec![keys::cluster(&node)] } else { vec![] };
    }
    vec![]
}

fn ready_status(node: &Tree) -> String {
    find(list(node, "/status/conditions"), "Ready").map_or("", |ready| text(ready, "/status")).to_owned()
}

fn plan(ctx: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let nodes = snapshot.of::<Node>();
    let Some(node) = nodes.get(key) else { return Plan::NOTHING };
    let tree = node.tree();
    let sign = last_sign(ctx, snapshot, node, &tree);
    // What the servers saw last counts, unless the node showed itself since.
    let given_up = lost::since(&tree).filter(|since| sign <= *since);
    let expires = given_up.unwrap_or(sign + ctx.config.node_grace);
    let mut conditions = list(&tree, "/status/conditions").to_vec();
    let mut ops: Vec<Op> = vec![];
    let mut events = vec![];
    if expires <= now {
        let changed = mark_unknown(&mut conditions, now);
        if !changed.is_empty() {
            if ready_status(&tree) == "True" {
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                events.push(op::event::<Node>(node, NODE_NOT_READY, message));
            }
            // A node that reports in this moment is not overruled.
            let (body, when) = (json!({"status": {"conditions": changed}}), op::same_version(node));
            ops.push(op::patch(&gvr_of::<Node>(), node, Some("status"), PatchType::Strategic, body, when));
        }
    }
    let ready = find(&conditions, "Ready").map_or("Unknown", |ready| text(ready, "/status")).to_owned();
    ops.extend(taint(node, &tree, &conditions, &ready, now));
    if ready != "True" {
        ops.extend(pods_not_ready(snapshot, key, now));
    }
    let plan = Plan::step(ops).then(events);
    if expires > now { plan.again_at(expires) } else { plan }
}

/// When the node last showed that it lives.
fn last_sign(ctx: &Ctx, snapshot: &Snapshot, node: &Object, tree: &Tree) -> Timestamp {
    let lease = snapshot.of::<Lease>().typed::<Lease>(&Key::new(LEASES, &node.key.name));
    let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
    let ready = find(list(tree, "/status/conditions"), "Ready");
    let heartbeat = ready.filter(|ready| text(ready, "/status") != "Unknown");
    let heartbeat = heartbeat.and_then(|ready| time_at(ready, "/lastHeartbeatTime"));
    let signs = [renewed, heartbeat, node.header.created, Some(ctx.started)];
    signs.into_iter().flatten().max().unwrap_or(ctx.started)
}

/// Sets what the node agent reports to `Unknown`; answers what changed.
fn mark_unknown(conditions: &mut Vec<Tree>, now: Timestamp) -> Vec<Tree> {
    let mut changed = vec![];
    for name in KUBELET_CONDITIONS {
        let before = find(conditions, name).cloned();
        if before.as_ref().is_some_and(|before| text(before, "/status") == "Unknown") {
            continue;
        }
        let (reason, message) = match before {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let made = json!({
            "type": name, "status": "Unknown", "reason": reason, "message": message,
            "lastTransitionTime": time(now),
        });
        conditions.retain(|condition| text(condition, "/type") != name);
        conditions.push(made.clone());
        changed.push(made);
    }
    changed
}

/// The taints that follow from conditions; others are left as they are.
fn taint(node: &Object, tree: &Tree, conditions: &[Tree], ready: &str, now: Timestamp) -> Option<Op> {
    let mut wanted: Vec<(&str, &str)> = vec![];
    match ready {
        "True" => {}
        "False" => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        _ => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    let pressing = |name: &str| find(conditions, name).is_some_and(|condition| text(condition, "/status") == "True");
    wanted.extend(PRESSURES.iter().filter(|(name, _)| pressing(name)).map(|(_, taint)| (*taint, "NoSchedule")));
    if flag(tree, "/spec/unschedulable") {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Tree| {
        let key = text(taint, "/key");
        let known = [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, t)| *t == key);
        known && text(taint, "/effect") != "PreferNoSchedule"
    };
    let before = list(tree, "/spec/taints");
    let same =
        |taint: &Tree, (key, effect): (&str, &str)| text(taint, "/key") == key && text(taint, "/effect") == effect;
    let mut taints: Vec<Tree> =
        before.iter().filter(|taint| !ours(taint) || wanted.iter().any(|one| same(taint, *one))).cloned().collect();
    for one in wanted {
        if !taints.iter().any(|taint| same(taint, one)) {
            taints.push(json!({"key": one.0, "effect": one.1, "timeAdded": time(now)}));
        }
    }
    let taints_after = if taints.is_empty() { Tree::Null } else { json!(taints) };
    (taints != before)
        .then(|| op::merge_if_unchanged(&gvr_of::<Node>(), node, json!({"spec": {"taints": taints_after}})))
}

/// Nobody on a lost node says that its pods are not ready any more; this does.
fn pods_not_ready(snapshot: &Snapshot, key: &Key, now: Timestamp) -> Vec<Op> {
    let pods = snapshot.of::<Pod>();
    let ready = pods.by(NODE.name, &key.name).filter_map(PodRef::of).filter(PodRef::ready).collect::<Vec<_>>();
    let tell = |pod: &PodRef| {
        let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": time(now), "reason": NODE_NOT_READY,
                               "message": "The node of this pod is not ready."});
        op::strategic::<Pod>(&pod.object, Some("status"), json!({"status": {"conditions": [condition]}}))
    };
    ready.iter().map(tell).collect()
}
