//! What goes when its time has come: finished Jobs with a time to live, events, pods nobody will end.

use std::collections::BTreeMap;
use std::sync::Mutex;

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Op, Plan, Propagation, Snapshot};
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use serde_json::json;

use crate::kit::condition::{find, is_true};
use crate::kit::keys::{self, NODE};
use crate::kit::op;
use crate::kit::pod::PodRef;
use crate::kit::value::{int, list, time, time_at};
use crate::node::lifecycle::NODE_NOT_READY;
use crate::{Controller, Ctx, Watch};

/// So long a node that was ready must be missed before its pods go (upstream: `quarantineTime`): nodes and pods come by
/// different streams, and a Node that somebody deleted comes back while its machine lives.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Long enough for all pods of a node to go.
const MISSED_FOR: SignedDuration = SignedDuration::from_mins(10);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Since when nodes to which pods are bound are missed. Whoever leads the loops begins to count.
#[derive(Debug, Default)]
pub struct Missed(Mutex<BTreeMap<SmolStr, Timestamp>>);

impl Missed {
    fn since(&self, node: &str, now: Timestamp) -> Timestamp {
        let mut all = self.0.lock().expect("no holder of this lock panics");
        all.retain(|_, since| now.duration_since(*since) < MISSED_FOR);
        *all.entry(node.into()).or_insert(now)
    }

    fn found(&self, node: &str) {
        self.0.lock().expect("no holder of this lock panics").remove(node);
    }
}

pub fn finished_jobs() -> Controller {
    Controller {
        name: "ttl-after-finished",
        component: "ttl-after-finished-controller",
        watches: vec![Watch { gvr: gvr_of::<Job>(), indexes: vec![] }],
        every_kind: false,
        enqueue: |_, old, new, _| keys::own(old, new),
        plan: plan_job,
        workers: 2,
    }
}

fn plan_job(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let jobs = snapshot.of::<Job>();
    let Some(job) = jobs.get(key).filter(|job| job.header.deletion.is_none()) else { return Plan::NOTHING };
    let tree = job.tree();
    let Some(ttl) = int(&tree, "/spec/ttlSecondsAfterFinished") else { return Plan::NOTHING };
    let conditions = list(&tree, "/status/conditions");
    let end = ["Complete", "Failed"].into_iter().find(|name| is_true(conditions, name));
    let ended = end.and_then(|name| time_at(find(conditions, name)?, "/lastTransitionTime"));
    match ended.map(|at| at + SignedDuration::from_secs(ttl)) {
        None => Plan::NOTHING,
        Some(due) if due > now => Plan::NOTHING.again_at(due),
        Some(_) => Plan::step(vec![op::delete_gvr(&gvr_of::<Job>(), job, Some(Propagation::Foreground))]),
    }
}

pub fn events() -> Controller {
    Controller {
        name: "event-expiry",
        component: "event-expiry-controller",
        watches: vec![Watch { gvr: gvr_of::<Event>(), indexes: vec![] }],
        every_kind: false,
        enqueue: |_, _, new, _| keys::own(None, new),
        plan: plan_event,
        workers: 2,
    }
}

/// An event lives for the time to live after it was last seen.
fn plan_event(ctx: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let events = snapshot.of::<Event>();
    let Some(event) = events.get(key) else { return Plan::NOTHING };
    let tree = event.tree();
    let stamps = ["/lastTimestamp", "/series/lastObservedTime", "/eventTime"];
    let seen = stamps.iter().filter_map(|pointer| time_at(&tree, pointer)).chain(event.header.created).max();
    let due = seen.unwrap_or(now) + ctx.config.event_ttl;
    if due > now {
        return Plan::NOTHING.again_at(due);
    }
    Plan::step(vec![op::delete::<Event>(event)])
}

pub fn pods() -> Controller {
    Controller {
        name: "pod-garbage-collector",
        component: "pod-garbage-collector",
        watches: vec![
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![NODE] },
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue: enqueue_pods,
        plan: plan_pod,
        workers: 2,
    }
}

