//! The scheduler: takes waiting pods in order, finds each a node, and says what must be done for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::op::Regarding;
use api::snapshot::gvr_of;
use api::{Gvr, Index, Key, Op, PatchType, Plan, Preconditions, Snapshot, Tree};
use base::SmolStr;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;

use crate::cache::Cache;
use crate::filter::{Placement, wants};
use crate::message::{Refusal, for_pod, summary};
use crate::preempt;
use crate::queue::{News, Queue};
use crate::row::{NodeRow, PodRow};
use crate::score;
use crate::volumes::{Volumes, pods};

/// Pods placed by one plan; the next plan sees them as assumed.
const PODS_PER_PLAN_MAX: usize = 128;

#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours.
    pub name: SmolStr,
}

/// A stream that the snapshot must hold.
#[derive(Clone, Debug)]
pub struct Watch {
    pub gvr: Gvr,
    pub indexes: Vec<Index>,
}

/// Keeps rows, queue and bindings in flight between plans. One plan at a time; the plan is a function of this state,
/// the snapshot and the time.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    cache: Cache,
    queue: Queue,
}

/// Why a pod found no node.
struct Failure {
    message: String,
    /// Set where room is being made on a node.
    preemption: Option<preempt::Choice>,
    wants: News,
}

enum Outcome {
    Bind(SmolStr),
    /// Claims must be bound first, on the way to this node.
    Prepare(Vec<Op>),
    Fail(Failure),
}

impl Default for Config {
    fn default() -> Self {
        Config { name: "default-scheduler".into() }
    }
}

impl Scheduler {
    pub fn new(config: Config) -> Scheduler {
        Scheduler { config, cache: Cache::default(), queue: Queue::default() }
    }

    /// Streams that [`Scheduler::plan`] reads.
    pub fn watches() -> Vec<Watch> {
        let kinds = [
            gvr_of::<Node>(),
            gvr_of::<Pod>(),
            gvr_of::<Namespace>(),
            gvr_of::<PersistentVolume>(),
            gvr_of::<PersistentVolumeClaim>(),
            gvr_of::<StorageClass>(),
            gvr_of::<PodDisruptionBudget>(),
        ];
        kinds.into_iter().map(|gvr| Watch { gvr, indexes: vec![] }).collect()
    }

    /// Places waiting pods. Call it after any change of its streams and at `look_again_at`. Operations of the plan's
    /// steps may fail one by one: say so with [`Scheduler::failed`].
    pub fn plan(&mut self, snapshot: &Snapshot, now: Timestamp) -> Plan {
        let before = self.cache.pods.clone();
        let news = self.cache.sync(snapshot, now);
        self.refresh_queue(&before, now);
        self.queue.advance(news, now);
        let (mut ops, mut events) = (vec![], vec![]);
        for (uid, key) in self.queue.ready().into_iter().take(PODS_PER_PLAN_MAX) {
            let Some(pod) = self.cache.pods.get(&key).filter(|pod| pod.uid == uid).cloned() else { continue };
            let outcome = self.place(&pod, snapshot);
            self.carry_out(&pod, outcome, now, &mut ops, &mut events);
        }
        let mut plan = Plan::step(ops).then(events);
        // More pods wait than one plan takes: come back when these are on their way.
        if !self.queue.ready().is_empty() {
            plan = plan.again_at(now);
        }
        let due = self.queue.next_due().into_iter().chain(self.cache.next_expiry());
        due.fold(plan, Plan::again_at)
    }

    /// An operation about this pod did not hold: a binding in flight no longer counts and the pod is tried again.
    pub fn failed(&mut self, pod: &Key, now: Timestamp) {
        if let Some(row) = self.cache.pods.get(pod).cloned() {
            self.cache.forget(&row.uid);
            self.queue.keep(&row.uid, &row.key, row.priority, now);
            self.queue.back_off(&row.uid, now);
        }
    }

    fn refresh_queue(&mut self, before: &BTreeMap<Key, Arc<PodRow>>, now: Timestamp) {
        let mut ours: BTreeMap<SmolStr, ()> = BTreeMap::new();
        for (key, pod) in &self.cache.pods {
            let waits = pod.node.is_empty() && !pod.terminating && !pod.finished && !pod.gated;
            if !waits || pod.scheduler != self.config.name || self.cache.is_assumed(&pod.uid) {
                continue;
            }
            ours.insert(pod.uid.clone(), ());
            self.queue.keep(&pod.uid, key, pod.priority, now);
            // Our own word about why it waits is no reason to try again.
            let changed = |old: &Arc<PodRow>| {
                let same = old.generation == pod.generation && old.labels == pod.labels;
                !same || old.tolerations != pod.tolerations || old.node_selector != pod.node_selector
            };
            if before.get(key).is_some_and(changed) {
                self.queue.wake(&pod.uid, now);
            }
        }
        self.queue.retain(|uid| ours.contains_key(uid));
    }

