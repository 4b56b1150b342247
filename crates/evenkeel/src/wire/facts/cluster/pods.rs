//! Pods that are not well, each under the most particular thing that is known.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keeper::wrong::{Name, What};
use serde_json::Value;

use super::{Lists, condition, full_name, images, list_at, number, text, time};

const PULLS: [&str; 4] = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"];
/// Restarts after which a container that ends is one that keeps ending.
const RESTARTS_MIN: u32 = 2;

pub fn facts(lists: &Lists, _now: Timestamp) -> Vec<(Name, What)> {
    let mut facts = Vec::new();
    let mut crashes: BTreeMap<Name, What> = BTreeMap::new();
    for pod in lists.pods.items.iter().filter(|pod| wants_to_be_ready(pod)) {
        if let Some(pull) = pull(pod) {
            facts.push((full_name(pod), pull));
        } else if let Some(restarts) = crashing(pod) {
            let (name, crash) = crash(lists, pod, restarts);
            keep_worst(crashes.entry(name).or_insert_with(|| crash.clone()), crash);
        } else if let Some(wait) = volume_wait(lists, pod) {
            facts.push((full_name(pod), wait));
        } else if let Some(wait) = waits(pod) {
            facts.push((full_name(pod), wait));
        }
    }
    facts.extend(crashes);
    facts
}

/// Not ready, not over, and not on its way out.
fn wants_to_be_ready(pod: &Value) -> bool {
    let over = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
    let ready = condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True");
    !over && !ready && time(pod, "/metadata/deletionTimestamp").is_none()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list_at(pod, "/status/initContainerStatuses").chain(list_at(pod, "/status/containerStatuses"))
}

fn pull(pod: &Value) -> Option<What> {
    let waiting = |one: &&Value| PULLS.contains(&text(one, "/state/waiting/reason"));
    let container = containers(pod).find(waiting)?;
    let image = text(container, "/image").to_owned();
    let (reason, message) = (text(container, "/state/waiting/reason"), text(container, "/state/waiting/message"));
    let node = text(pod, "/spec/nodeName").into();
    Some(What::Pull { host: images::host(&image).to_owned(), why: images::why(message, reason), image, node })
}

/// How often a container of it was restarted, where it keeps ending.
fn crashing(pod: &Value) -> Option<u32> {
    let restarts = |one: &Value| number(one, "/restartCount").unwrap_or_default();
    let ends = |one: &&Value| {
        text(one, "/state/waiting/reason") == "CrashLoopBackOff"
            || (one["ready"] != true && RESTARTS_MIN <= restarts(one))
    };
    containers(pod).filter(ends).map(restarts).max()
}

/// The workload that the pod is of, and whether its newest template is the one that crashes.
fn crash(lists: &Lists, pod: &Value, restarts: u32) -> (Name, What) {
    let namespace = text(pod, "/metadata/namespace");
    let of =
        |kind: &str, name: &str| (Name::from(format!("{namespace}/{name}")), format!("{}/{name}", kind.to_lowercase()));
    let plain = |kind: &str, name: &str| {
        let (about, owner) = of(kind, name);
        (about, What::CrashLoop { restarts, changed: None, who: String::new(), owner, previous: false })
    };
    let Some((kind, name)) = owner(pod) else { return plain("pod", text(pod, "/metadata/name")) };
    if kind != "ReplicaSet" {
        return plain(kind, name);
    }
    let same = |set: &&Value| text(set, "/metadata/namespace") == namespace;
    let mine = lists.replica_sets.items.iter().filter(same).find(|set| text(set, "/metadata/name") == name);
    let Some(("Deployment", deployment)) = mine.and_then(owner) else { return plain(kind, name) };
    let sets = lists.replica_sets.items.iter().filter(same);
    let sets: Vec<&Value> = sets.filter(|set| owner(set) == Some(("Deployment", deployment))).collect();
    let changed = mine.and_then(|set| time(set, "/metadata/creationTimestamp"));
    let newest = sets.iter().filter_map(|set| time(set, "/metadata/creationTimestamp")).max();
    let (about, owner) = of("deployment", deployment);
    let found = lists.deployments.items.iter().find(|one| full_name(one) == about);
    let who = found.map(super::workloads::last_manager).unwrap_or_default();
    let previous = 2 <= sets.len() && changed == newest;
    (about, What::CrashLoop { restarts, changed, who, owner, previous })
}

/// Kind and name of the controller.
fn owner(object: &Value) -> Option<(&str, &str)> {
    let owner = list_at(object, "/metadata/ownerReferences").find(|owner| owner["controller"] == true)?;
    Some((text(owner, "/kind"), text(owner, "/name")))
}

fn keep_worst(known: &mut What, other: What) {
    let count = |what: &What| if let What::CrashLoop { restarts, .. } = what { *restarts } else { 0 };
    if count(known) < count(&other) {
        *known = other;
    }
}

