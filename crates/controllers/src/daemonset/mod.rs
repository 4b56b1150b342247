//! DaemonSets: one pod on every node that suits, replaced within what may be unavailable or surge.

mod failed;
mod roll;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::fit::selected;
use api::snapshot::gvr_of;
use api::{Gvr, Index, Key, Object, Op, Plan, Snapshot, Stream, Tree};
use base::SmolStr;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Toleration};
use serde_json::json;

use crate::kit::keys::{self, ORPHAN};
use crate::kit::node::tolerates_all;
use crate::kit::pod::{Available, PodRef, from_template};
use crate::kit::revision::{HASH_LABEL, History};
use crate::kit::value::int;
use crate::kit::{name, op, owner};
use crate::{Controller, Ctx, Watch};

/// Taints that daemons put up with: they are often what cures them.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub fn controller() -> Controller {
    Controller {
        name: "daemonset",
        component: "daemonset-controller",
        watches: vec![
            Watch { gvr: gvr_of::<DaemonSet>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![Index::CONTROLLER, ORPHAN] },
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
            Watch { gvr: gvr_of::<ControllerRevision>(), indexes: vec![Index::CONTROLLER] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 2,
    }
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    let sets = snapshot.of::<DaemonSet>();
    if *gvr == gvr_of::<DaemonSet>() {
        return keys::own(old, new);
    }
    if *gvr == gvr_of::<Pod>() {
        return keys::controllers_or_selecting("DaemonSet", &sets, keys::label_selector, old, new);
    }
    if *gvr == gvr_of::<Node>() {
        let facts = |node: &Object| {
            let spec = node.typed::<Node>().ok().and_then(|node| node.spec.clone()).unwrap_or_default();
            (node.header.labels.clone(), spec.taints, node.header.deletion.is_some())
        };
        return if old.map(facts) == new.map(facts) { vec![] } else { keys::every(&sets) };
    }
    keys::controllers("DaemonSet", old, new)
}

/// A DaemonSet, its nodes and its pods on each.
struct Set<'a> {
    object: &'a Object,
    tree: Tree,
    history: History,
    min_ready: i64,
    /// Nodes that should have a pod.
    wanted: Vec<SmolStr>,
    /// Nodes whose pod may stay though none would be made there now.
    tolerated: Vec<SmolStr>,
    /// By node; oldest first.
    pods: BTreeMap<SmolStr, Vec<PodRef>>,
    /// All pods there are.
    stream: Stream,
    now: Timestamp,
}

#[derive(Default)]
struct Work {
    /// Nodes to make a pod for.
    create: Vec<SmolStr>,
    delete: Vec<PodRef>,
    again: Option<Timestamp>,
}

impl Work {
    fn look_again(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |known| known.min(at)));
    }
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let sets = snapshot.of::<DaemonSet>();
    let Some(object) = sets.get(key) else { return Plan::NOTHING };
    let tree = object.tree();
    let selector = tree.pointer("/spec/selector").and_then(keys::label_selector);
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return Plan::NOTHING };
    let stream = snapshot.of::<Pod>();
    let claim = owner::claim::<DaemonSet, Pod>(object, &selector, &stream, |_| true);
    if !claim.ops.is_empty() {
        return Plan::step(claim.ops);
    }
    let history = History::of::<DaemonSet>(object, &tree, snapshot, HASH_LABEL);
    let spec: PodSpec =
        serde_json::from_value(tree.pointer("/spec/template/spec").cloned().unwrap_or_default()).unwrap_or_default();
    let (mut wanted, mut tolerated) = (vec![], vec![]);
    for node in snapshot.of::<Node>().iter() {
        let (runs, stays) = eligible(&spec, node);
        if runs {
            wanted.push(node.key.name.clone());
        } else if stays {
            tolerated.push(node.key.name.clone());
        }
    }
    let mut pods: BTreeMap<SmolStr, Vec<PodRef>> = BTreeMap::new();
    for pod in claim.owned.iter().filter_map(PodRef::of) {
        pods.entry(target(&pod)).or_default().push(pod);
    }
    pods.values_mut().for_each(|pods| pods.sort_by_key(|pod| (pod.object.header.created, pod.object.key.clone())));
    let min_ready = int(&tree, "/spec/minReadySeconds").unwrap_or_default();
    Set { object, history, min_ready, wanted, tolerated, pods, stream, tree, now }.plan()
}

