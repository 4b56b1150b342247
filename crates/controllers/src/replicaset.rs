//! ReplicaSets and ReplicationControllers: as many pods of one template as `spec.replicas` says.

use api::snapshot::gvr_of;
use api::{Gvr, Index, Key, LabelSelector, Object, Op, Plan, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use serde_json::json;

use crate::kit::keys::{self, ORPHAN};
use crate::kit::pod::{Available, PodRef, from_template, template_labels};
use crate::kit::value::{counter, int};
use crate::kit::{name, op, owner};
use crate::{Controller, Ctx, Watch};

/// Pods made or deleted by one plan, as upstream's burst.
const BURST_PODS_MAX: usize = 500;

pub fn replica_sets() -> Controller {
    Controller {
        name: "replicaset",
        component: "replicaset-controller",
        watches: watches(gvr_of::<ReplicaSet>(), vec![Index::CONTROLLER, ORPHAN]),
        every_kind: false,
        enqueue: |gvr, old, new, snapshot| enqueue::<ReplicaSet>(gvr, old, new, snapshot, keys::label_selector),
        plan: |_: &Ctx, snapshot, key, now| plan::<ReplicaSet>(snapshot, key, now, keys::label_selector),
        workers: 5,
    }
}

pub fn replication_controllers() -> Controller {
    Controller {
        name: "replicationcontroller",
        component: "replication-controller",
        watches: watches(gvr_of::<ReplicationController>(), vec![]),
        every_kind: false,
        enqueue: |gvr, old, new, snapshot| {
            enqueue::<ReplicationController>(gvr, old, new, snapshot, keys::map_selector)
        },
        plan: |_: &Ctx, snapshot, key, now| plan::<ReplicationController>(snapshot, key, now, keys::map_selector),
        workers: 5,
    }
}

fn watches(sets: Gvr, indexes: Vec<Index>) -> Vec<Watch> {
    vec![Watch { gvr: sets, indexes }, Watch { gvr: gvr_of::<Pod>(), indexes: vec![Index::CONTROLLER, ORPHAN] }]
}

type SelectorOf = fn(&Tree) -> Option<LabelSelector>;

fn enqueue<S: Resource>(
    gvr: &Gvr,
    old: Option<&Object>,
    new: Option<&Object>,
    snapshot: &Snapshot,
    selector: SelectorOf,
) -> Vec<Key> {
    if *gvr == gvr_of::<S>() {
        return keys::own(old, new);
    }
    if *gvr == gvr_of::<Pod>() {
        return keys::controllers_or_selecting(S::KIND, &snapshot.of::<S>(), selector, old, new);
    }
    vec![]
}

fn plan<S: Resource>(snapshot: &Snapshot, key: &Key, now: Timestamp, selector: SelectorOf) -> Plan {
    let sets = snapshot.of::<S>();
    let Some(object) = sets.get(key) else { return Plan::NOTHING };
    let set = object.tree();
    let Some(selector) = set.pointer("/spec/selector").and_then(selector) else { return Plan::NOTHING };
    let claim = owner::claim::<S, Pod>(object, &selector, &snapshot.of::<Pod>(), |pod| {
        !matches!(api::Tree::as_str(&pod.tree()["status"]["phase"]), Some("Succeeded" | "Failed"))
    });
    let owned: Vec<PodRef> = claim.owned.iter().filter_map(PodRef::of).collect();
    let active: Vec<&PodRef> = owned.iter().filter(|pod| pod.active()).collect();
    let mut ops = claim.ops;
    let mut events = vec![];
    if object.header.deletion.is_none() {
        let wanted = usize::try_from(int(&set, "/spec/replicas").unwrap_or(1)).unwrap_or_default();
        let changes = if active.len() < wanted {
            let salt = name::salt(&snapshot.of::<Pod>(), object, owned.iter().map(|pod| &*pod.object));
            grow::<S>(object, &set, salt, wanted - active.len())
        } else {
            shrink::<S>(object, snapshot, &active, active.len() - wanted)
        };
        ops.extend(changes.0);
        events = changes.1;
    }
    let min_ready = int(&set, "/spec/minReadySeconds").unwrap_or_default();
    let (status, again) = status(object, &set, &owned, &active, min_ready, now);
    ops.extend(op::status::<S>(object, &set, &status));
    let plan = Plan::step(ops).then(events);
    again.map_or(plan.clone(), |at| plan.again_at(at))
}

/// Creates the missing pods under derived names.
fn grow<S: Resource>(object: &Object, set: &Tree, salt: u64, missing: usize) -> (Vec<Op>, Vec<Op>) {
    let template = set.pointer("/spec/template").cloned().unwrap_or_default();
    let base = format!("{}-", object.key.name);
    let names = (0..missing.min(BURST_PODS_MAX)).map(|n| name::child(&base, &object.header.uid, salt, &n.to_string()));
    names
        .map(|name| {
            let mut pod = from_template::<S>(object, &template, &name);
            pod["metadata"]["generateName"] = json!(base);
            let event = op::event::<S>(object, "SuccessfulCreate", format!("Created pod: {name}"));
            (op::create::<Pod>(&object.key.namespace, pod), event)
        })
        .unzip()
}

/// Deletes surplus pods, the least valuable first.
fn shrink<S: Resource>(object: &Object, snapshot: &Snapshot, active: &[&PodRef], surplus: usize) -> (Vec<Op>, Vec<Op>) {
    if surplus == 0 {
        return (vec![], vec![]);
    }
    let siblings = siblings(object, snapshot);
    let rank = |pod: &PodRef| {
        let crowd = siblings.iter().filter(|node| *node == pod.node());
        if pod.node().is_empty() { 0 } else { crowd.count() }
    };
    let mut ranked: Vec<(usize, &PodRef)> = active.iter().map(|pod| (rank(pod), *pod)).collect();
    ranked.sort_by(|(a_rank, a), (b_rank, b)| a.deletion_order(*a_rank, b, *b_rank));
    let doomed = ranked.iter().take(surplus.min(BURST_PODS_MAX));
    doomed
        .map(|(_, pod)| {
            let message = format!("Deleted pod: {}", pod.object.key.name);
            (op::delete::<Pod>(&pod.object), op::event::<S>(object, "SuccessfulDelete", message))
        })
        .unzip()
}

/// Nodes of the active pods of all sets with this set's owner: pods that share a node are doubled up.
fn siblings(object: &Object, snapshot: &Snapshot) -> Vec<String> {
    let pods = snapshot.of::<Pod>();
    let sets = snapshot.of::<ReplicaSet>();
    let mut uids = vec![object.header.uid.clone()];
    if let Some(parent) = object.header.controller().filter(|parent| parent.kind == "Deployment") {
        uids = sets.by(Index::CONTROLLER.name, &parent.uid).map(|set| set.header.uid.clone()).collect();
    }
    let owned =
        uids.iter().flat_map(|uid| pods.by(Index::CONTROLLER.name, uid).filter_map(PodRef::of).collect::<Vec<_>>());
    owned.filter(PodRef::active).map(|pod| pod.node().to_owned()).collect()
}

fn status(
    object: &Object,
    set: &Tree,
    owned: &[PodRef],
    active: &[&PodRef],
    min_ready: i64,
    now: Timestamp,
) -> (Tree, Option<Timestamp>) {
    let labels = template_labels(&set.pointer("/spec/template").cloned().unwrap_or_default());
    let fully = |pod: &&&PodRef| labels.iter().all(|(k, v)| pod.object.header.labels.get(k) == Some(v));
    let availability: Vec<Available> = active.iter().map(|pod| pod.available(min_ready, now)).collect();
    let again = availability.iter().filter_map(|state| match state {
        Available::At(at) => Some(*at),
        Available::Yes | Available::No => None,
    });
    let available = availability.iter().filter(|state| **state == Available::Yes).count();
    let terminating = owned.iter().filter(|pod| pod.terminating() && !pod.finished()).count();
    let mut status = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": counter(active.iter().filter(fully).count()),
        "readyReplicas": counter(active.iter().filter(|pod| pod.ready()).count()),
        "availableReplicas": counter(available),
        "observedGeneration": object.header.generation,
        "conditions": set.pointer("/status/conditions").cloned().unwrap_or_default(),
    });
    if set["kind"] == "ReplicaSet" {
        status["terminatingReplicas"] = json!(terminating);
    }
    (status, again.min())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, run_pods};

    fn set(replicas: i64) -> Tree {
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "a"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
            },
        })
    }

    fn check(world: &World, expected: &str) {
        let columns = ["/status/replicas", "/status/readyReplicas", "/status/availableReplicas"];
        assert_eq!(world.table("apps/v1", "ReplicaSet", &columns).trim(), expected);
    }

    #[test]
    fn grows_shrinks_and_replaces() {
        let mut world = World::new(&["replicaset"]);
        world.agent = run_pods;
        world.put(set(3));
        world.converge();
        check(&world, "web 3 3 3");
        let first = world.list("v1", "Pod")[0]["metadata"]["name"].as_str().unwrap().to_owned();
        world.delete("v1", "Pod", &format!("a/{first}"), None);
        world.converge();
        check(&world, "web 3 3 3");
        assert!(world.get("v1", "Pod", &format!("a/{first}")).is_null(), "a replaced pod has a new name");
        world.edit("apps/v1", "ReplicaSet", "a/web", json!({"spec": {"replicas": 1}}));
        world.converge();
        check(&world, "web 1 1 1");
        assert_eq!(world.list("v1", "Pod").len(), 1);
    }

    #[test]
    fn lost_replies_make_no_second_pod() {
        let mut world = World::new(&["replicaset"]);
        world.put(set(4));
        let plan = world.plan(0, &Key::new("a", "web"));
        for op in plan.steps.iter().flatten().chain(plan.steps.iter().flatten()) {
            world.apply(op);
        }
        assert_eq!(world.list("v1", "Pod").len(), 4);
    }

    #[test]
    fn a_lone_pod_is_replaced_under_a_new_name() {
        let mut world = World::new(&["replicaset"]);
        world.put(set(1));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..5 {
            world.converge();
            let name = world.list("v1", "Pod")[0]["metadata"]["name"].as_str().unwrap().to_owned();
            world.delete("v1", "Pod", &format!("a/{name}"), None);
            assert!(seen.insert(name), "{seen:?}");
        }
    }

    #[test]
    fn adopts_orphans_and_releases_strangers() {
        let mut world = World::new(&["replicaset"]);
        world.agent = run_pods;
        world.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone", "namespace": "a", "labels": {"app": "web"}}, "spec": {"containers": []}}));
        world.put(set(2));
        world.converge();
        assert_eq!(world.list("v1", "Pod").len(), 2);
        assert_eq!(world.get("v1", "Pod", "a/lone")["metadata"]["ownerReferences"][0]["name"], "web");
        world.edit("v1", "Pod", "a/lone", json!({"metadata": {"labels": {"app": "other"}}}));
        world.converge();
        assert_eq!(world.list("v1", "Pod").len(), 3);
        assert_eq!(world.get("v1", "Pod", "a/lone")["metadata"]["ownerReferences"], json!([]));
        check(&world, "web 2 2 2");
    }

    #[test]
    fn waits_for_min_ready_seconds() {
        let mut world = World::new(&["replicaset"]);
        world.agent = run_pods;
        let mut object = set(1);
        object["spec"]["minReadySeconds"] = json!(10);
        world.put(object);
        world.converge();
        check(&world, "web 1 1 null");
        world.pass(11);
        check(&world, "web 1 1 1");
    }
}
