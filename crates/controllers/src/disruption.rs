//! PodDisruptionBudgets: how many of the covered pods may be evicted now.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Plan, Snapshot, Tree};
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

use crate::kit::condition::{self, Condition, word};
use crate::kit::keys;
use crate::kit::op;
use crate::kit::pod::PodRef;
use crate::kit::value::{int, list, scaled};
use crate::{Controller, Ctx, Watch};

/// An eviction that was granted and not followed by a deletion no longer counts after this long.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

pub fn controller() -> Controller {
    Controller {
        name: "disruption",
        component: "controllermanager",
        watches: vec![
            Watch { gvr: gvr_of::<PodDisruptionBudget>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![] },
            Watch { gvr: gvr_of::<ReplicaSet>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Deployment>(), indexes: vec![] },
            Watch { gvr: gvr_of::<StatefulSet>(), indexes: vec![] },
            Watch { gvr: gvr_of::<ReplicationController>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 2,
    }
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<PodDisruptionBudget>() {
        return keys::own(old, new);
    }
    let budgets = snapshot.of::<PodDisruptionBudget>();
    if *gvr == gvr_of::<Pod>() {
        let both = [old, new].into_iter().flatten();
        return both.flat_map(|pod| covering(snapshot, pod)).collect();
    }
    // A scaled workload changes what its budgets expect.
    let scaled = old.map(|object| object.header.generation) != new.map(|object| object.header.generation);
    let Some(object) = new.or(old).filter(|_| scaled) else { return vec![] };
    budgets.in_namespace(&object.key.namespace).map(|budget| budget.key.clone()).collect()
}

/// Budgets that cover a pod. Unlike elsewhere an empty selector covers every pod of the namespace.
fn covering(snapshot: &Snapshot, pod: &Object) -> Vec<Key> {
    let budgets = snapshot.of::<PodDisruptionBudget>();
    let covers = |budget: &&Arc<Object>| {
        let selector = budget.tree().pointer("/spec/selector").and_then(keys::label_selector);
        selector.is_some_and(|selector| selector.matches(&pod.header.labels))
    };
    budgets.in_namespace(&pod.key.namespace).filter(covers).map(|budget| budget.key.clone()).collect()
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let budgets = snapshot.of::<PodDisruptionBudget>();
    let Some(budget) = budgets.get(key) else { return Plan::NOTHING };
    let tree = budget.tree();
    let selector = tree.pointer("/spec/selector").and_then(keys::label_selector);
    let all = snapshot.of::<Pod>();
    let covered = all
        .in_namespace(&key.namespace)
        .filter(|pod| selector.as_ref().is_some_and(|selector| selector.matches(&pod.header.labels)));
    let pods: Vec<PodRef> = covered.filter_map(PodRef::of).filter(|pod| !pod.finished()).collect();
    let mut conditions = list(&tree, "/status/conditions").to_vec();
    let (expected, desired) = match expectation(snapshot, &tree, &pods) {
        Ok(numbers) => numbers,
        Err(why) => {
            let failed =
                Condition { r#type: "DisruptionAllowed", status: "False", reason: "SyncFailed", message: &why };
            condition::set(&mut conditions, failed, now);
            let mut status = tree.get("status").cloned().unwrap_or_else(|| json!({}));
            status["disruptionsAllowed"] = json!(0);
            status["conditions"] = json!(conditions);
            return Plan::step(op::status::<PodDisruptionBudget>(budget, &tree, &status).into_iter().collect());
        }
    };
    let (granted, again) = granted(&tree, &pods, now);
    let healthy = pods.iter().filter(|pod| pod.ready() && !pod.terminating());
    let healthy = healthy.filter(|pod| !granted.contains_key(pod.object.key.name.as_str())).count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    let said = Condition { r#type: "DisruptionAllowed", status: word(allowed > 0), reason, message: "" };
    condition::set(&mut conditions, said, now);
    for condition in &mut conditions {
        // This condition's schema wants a message and a generation even when there is nothing to say.
        condition["observedGeneration"] = json!(budget.header.generation);
        if condition.get("message").is_none() {
            condition["message"] = json!("");
        }
    }
    let status = json!({
        "observedGeneration": budget.header.generation, "disruptionsAllowed": allowed, "currentHealthy": healthy,
        "desiredHealthy": desired, "expectedPods": expected, "conditions": conditions,
        "disruptedPods": if granted.is_empty() { Tree::Null } else { json!(granted) },
    });
    let plan = Plan::step(op::status::<PodDisruptionBudget>(budget, &tree, &status).into_iter().collect());
    match again {
        Some(at) => plan.again_at(at),
        None => plan,
    }
}

/// Evictions granted lately whose pods are not yet on their way out.
fn granted(tree: &Tree, pods: &[PodRef], now: Timestamp) -> (BTreeMap<String, Tree>, Option<Timestamp>) {
    let mut kept = BTreeMap::new();
    let mut again: Option<Timestamp> = None;
    let all = tree.pointer("/status/disruptedPods").and_then(Tree::as_object);
    for (name, at) in all.into_iter().flatten() {
        let due = at.as_str().and_then(|at| at.parse::<Timestamp>().ok()).map(|at| at + DELETION_TIMEOUT);
        let there = pods.iter().any(|pod| pod.object.key.name == name.as_str() && !pod.terminating());
        if let Some(due) = due.filter(|due| there && *due > now) {
            kept.insert(name.clone(), at.clone());
            again = again.into_iter().chain([due]).min();
        }
    }
    (kept, again)
}

/// (expected pods, pods that must stay healthy).
fn expectation(snapshot: &Snapshot, tree: &Tree, pods: &[PodRef]) -> Result<(i64, i64), String> {
    let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let most = tree.pointer("/spec/maxUnavailable").filter(|value| !value.is_null());
    if let Some(most) = most {
        let expected = wanted_by_controllers(snapshot, pods)?;
        return Ok((expected, (expected - scaled(Some(most), expected, true)).max(0)));
    }
    match tree.pointer("/spec/minAvailable").filter(|value| !value.is_null()) {
        Some(Tree::String(percent)) => {
            let expected = wanted_by_controllers(snapshot, pods)?;
            Ok((expected, scaled(Some(&json!(percent)), expected, true)))
        }
        Some(least) => Ok((count, least.as_i64().unwrap_or_default())),
        None => Ok((count, 0)),
    }
}

/// Sum of what the pods' controllers are scaled to.
fn wanted_by_controllers(snapshot: &Snapshot, pods: &[PodRef]) -> Result<i64, String> {
    let mut sums: BTreeMap<SmolStr, i64> = BTreeMap::new();
    for pod in pods {
        let owner = pod.object.header.controller();
        let found = owner.and_then(|owner| scale_of(snapshot, &pod.object.key.namespace, &owner.kind, &owner.name));
        let Some((uid, replicas)) = found else {
            let why = match owner {
                Some(owner) => format!("{}.{} does not implement the scale subresource", owner.kind, owner.api_version),
                None => format!("found no controller ref for pod {:?}", pod.object.key.name.as_str()),
            };
            return Err(why);
        };
        sums.insert(uid, replicas);
    }
    Ok(sums.values().sum())
}

fn scale_of(snapshot: &Snapshot, namespace: &str, kind: &str, name: &str) -> Option<(SmolStr, i64)> {
    let key = Key::new(namespace, name);
    let stream = match kind {
        "ReplicaSet" => snapshot.of::<ReplicaSet>(),
        "Deployment" => snapshot.of::<Deployment>(),
        "StatefulSet" => snapshot.of::<StatefulSet>(),
        "ReplicationController" => snapshot.of::<ReplicationController>(),
        _ => return None,
    };
    let object = stream.get(&key)?;
    if let Some(parent) = object.header.controller().filter(|parent| parent.kind == "Deployment")
        && let Some(found) = scale_of(snapshot, namespace, "Deployment", &parent.name)
    {
        return Some(found);
    }
    Some((object.header.uid.clone(), int(&object.tree(), "/spec/replicas").unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, run_pods};

    #[test]
    fn allows_what_the_budget_leaves() {
        let mut world = World::new(&["disruption", "replicaset"]);
        world.agent = run_pods;
        world.put(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "a"},
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
        }));
        let budget = |spec: Tree| {
            let mut budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "a"}, "spec": spec});
            budget["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
            budget
        };
        let told = |world: &World| {
            let columns = [
                "/status/disruptionsAllowed",
                "/status/currentHealthy",
                "/status/desiredHealthy",
                "/status/expectedPods",
            ];
            world.table("policy/v1", "PodDisruptionBudget", &columns)
        };
        world.put(budget(json!({"minAvailable": 3})));
        world.converge();
        assert_eq!(told(&world), "b 1 4 3 4\n");
        world.put(budget(json!({"maxUnavailable": "50%"})));
        world.converge();
        assert_eq!(told(&world), "b 2 4 2 4\n");
        let pod = world.list("v1", "Pod")[0]["metadata"]["name"].as_str().unwrap().to_owned();
        let stamp = crate::kit::value::time(world.now);
        world.edit("policy/v1", "PodDisruptionBudget", "a/b", json!({"status": {"disruptedPods": {pod: stamp}}}));
        world.converge();
        assert_eq!(told(&world), "b 1 3 2 4\n");
        world.pass(121);
        assert_eq!(told(&world), "b 2 4 2 4\n");
    }
}