/// Whether a pod should be made on the node, and whether one that is there may stay.
fn eligible(spec: &PodSpec, node: &Object) -> (bool, bool) {
    let Ok(typed) = node.typed::<Node>() else { return (false, false) };
    let named = spec.node_name.as_deref().is_none_or(|name| name.is_empty() || node.key.name == name);
    if !named || !selected(spec, &node.key.name, &node.header.labels) {
        return (false, false);
    }
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    tolerations.extend(extra_tolerations(spec.host_network == Some(true)));
    let taints = typed.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let of = |effects: &'static [&str]| taints.iter().filter(move |taint| effects.contains(&taint.effect.as_str()));
    (tolerates_all(&tolerations, of(&["NoSchedule", "NoExecute"])), tolerates_all(&tolerations, of(&["NoExecute"])))
}

fn extra_tolerations(host_network: bool) -> Vec<Toleration> {
    let network = Some(("node.kubernetes.io/network-unavailable", "NoSchedule")).filter(|_| host_network);
    let one = |(key, effect): (&str, &str)| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    TOLERATED.into_iter().chain(network).map(one).collect()
}

/// The node a pod is on, or was made for.
fn target(pod: &PodRef) -> SmolStr {
    if !pod.node().is_empty() {
        return pod.node().into();
    }
    let affinity = pod.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let required = affinity.and_then(|all| all.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required.iter().flat_map(|selector| &selector.node_selector_terms);
    let fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let names = fields.filter(|field| field.key == "metadata.name").flat_map(|field| field.values.iter().flatten());
    names.map(SmolStr::from).next().unwrap_or_default()
}

impl Set<'_> {
    fn plan(self) -> Plan {
        let mut work = Work::default();
        if self.object.header.deletion.is_none() && !self.history.collision {
            self.place(&mut work);
            self.roll(&mut work);
        }
        let status = self.status(&mut work);
        let (mut ops, events) = self.render(&work);
        ops.extend(op::status::<DaemonSet>(self.object, &self.tree, &status));
        let mut first = self.history.ops.clone();
        let hashes: Vec<&str> = self.pods.values().flatten().map(hash_of).collect();
        let of = |revision: &&crate::kit::revision::Revision| {
            revision.object.header.labels.get(HASH_LABEL).is_some_and(|hash| hashes.contains(&hash.as_str()))
        };
        let live: Vec<&str> = self.history.all.iter().filter(of).map(|revision| revision.name()).collect();
        first.extend(self.history.truncate(&self.tree, &live));
        let plan = Plan::step(first).then(ops).then(events);
        match work.again {
            Some(at) => plan.again_at(at),
            None => plan,
        }
    }

    /// Pods where one is wanted and none is; away with those on other nodes, with finished ones and doubles.
    fn place(&self, work: &mut Work) {
        let surging = self.surge() > 0;
        for node in &self.wanted {
            let pods = self.pods.get(node).map_or(&[][..], Vec::as_slice);
            let (dead, live): (Vec<&PodRef>, Vec<&PodRef>) = pods.iter().partition(|pod| pod.finished());
            let later = dead.iter().filter_map(|pod| failed::replaced_at(pod)).max().filter(|at| self.now < *at);
            if let Some(at) = later.filter(|_| live.is_empty()) {
                work.look_again(at);
                continue;
            }
            work.delete.extend(dead.into_iter().filter(|pod| !pod.terminating()).cloned());
            // A terminating pod holds its place: ports and folders are still in use.
            if live.is_empty() {
                work.create.push(node.clone());
            } else if !surging {
                work.delete.extend(live.into_iter().filter(|pod| !pod.terminating()).skip(1).cloned());
            }
        }
        for (node, pods) in &self.pods {
            if !self.wanted.contains(node) && !self.tolerated.contains(node) {
                work.delete.extend(pods.iter().filter(|pod| !pod.terminating()).cloned());
            }
        }
    }

    fn available(&self, pod: &PodRef, work: &mut Work) -> bool {
        match pod.available(self.min_ready, self.now) {
            Available::Yes => !pod.terminating(),
            Available::At(at) => {
                work.look_again(at);
                false
            }
            Available::No => false,
        }
    }

    fn render(&self, work: &Work) -> (Vec<Op>, Vec<Op>) {
        let (mut ops, mut events) = (vec![], vec![]);
        for node in &work.create {
            let there = self.pods.get(node).into_iter().flatten().map(|pod| &*pod.object);
            let salt = name::salt(&self.stream, self.object, there);
            let pod_name = name::child(&format!("{}-", self.object.key.name), &self.object.header.uid, salt, node);
            ops.push(op::create::<Pod>(&self.object.key.namespace, self.pod(node, &pod_name)));
            events.push(op::event::<DaemonSet>(self.object, "SuccessfulCreate", format!("Created pod: {pod_name}")));
        }
        for pod in &work.delete {
            let name = &pod.object.key.name;
            if pod.phase() == "Failed" {
                let message =
                    format!("Found failed daemon pod {} on node {}, will try to kill it", pod.object.key, pod.node());
                events.push(op::warning::<DaemonSet>(self.object, "FailedDaemonPod", message));
            }
            ops.push(op::delete::<Pod>(&pod.object));
            events.push(op::event::<DaemonSet>(self.object, "SuccessfulDelete", format!("Deleted pod: {name}")));
        }
        (ops, events)
    }

    /// A pod bound to one node by affinity; the scheduler still checks that it fits.
    fn pod(&self, node: &SmolStr, name: &str) -> Tree {
        let template = self.tree.pointer("/spec/template").cloned().unwrap_or_default();
        let mut pod = from_template::<DaemonSet>(self.object, &template, name);
        pod["metadata"]["generateName"] = json!(format!("{}-", self.object.key.name));
        pod["metadata"]["labels"][HASH_LABEL] = json!(self.history.hash);
        let field = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
        let affinity = &mut pod["spec"]["affinity"]["nodeAffinity"];
        let terms = &mut affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        // Which node it is has been decided with the template's own terms; only the name remains.
        *terms = json!([field]);
        let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let host_network = pod["spec"]["hostNetwork"] == true;
        for toleration in extra_tolerations(host_network) {
            let toleration = json!(toleration);
            if !tolerations.contains(&toleration) {
                tolerations.push(toleration);
            }
        }
        pod["spec"]["tolerations"] = json!(tolerations);
        failed::mark(&mut pod, self.pods.get(node).map_or(&[], Vec::as_slice), self.now);
        pod
    }

    fn status(&self, work: &mut Work) -> Tree {
        let [mut current, mut ready, mut available, mut updated] = [0_usize; 4];
        for node in &self.wanted {
            let live = self.pods.get(node).into_iter().flatten().filter(|pod| !pod.finished());
            let live: Vec<&PodRef> = live.collect();
            let Some(oldest) = live.first() else { continue };
            current += 1;
            let best = live.iter().find(|pod| pod.ready()).unwrap_or(oldest);
            ready += usize::from(best.ready());
            available += usize::from(best.ready() && self.available(best, work));
            updated += usize::from(live.iter().any(|pod| hash_of(pod) == self.history.hash));
        }
        let stray = |(node, pods): &(&SmolStr, &Vec<PodRef>)| {
            !self.wanted.contains(node) && pods.iter().any(|pod| !pod.finished())
        };
        let some = |count: usize| if count == 0 { Tree::Null } else { json!(count) };
        let collisions = int(&self.tree, "/status/collisionCount");
        json!({
            "currentNumberScheduled": current,
            "numberMisscheduled": self.pods.iter().filter(stray).count(),
            "desiredNumberScheduled": self.wanted.len(),
            "numberReady": ready,
            "observedGeneration": self.object.header.generation,
            "updatedNumberScheduled": some(updated),
            "numberAvailable": some(available),
            "numberUnavailable": some(self.wanted.len() - available),
            "collisionCount": if self.history.collision { json!(collisions.unwrap_or_default() + 1) } else { json!(collisions) },
            "conditions": self.tree.pointer("/status/conditions").cloned().unwrap_or_default(),
        })
    }
}

fn hash_of(pod: &PodRef) -> &str {
    pod.object.header.labels.get(HASH_LABEL).map_or("", |hash| hash.as_str())
}
