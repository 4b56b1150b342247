//! Deployments: one ReplicaSet per template, replicas moved between them by the strategy.

mod progress;
mod rolling;
mod scale;
mod set;

#[cfg(test)]
mod tests;

use api::snapshot::gvr_of;
use api::{Gvr, Index, Key, Object, Op, Plan, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use self::set::{REVISION, Set};
use crate::kit::keys::{self, ORPHAN};
use crate::kit::pod::PodRef;
use crate::kit::value::{annotation, flag, int, scaled, text};
use crate::kit::{name, op, owner};
use crate::{Controller, Ctx, Watch};

/// Old ReplicaSets kept where the Deployment does not say.
const HISTORY_DEFAULT: i64 = 10;

pub fn controller() -> Controller {
    Controller {
        name: "deployment",
        component: "deployment-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Deployment>(), indexes: vec![] },
            Watch { gvr: gvr_of::<ReplicaSet>(), indexes: vec![Index::CONTROLLER, ORPHAN] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![Index::CONTROLLER] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 5,
    }
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<Deployment>() {
        return keys::own(old, new);
    }
    if *gvr == gvr_of::<ReplicaSet>() {
        let candidates = snapshot.of::<Deployment>();
        return keys::controllers_or_selecting("Deployment", &candidates, keys::label_selector, old, new);
    }
    // The strategy Recreate waits for the last old pod to be gone.
    if *gvr == gvr_of::<Pod>() && new.is_none() {
        let sets = snapshot.of::<ReplicaSet>();
        let owners = keys::controllers("ReplicaSet", old, new);
        let parents = owners.iter().filter_map(|key| sets.get(key));
        return parents.flat_map(|set| keys::controllers("Deployment", None, Some(set))).collect();
    }
    vec![]
}

/// A Deployment with its ReplicaSets, oldest first, and what this plan wants of them.
struct Rollout<'a> {
    object: &'a Object,
    tree: &'a Tree,
    replicas: i64,
    surge: i64,
    unavailable: i64,
    sets: Vec<Set>,
    /// Position in `sets` of the one with the current template.
    current: Option<usize>,
    now: Timestamp,
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let deployments = snapshot.of::<Deployment>();
    let Some(object) = deployments.get(key) else { return Plan::NOTHING };
    let tree = object.tree();
    let Some(selector) = tree.pointer("/spec/selector").and_then(keys::label_selector) else { return Plan::NOTHING };
    let claim = owner::claim::<Deployment, ReplicaSet>(object, &selector, &snapshot.of::<ReplicaSet>(), |_| true);
    if !claim.ops.is_empty() {
        return Plan::step(claim.ops);
    }
    let mut rollout = Rollout::new(object, &tree, claim.owned.iter().map(Set::new).collect(), now);
    if object.header.deletion.is_some() {
        return rollout.finish(None);
    }
    let paused = flag(&tree, "/spec/paused");
    let created = if paused || rollout.scaled_by_person() {
        rollout.sync_revision();
        rollout.scale();
        None
    } else if text(&tree, "/spec/strategy/type") == "Recreate" {
        rollout.recreate(snapshot)
    } else {
        rollout.roll(snapshot)
    };
    rollout.finish(created)
}

/// A ReplicaSet to make, or the news that its name is taken by another template.
enum NewSet {
    Create { name: String, replicas: i64, object: Tree },
    Collision,
}

impl<'a> Rollout<'a> {
    fn new(object: &'a Object, tree: &'a Tree, mut sets: Vec<Set>, now: Timestamp) -> Rollout<'a> {
        sets.sort_by(|a, b| (a.object.header.created, &a.object.key).cmp(&(b.object.header.created, &b.object.key)));
        let template = set::comparable(tree.pointer("/spec/template"));
        let current = sets.iter().position(|set| set.comparable == template);
        let replicas = int(tree, "/spec/replicas").unwrap_or(1);
        let (mut surge, mut unavailable) = (0, 0);
        if text(tree, "/spec/strategy/type") != "Recreate" {
            surge = scaled(tree.pointer("/spec/strategy/rollingUpdate/maxSurge"), replicas, true);
            unavailable = scaled(tree.pointer("/spec/strategy/rollingUpdate/maxUnavailable"), replicas, false);
            if surge == 0 && unavailable == 0 {
                // Validation forbids two zeroes; percentages may still round to them, and the rollout must move.
                unavailable = 1;
            }
        }
        Rollout { object, tree, replicas, surge, unavailable: unavailable.min(replicas), sets, current, now }
    }

    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let current = self.current;
        (0..self.sets.len()).filter(move |at| Some(*at) != current)
    }

    /// Scales the old sets away, waits for their pods to end, then brings up the new one.
    fn recreate(&mut self, snapshot: &Snapshot) -> Option<NewSet> {
        self.sync_revision();
        let mut waiting = false;
        for at in self.old() {
            waiting |= self.sets[at].replicas > 0;
            self.sets[at].replicas = 0;
        }
        let pods = snapshot.of::<Pod>();
        let running = self.old().any(|at| {
            let owned = pods.by(Index::CONTROLLER.name, &self.sets[at].object.header.uid);
            owned.filter_map(PodRef::of).any(|pod| !pod.finished())
        });
        if waiting || running {
            return None;
        }
        match self.current {
            Some(at) => {
                self.sets[at].replicas = self.replicas;
                None
            }
            None => Some(self.new_set(snapshot, self.replicas)),
        }
    }

    fn roll(&mut self, snapshot: &Snapshot) -> Option<NewSet> {
        self.sync_revision();
        if self.current.is_none() {
            return Some(self.new_set(snapshot, self.new_set_replicas()));
        }
        if !self.grow_new() {
            self.shrink_old();
        }
        None
    }

    /// The ReplicaSet of the current template.
    fn new_set(&self, snapshot: &Snapshot, replicas: i64) -> NewSet {
        let template = self.tree.pointer("/spec/template").cloned().unwrap_or_default();
        let hash = name::template_hash(&template, int(self.tree, "/status/collisionCount"));
        let name = format!("{}-{hash}", self.object.key.name);
        if snapshot.of::<ReplicaSet>().get(&Key::new(&self.object.key.namespace, &name)).is_some() {
            return NewSet::Collision;
        }
        let mut template = template;
        template["metadata"]["labels"][set::HASH_LABEL] = json!(hash);
        let mut selector = self.tree.pointer("/spec/selector").cloned().unwrap_or_else(|| json!({}));
        selector["matchLabels"][set::HASH_LABEL] = json!(hash);
        let mut annotations = self.inherited_annotations();
        annotations.insert(REVISION.to_owned(), (self.newest_old_revision() + 1).to_string());
        annotations.insert(set::DESIRED.to_owned(), self.replicas.to_string());
        annotations.insert(set::MAX.to_owned(), (self.replicas + self.surge).to_string());
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": self.object.key.namespace, "labels": template["metadata"]["labels"],
                "annotations": annotations, "ownerReferences": [owner::reference::<Deployment>(self.object)],
            },
            "spec": {
                "replicas": replicas, "selector": selector, "template": template,
                "minReadySeconds": int(self.tree, "/spec/minReadySeconds").unwrap_or_default(),
            },
        });
        NewSet::Create { name, replicas, object }
    }

    /// Turns what is wanted into operations: sets, the Deployment's revision, status, history.
    fn finish(self, created: Option<NewSet>) -> Plan {
        let mut ops = vec![];
        let mut events = vec![];
        for set in &self.sets {
            ops.extend(set.change());
            events.extend(set.scale_message().map(|message| op::event::<Deployment>(self.object, SCALING, message)));
        }
        let mut revision = self.current.map(|at| self.sets[at].revision());
        let mut collided = false;
        let mut made = None;
        match created {
            Some(NewSet::Create { name, replicas, object }) => {
                revision = Some(self.newest_old_revision() + 1);
                ops.push(op::create::<ReplicaSet>(&self.object.key.namespace, object));
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    events.push(op::event::<Deployment>(self.object, SCALING, message));
                }
                made = Some(name);
            }
            Some(NewSet::Collision) => collided = true,
            None => {}
        }
        ops.extend(self.revision_op(revision));
        let (status, again) = self.status(made.as_deref(), collided);
        ops.extend(op::status::<Deployment>(self.object, self.tree, &status));
        ops.extend(self.history_ops(&status));
        let plan = Plan::step(ops).then(events);
        match again {
            Some(at) => plan.again_at(at),
            None => plan,
        }
    }

    fn revision_op(&self, revision: Option<i64>) -> Option<Op> {
        let revision = revision.filter(|revision| *revision > 0)?.to_string();
        let told = annotation(self.tree, REVISION) == Some(revision.as_str());
        let body = json!({"metadata": {"annotations": {REVISION: revision}}});
        (!told && self.object.header.deletion.is_none()).then(|| op::merge::<Deployment>(self.object, body))
    }

    /// Deletes the oldest empty sets beyond the history limit, once the rollout is complete.
    fn history_ops(&self, status: &Tree) -> Vec<Op> {
        let limit = int(self.tree, "/spec/revisionHistoryLimit").unwrap_or(HISTORY_DEFAULT);
        if !self.complete(status) || self.object.header.deletion.is_some() {
            return vec![];
        }
        let mut old: Vec<&Set> = self.old().map(|at| &self.sets[at]).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        old.sort_by_key(|set| (set.revision(), set.object.header.created, set.object.key.clone()));
        let empty = |set: &&&Set| set.is_settled_empty();
        old.iter().take(surplus).filter(empty).map(|set| op::delete::<ReplicaSet>(&set.object)).collect()
    }
}

const SCALING: &str = "ScalingReplicaSet";