    fn place(&self, pod: &Arc<PodRow>, snapshot: &Snapshot) -> Outcome {
        let nodes = self.cache.nodes.len();
        let fail = |message: String| Outcome::Fail(Failure { message, preemption: None, wants: wants(pod) });
        if nodes == 0 {
            return fail("no nodes available to schedule pods".to_owned());
        }
        let volumes = match Volumes::of(pod, snapshot, &self.cache) {
            Ok(volumes) => volumes,
            Err(reason) => {
                let tail = "preemption: 0/N nodes are available: N Preemption is not helpful for scheduling.";
                let tail = tail.replace('N', &nodes.to_string());
                return fail(format!("{} {tail}", for_pod(nodes, &reason)));
            }
        };
        let placement = Placement::new(pod, &self.cache, &volumes);
        let mut refusals: BTreeMap<SmolStr, Refusal> = BTreeMap::new();
        let mut fitting: Vec<&NodeRow> = vec![];
        for node in self.cache.nodes.values() {
            match placement.check(node) {
                Ok(()) => fitting.push(node),
                Err(refusal) => {
                    refusals.insert(node.name.clone(), refusal);
                }
            }
        }
        // Room that was made for this pod is taken first.
        let nominated = fitting.iter().copied().find(|node| node.name == pod.nominated);
        if let Some(node) = nominated.or_else(|| score::best(&placement, &fitting)) {
            return match volumes.prepare(node) {
                Some(ops) => Outcome::Prepare(ops),
                None => Outcome::Bind(node.name.clone()),
            };
        }
        let why = summary(nodes, refusals.values());
        match preempt::choose(&placement, snapshot, &refusals) {
            Ok(choice) => Outcome::Fail(Failure { message: why, preemption: Some(choice), wants: wants(pod) }),
            Err(words) => fail(format!("{why} preemption: {words}")),
        }
    }

    fn carry_out(
        &mut self,
        pod: &Arc<PodRow>,
        outcome: Outcome,
        now: Timestamp,
        ops: &mut Vec<Op>,
        events: &mut Vec<Op>,
    ) {
        match outcome {
            Outcome::Bind(node) => {
                self.cache.assume(pod, &node, now);
                self.queue.remove(&pod.uid);
                let message = format!("Successfully assigned {} to {node}", pod.key);
                events.push(event(pod, false, "Scheduled", message));
                ops.push(bind(pod, &node));
            }
            Outcome::Prepare(prepare) => {
                ops.extend(prepare);
                self.queue.failed(&pod.uid, News { volume: true, ..wants(pod) }, now);
            }
            Outcome::Fail(failure) => {
                self.queue.failed(&pod.uid, failure.wants, now);
                let nominee = failure.preemption.as_ref().map(|choice| choice.node.clone());
                for victim in failure.preemption.iter().flat_map(|choice| &choice.victims) {
                    evict(pod, victim, now, ops);
                    let message = format!("Preempted by pod {} on node {}", pod.uid, victim.node);
                    events.push(event(victim, false, "Preempted", message));
                }
                if let Some(op) = tell(pod, &failure.message, nominee, now) {
                    events.push(event(pod, true, "FailedScheduling", failure.message));
                    ops.push(op);
                }
            }
        }
    }
}

fn bind(pod: &PodRow, node: &SmolStr) -> Op {
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    Op::Post { gvr: pods(), key: pod.key.clone(), subresource: "binding".into(), body }
}

/// The `PodScheduled` condition and the nomination; None where both say so already.
fn tell(pod: &PodRow, message: &str, nominee: Option<SmolStr>, now: Timestamp) -> Option<Op> {
    let nominee = nominee.unwrap_or_else(|| pod.nominated.clone());
    let told = pod.told.as_ref().is_some_and(|(status, before)| status == "False" && before == message);
    if told && nominee == pod.nominated {
        return None;
    }
    let mut condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    if pod.told.as_ref().is_none_or(|(status, _)| status != "False") {
        condition["lastTransitionTime"] = json!(time(now));
    }
    let mut status = json!({"conditions": [condition]});
    if nominee != pod.nominated {
        status["nominatedNodeName"] = json!(nominee);
    }
    Some(patch_status(pod, status))
}

/// Marks a victim with the reason and deletes it, unless it is leaving already.
fn evict(pod: &PodRow, victim: &PodRow, now: Timestamp, ops: &mut Vec<Op>) {
    if victim.terminating {
        return;
    }
    let message = format!("default-scheduler: preempting to accommodate a higher priority pod: {}", pod.key);
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": message,
        "lastTransitionTime": time(now),
    });
    ops.push(patch_status(victim, json!({"conditions": [condition]})));
    ops.push(Op::Delete {
        gvr: pods(),
        key: victim.key.clone(),
        when: Preconditions { uid: Some(victim.uid.clone()), revision: None },
        propagation: None,
        grace_seconds: None,
    });
}

fn patch_status(pod: &PodRow, status: Tree) -> Op {
    Op::Patch {
        gvr: pods(),
        key: pod.key.clone(),
        subresource: Some("status".into()),
        patch: PatchType::Strategic,
        body: json!({ "status": status }),
        when: Preconditions { uid: Some(pod.uid.clone()), revision: None },
    }
}

fn event(pod: &PodRow, warning: bool, reason: &'static str, message: String) -> Op {
    let regarding = Regarding {
        api_version: "v1".into(),
        kind: "Pod".into(),
        key: pod.key.clone(),
        uid: pod.uid.clone(),
        field_path: SmolStr::default(),
    };
    Op::Event { regarding, warning, reason: reason.into(), message }
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
