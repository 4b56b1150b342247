//! StatefulSets: pods with an ordinal each, made, changed and removed in order, with claims of their own.

mod claims;
mod pods;
mod update;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::snapshot::gvr_of;
use api::{Gvr, Index, Key, Object, Op, Plan, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;

use crate::kit::keys::{self, ORPHAN};
use crate::kit::pod::{Available, PodRef};
use crate::kit::revision::{HASH_LABEL, History};
use crate::kit::value::{int, text};
use crate::kit::{op, owner};
use crate::{Controller, Ctx, Watch};

pub fn controller() -> Controller {
    Controller {
        name: "statefulset",
        component: "statefulset-controller",
        watches: vec![
            Watch { gvr: gvr_of::<StatefulSet>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![Index::CONTROLLER, ORPHAN] },
            Watch { gvr: gvr_of::<ControllerRevision>(), indexes: vec![Index::CONTROLLER] },
            Watch { gvr: gvr_of::<PersistentVolumeClaim>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 5,
    }
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<StatefulSet>() {
        return keys::own(old, new);
    }
    if *gvr == gvr_of::<Pod>() {
        let sets = snapshot.of::<StatefulSet>();
        return keys::controllers_or_selecting("StatefulSet", &sets, keys::label_selector, old, new);
    }
    if *gvr == gvr_of::<ControllerRevision>() { keys::controllers("StatefulSet", old, new) } else { vec![] }
}

/// A set with its pods by ordinal and the revisions they may be of.
struct Set<'a> {
    object: &'a Object,
    tree: Tree,
    snapshot: &'a Snapshot,
    replicas: i64,
    start: i64,
    ordered: bool,
    min_ready: i64,
    history: History,
    /// Name of the revision that pods below the partition keep.
    current: String,
    pods: BTreeMap<i64, PodRef>,
    now: Timestamp,
}

/// What one look decides.
#[derive(Default)]
struct Work {
    claims: Vec<Op>,
    ops: Vec<Op>,
    events: Vec<Op>,
    again: Option<Timestamp>,
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let sets = snapshot.of::<StatefulSet>();
    let Some(object) = sets.get(key) else { return Plan::NOTHING };
    let tree = object.tree();
    let Some(selector) = tree.pointer("/spec/selector").and_then(keys::label_selector) else { return Plan::NOTHING };
    let claim = owner::claim::<StatefulSet, Pod>(object, &selector, &snapshot.of::<Pod>(), |pod| {
        ordinal(&object.key.name, &pod.key.name).is_some()
    });
    if !claim.ops.is_empty() {
        return Plan::step(claim.ops);
    }
    let history = History::of::<StatefulSet>(object, &tree, snapshot, "controller.kubernetes.io/hash");
    let pods = claim.owned.iter().filter_map(|pod| Some((ordinal(&key.name, &pod.key.name)?, PodRef::of(pod)?)));
    let told = text(&tree, "/status/currentRevision");
    let known = history.all.iter().any(|revision| revision.name() == told);
    let current = if known { told.to_owned() } else { history.update.clone() };
    let set = Set {
        object,
        snapshot,
        replicas: int(&tree, "/spec/replicas").unwrap_or(1),
        start: int(&tree, "/spec/ordinals/start").unwrap_or_default(),
        ordered: text(&tree, "/spec/podManagementPolicy") != "Parallel",
        min_ready: int(&tree, "/spec/minReadySeconds").unwrap_or_default(),
        current,
        pods: pods.collect(),
        history,
        tree,
        now,
    };
    set.plan()
}

/// `web-3` of `web`.
fn ordinal(set: &str, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let plain = digits == "0" || !digits.starts_with('0');
    digits.parse().ok().filter(|ordinal| plain && *ordinal >= 0)
}

impl Set<'_> {
    fn plan(self) -> Plan {
        let mut work = Work::default();
        if self.object.header.deletion.is_none() && !self.history.collision {
            self.work(&mut work);
        }
        let status = self.status(&mut work);
        let mut ops = work.ops;
        let mut first = self.history.ops.clone();
        ops.extend(op::status::<StatefulSet>(self.object, &self.tree, &status));
        let live: Vec<&str> = self.pods.values().map(revision_of).chain([self.current.as_str()]).collect();
        first.extend(self.history.truncate(&self.tree, &live));
        let plan = Plan::step(first).then(work.claims).then(ops).then(work.events);
        match work.again {
            Some(at) => plan.again_at(at),
            None => plan,
        }
    }

    fn range(&self) -> std::ops::Range<i64> {
        self.start..self.start + self.replicas
    }

    fn healthy(&self, pod: &PodRef) -> bool {
        pod.phase() == "Running" && pod.ready() && !pod.terminating()
    }

    /// Healthy for `minReadySeconds`; notes when it will be.
    fn available(&self, pod: &PodRef, work: &mut Work) -> bool {
        match pod.available(self.min_ready, self.now) {
            Available::Yes => self.healthy(pod),
            Available::At(at) => {
                work.again = Some(work.again.map_or(at, |known| known.min(at)));
                false
            }
            Available::No => false,
        }
    }

    fn work(&self, work: &mut Work) {
        self.retain_claims(work);
        if self.fill(work) && self.condemn(work) {
            self.roll(work);
        }
    }

    /// Makes missing pods and replaces failed ones. False where order demands to wait.
    fn fill(&self, work: &mut Work) -> bool {
        for ordinal in self.range() {
            let Some(pod) = self.pods.get(&ordinal) else {
                self.create(ordinal, work);
                if self.ordered {
                    return false;
                }
                continue;
            };
            if pod.finished() {
                if !pod.terminating() {
                    let message = format!(
                        "StatefulSet {} is recreating {} Pod {}",
                        self.object.key,
                        word(pod.phase()),
                        pod.object.key.name
                    );
                    work.events.push(op::warning::<StatefulSet>(self.object, "RecreatingFailedPod", message));
                    work.ops.push(op::delete::<Pod>(&pod.object));
                }
                if self.ordered {
                    return false;
                }
                continue;
            }
            let there = self.available(pod, work);
            if self.ordered && !there {
                return false;
            }
        }
        true
    }

    /// Removes pods outside the range, the highest ordinal first. False where order demands to wait.
    fn condemn(&self, work: &mut Work) -> bool {
        let mut condemned: Vec<_> = self.pods.iter().filter(|(ordinal, _)| !self.range().contains(ordinal)).collect();
        condemned.reverse();
        for (_, pod) in condemned {
            if pod.terminating() {
                if self.ordered {
                    return false;
                }
                continue;
            }
            self.delete(pod, work);
            if self.ordered {
                return false;
            }
        }
        true
    }

    fn delete(&self, pod: &PodRef, work: &mut Work) {
        let name = &pod.object.key.name;
        let message = format!("delete Pod {name} in StatefulSet {} successful", self.object.key.name);
        work.events.push(op::event::<StatefulSet>(self.object, "SuccessfulDelete", message));
        work.ops.push(op::delete::<Pod>(&pod.object));
    }

    fn status(&self, work: &mut Work) -> Tree {
        let mut counts = [0_i64; 5];
        for pod in self.pods.values().filter(|pod| !pod.finished()) {
            let of = |name: &str| revision_of(pod) == name && !pod.terminating();
            let facts =
                [true, self.healthy(pod), self.available(pod, work), of(&self.current), of(&self.history.update)];
            for (count, fact) in counts.iter_mut().zip(facts) {
                *count += i64::from(fact);
            }
        }
        let [replicas, ready, available, mut current_count, updated] = counts;
        let mut current = self.current.clone();
        let complete = updated == replicas && ready == replicas && replicas == self.replicas;
        let rolling = text(&self.tree, "/spec/updateStrategy/type") != "OnDelete";
        if rolling && complete && self.history.update != current {
            current.clone_from(&self.history.update);
            current_count = updated;
        }
        let some = |count: i64| if count == 0 { Tree::Null } else { json!(count) };
        let collisions = int(&self.tree, "/status/collisionCount").unwrap_or_default();
        json!({
            "observedGeneration": self.object.header.generation,
            "replicas": replicas,
            "readyReplicas": some(ready),
            "availableReplicas": available,
            "currentReplicas": some(current_count),
            "updatedReplicas": some(updated),
            "currentRevision": current,
            "updateRevision": self.history.update,
            "collisionCount": collisions + i64::from(self.history.collision),
            "conditions": self.tree.pointer("/status/conditions").cloned().unwrap_or_default(),
        })
    }
}

fn word(phase: &str) -> &'static str {
    if phase == "Failed" { "failed" } else { "succeeded" }
}

fn revision_of(pod: &PodRef) -> &str {
    pod.object.header.labels.get(HASH_LABEL).map_or("", |name| name.as_str())
}
