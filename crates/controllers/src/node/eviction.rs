//! `NoExecute` taints: pods that do not tolerate them leave, those that tolerate for a while leave later, unless the node is
//! lost and they lose nothing by leaving at once.

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Plan, Snapshot};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use serde_json::json;

use crate::kit::keys::{self, NODE};
use crate::kit::op;
use crate::kit::pod::{PodRef, node_name};
use crate::kit::value::time;
use crate::node::lifecycle::UNREACHABLE;
use crate::node::lost;
use crate::{Controller, Ctx, Watch};

pub fn controller() -> Controller {
    Controller {
        name: "taint-eviction",
        component: "taint-eviction-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![NODE] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 4,
    }
}

fn taints(node: &Object) -> Vec<Taint> {
    let typed = node.typed::<Node>().ok();
    let taints = typed.and_then(|node| node.spec.as_ref()?.taints.clone()).unwrap_or_default();
    taints.into_iter().filter(|taint| taint.effect == "NoExecute").collect()
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<Node>() {
        return keys::own(old, new);
    }
    let Some(pod) = new.filter(|_| *gvr == gvr_of::<Pod>()) else { return vec![] };
    let key = keys::cluster(&node_name(pod));
    let tainted = snapshot.of::<Node>().get(&key).is_some_and(|node| !taints(node).is_empty());
    if tainted { vec![key] } else { vec![] }
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let nodes = snapshot.of::<Node>();
    let Some(node) = nodes.get(key) else { return Plan::NOTHING };
    let taints = taints(node);
    if taints.is_empty() {
        return Plan::NOTHING;
    }
    let lost = lost::since(&node.tree()).is_some() && taints.iter().any(|taint| taint.key == UNREACHABLE);
    let (mut marks, mut deletions, mut events) = (vec![], vec![], vec![]);
    let mut plan_again: Option<Timestamp> = None;
    for pod in snapshot.of::<Pod>().by(NODE.name, &key.name).filter_map(PodRef::of) {
        if pod.terminating() || pod.finished() {
            continue;
        }
        let waits = !(lost && lost::is_replaceable(&pod));
        match leaves_at(&pod, &taints, now).map(|at| if waits { at } else { now }) {
            Some(at) if at <= now => {
                let condition = json!({
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                    "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": time(now),
                });
                let body = json!({"status": {"conditions": [condition]}});
                if pod.condition("DisruptionTarget").is_none_or(|(status, _)| status != "True") {
                    marks.push(op::strategic::<Pod>(&pod.object, Some("status"), body));
                }
                deletions.push(op::delete::<Pod>(&pod.object));
                let message = format!("Marking for deletion Pod {}", pod.object.key);
                events.push(op::event::<Pod>(&pod.object, "TaintManagerEviction", message));
            }
            Some(at) => plan_again = Some(plan_again.map_or(at, |known| known.min(at))),
            None => {}
        }
    }
    let plan = Plan::step(marks).then(deletions).then(events);
    match plan_again {
        Some(at) => plan.again_at(at),
        None => plan,
    }
}

/// None: stays for good. The shortest toleration counts, from when its taint was put on.
fn leaves_at(pod: &PodRef, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let mut fitting = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if fitting.peek().is_none() {
            return Some(now);
        }
        let seconds = fitting.filter_map(|toleration| toleration.toleration_seconds).min();
        let added = taint.time_added.as_ref().map_or(now, |time| time.0);
        let due = seconds.map(|seconds| added + SignedDuration::from_secs(seconds.max(0)));
        earliest = earliest.into_iter().chain(due).min();
    }
    earliest
}

pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let exists = toleration.operator.as_deref() == Some("Exists");
    let right_key = key.is_empty() && exists || key == taint.key;
    let right_value = exists || text(&toleration.value) == text(&taint.value);
    right_key && right_value && (effect.is_empty() || effect == taint.effect)
}