/// A pod that fits nowhere because its volume is on one machine, or that was given to that machine when it was gone
/// already.
fn volume_wait(lists: &Lists, pod: &Value) -> Option<What> {
    let given = text(pod, "/spec/nodeName");
    let node = lists.nodes.items.iter().find(|node| text(node, "/metadata/name") == given);
    let gone = node.and_then(|node| condition(node, "Ready")).is_some_and(|ready| ready["status"] != "True");
    let waits = given.is_empty() || gone && text(pod, "/status/phase") == "Pending";
    if !waits {
        return None;
    }
    let namespace = text(pod, "/metadata/namespace");
    let claims = list_at(pod, "/spec/volumes").map(|volume| text(volume, "/persistentVolumeClaim/claimName"));
    let volumes = claims.filter(|name| !name.is_empty()).filter_map(|name| {
        let claim = lists.claims.items.iter().find(|one| full_name(one) == format!("{namespace}/{name}"))?;
        Some(text(claim, "/spec/volumeName")).filter(|name| !name.is_empty())
    });
    volumes.into_iter().find_map(|name| {
        let volume = lists.volumes.items.iter().find(|one| text(one, "/metadata/name") == name)?;
        let terms = list_at(volume, "/spec/nodeAffinity/required/nodeSelectorTerms");
        let mut nodes =
            terms.flat_map(|term| list_at(term, "/matchExpressions")).flat_map(|one| list_at(one, "/values"));
        let node = nodes.next()?.as_str()?;
        Some(What::VolumeWait { volume: name.to_owned(), node: node.into() })
    })
}

fn waits(pod: &Value) -> Option<What> {
    let since = condition(pod, "Ready").and_then(|ready| time(ready, "/lastTransitionTime"));
    let since = since.or_else(|| time(pod, "/metadata/creationTimestamp"))?;
    let waiting = containers(pod).map(|one| text(one, "/state/waiting/reason")).find(|reason| !reason.is_empty());
    let unscheduled = condition(pod, "PodScheduled").filter(|one| one["status"] == "False");
    let unscheduled = unscheduled.map(|one| text(one, "/message"));
    let reason = condition(pod, "Ready").map(|ready| text(ready, "/reason")).filter(|reason| !reason.is_empty());
    let why = waiting.or(unscheduled).or(reason).unwrap_or(text(pod, "/status/phase")).to_owned();
    Some(What::PodWaits { node: text(pod, "/spec/nodeName").into(), why, since })
}

#[cfg(test)]
mod tests {
    use super::facts;
    use crate::wire::facts::cluster::{List, Lists};
    use jiff::Timestamp;
    use keeper::wrong::What;
    use serde_json::{Value, json};

    fn list(items: Vec<Value>) -> List {
        List { items, ..List::default() }
    }

    fn pod(owner: Value, container: Value) -> Value {
        json!({
            "metadata": {"name": "api-1", "namespace": "shop", "ownerReferences": [owner],
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "a"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [container]},
        })
    }

    #[test]
    fn a_crash_is_told_of_the_deployment_with_its_change() {
        let owner = |kind: &str, name: &str| json!({"kind": kind, "name": name, "controller": true});
        let set = |name: &str, at: &str| {
            json!({"metadata": {"name": name, "namespace": "shop", "creationTimestamp": at,
                "ownerReferences": [owner("Deployment", "api")]}})
        };
        let crash = json!({"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let lists = Lists {
            pods: list(vec![pod(owner("ReplicaSet", "api-new"), crash)]),
            replica_sets: list(vec![set("api-old", "2026-01-01T00:00:00Z"), set("api-new", "2026-01-02T00:00:00Z")]),
            ..Lists::default()
        };
        let found = facts(&lists, Timestamp::UNIX_EPOCH);
        let [(about, What::CrashLoop { restarts: 3, changed: Some(_), owner, previous: true, .. })] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!((about.as_str(), owner.as_str()), ("shop/api", "deployment/api"));
    }

    #[test]
    fn a_pod_waits_for_its_volume_also_when_it_was_given_to_the_machine_that_is_gone() {
        let db = |node: &str| {
            let volume = json!({"persistentVolumeClaim": {"claimName": "data"}});
            json!({"metadata": {"name": "db", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": node, "volumes": [volume]}, "status": {"phase": "Pending"}})
        };
        let node = |name: &str, ready: &str| {
            let ready = json!({"type": "Ready", "status": ready});
            json!({"metadata": {"name": name}, "status": {"conditions": [ready]}})
        };
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"values": ["gone"]}]}]}});
        let claim = json!({"metadata": {"name": "data", "namespace": "shop"}, "spec": {"volumeName": "pvc-1"}});
        let volume = json!({"metadata": {"name": "pvc-1"}, "spec": {"nodeAffinity": affinity}});
        for (given, waits) in [("", true), ("gone", true), ("there", false)] {
            let lists = Lists {
                pods: list(vec![db(given)]),
                nodes: list(vec![node("gone", "Unknown"), node("there", "True")]),
                claims: list(vec![claim.clone()]),
                volumes: list(vec![volume.clone()]),
                ..Lists::default()
            };
            let found = facts(&lists, Timestamp::UNIX_EPOCH);
            let told = matches!(&found[..], [(_, What::VolumeWait { node, .. })] if node.as_str() == "gone");
            assert_eq!(told, waits, "given to {given:?}: {found:?}");
        }
    }

    #[test]
    fn a_pull_names_its_registry() {
        let message = "dial tcp: connection refused";
        let container = json!({"image": "r.example:5000/a:1", "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": message}}});
        let lists = Lists { pods: list(vec![pod(json!({}), container)]), ..Lists::default() };
        let found = facts(&lists, Timestamp::UNIX_EPOCH);
        assert!(
            matches!(&found[..], [(_, What::Pull { host, why, .. })] if host == "r.example:5000" && why == "connection refused")
        );
    }
}