/// The key that stands for "too many finished pods": no pod has an empty namespace.
fn enqueue_pods(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<Node>() {
        let Some(node) = new.or(old) else { return vec![] };
        let pods = snapshot.of::<Pod>();
        return pods.by(NODE.name, &node.key.name).map(|pod| pod.key.clone()).collect();
    }
    let Some(new) = new else { return vec![] };
    let node = crate::kit::pod::node_name(new);
    let lost = !node.is_empty() && snapshot.of::<Node>().get(&keys::cluster(&node)).is_none();
    let mut keys = if lost || new.header.deletion.is_some() { vec![new.key.clone()] } else { vec![] };
    let finished = |pod: &Object| matches!(pod.tree()["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if finished(new) && !old.is_some_and(finished) {
        keys.extend(keys::single());
    }
    keys
}

fn plan_pod(ctx: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let pods = snapshot.of::<Pod>();
    if key.namespace.is_empty() {
        return surplus(ctx, snapshot);
    }
    let Some(pod) = pods.get(key).and_then(PodRef::of) else { return Plan::NOTHING };
    if pod.node().is_empty() {
        // Nobody runs it, so nobody will end it.
        return if pod.terminating() { Plan::step(vec![force_delete(&pod)]) } else { Plan::NOTHING };
    }
    let nodes = snapshot.of::<Node>();
    let Some(node) = nodes.get(&Key::cluster(pod.node())) else {
        let ripe = ctx.missed.since(pod.node(), now) + QUARANTINE;
        if ripe > now && !given_up_before(&pod) {
            return Plan::NOTHING.again_at(ripe);
        }
        return Plan::step(fail(&pod, "PodGC: node no longer exists", now)).then(vec![force_delete(&pod)]);
    };
    ctx.missed.found(pod.node());
    let tree = node.tree();
    let given_up = list(&tree, "/spec/taints").iter().any(|taint| taint["key"] == OUT_OF_SERVICE);
    let ready = is_true(list(&tree, "/status/conditions"), "Ready");
    if pod.terminating() && given_up && !ready {
        return Plan::step(fail(&pod, "PodGC: node is out of service", now)).then(vec![force_delete(&pod)]);
    }
    Plan::NOTHING
}

/// Its node was lost before it was deleted: nothing comes back.
fn given_up_before(pod: &PodRef) -> bool {
    let conditions = pod.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|ready| ready.reason.as_deref() == Some(NODE_NOT_READY))
}

/// Its containers are lost with the node: say so before the pod goes, for those who count.
fn fail(pod: &PodRef, message: &str, now: Timestamp) -> Vec<Op> {
    if pod.finished() {
        return vec![];
    }
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
        "lastTransitionTime": time(now),
    });
    let body = json!({"status": {"phase": "Failed", "conditions": [condition]}});
    vec![op::strategic::<Pod>(&pod.object, Some("status"), body)]
}

fn force_delete(pod: &PodRef) -> Op {
    let mut delete = op::delete::<Pod>(&pod.object);
    if let Op::Delete { grace_seconds, .. } = &mut delete {
        *grace_seconds = Some(0);
    }
    delete
}

/// The oldest finished pods beyond what may be kept.
fn surplus(ctx: &Ctx, snapshot: &Snapshot) -> Plan {
    let pods = snapshot.of::<Pod>();
    let most = ctx.config.terminated_pods_max;
    if pods.len() <= most {
        return Plan::NOTHING;
    }
    let finished = pods.iter().filter_map(PodRef::of).filter(|pod| pod.finished() && !pod.terminating());
    let mut finished: Vec<PodRef> = finished.collect();
    finished.sort_by_key(|pod| (pod.object.header.created, pod.object.key.clone()));
    let surplus = finished.len().saturating_sub(most);
    Plan::step(finished.iter().take(surplus).map(force_delete).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use crate::{Config, testing};

    #[test]
    fn events_and_finished_jobs_expire() {
        let mut world = World::new(&["event-expiry", "ttl-after-finished"]);
        world.put(json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "a"}}));
        let done = json!([{"type": "Complete", "status": "True", "lastTransitionTime": time(testing::start())}]);
        world.put(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "a"},
            "spec": {"ttlSecondsAfterFinished": 100}, "status": {"conditions": done}}));
        world.pass(101);
        let job = world.get("batch/v1", "Job", "a/j");
        assert_eq!(job["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        assert_eq!(world.list("v1", "Event").len(), 1);
        world.pass(3600);
        assert!(world.list("v1", "Event").is_empty());
    }

    #[test]
    fn pods_of_lost_nodes_and_surplus_pods_go() {
        let config = Config { terminated_pods_max: 2, ..Config::default() };
        let mut world = World::with(config, &["pod-garbage-collector"]);
        world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
        let pod = |name: &str, node: &str, phase: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}})
        };
        world.put(pod("lost", "n9", "Running"));
        let mut before = pod("before", "n9", "Running");
        before["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "reason": NODE_NOT_READY}]);
        world.put(before);
        for name in ["p1", "p2", "p3"] {
            world.put(pod(name, "n1", "Succeeded"));
        }
        world.pass(30);
        let deleted = |world: &World, name: &str| {
            let pod = world.get("v1", "Pod", name);
            pod.is_null() || pod["metadata"].get("deletionTimestamp").is_some()
        };
        assert!(deleted(&world, "a/p1") && !deleted(&world, "a/p2"));
        assert!(deleted(&world, "a/before") && !deleted(&world, "a/lost"));
        world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n9"}}));
        world.converge();
        world.delete("v1", "Node", "n9", None);
        world.pass(39);
        assert!(!deleted(&world, "a/lost"), "the node was there in between");
        world.pass(2);
        assert!(deleted(&world, "a/lost"));
    }
}
