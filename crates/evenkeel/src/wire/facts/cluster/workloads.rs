//! Applications: how many copies are wanted and ready, and what of them changed last.

use jiff::Timestamp;
use keeper::wrong::{CLUSTER, Name, What};
use serde_json::Value;

use super::{Lists, full_name, list_at, number, text, time};

/// What the distribution runs itself is no application.
const PLATFORM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

pub fn facts(lists: &Lists) -> Vec<(Name, What)> {
    let replicas = |object: &Value| (number(object, "/spec/replicas").unwrap_or(1), "/status/readyReplicas");
    let deployments = lists.deployments.items.iter().map(|one| workload(one, replicas(one)));
    let stateful = lists.stateful_sets.items.iter().map(|one| workload(one, replicas(one)));
    let daemons = lists.daemon_sets.items.iter().map(|one| {
        workload(one, (number(one, "/status/desiredNumberScheduled").unwrap_or_default(), "/status/numberReady"))
    });
    deployments.chain(stateful).chain(daemons).chain(last_change(lists)).collect()
}

fn workload(object: &Value, (wanted, ready): (u32, &str)) -> (Name, What) {
    let platform = PLATFORM.contains(&text(object, "/metadata/namespace"));
    (full_name(object), What::Workload { wanted, ready: number(object, ready).unwrap_or_default(), platform })
}

/// The newest thing that somebody did: a template that was changed, or a machine that came.
fn last_change(lists: &Lists) -> Option<(Name, What)> {
    let rollouts = lists.replica_sets.items.iter().filter_map(|set| rollout(lists, set));
    let machines = lists.nodes.items.iter().filter_map(|node| {
        let when = time(node, "/metadata/creationTimestamp")?;
        Some((when, format!("{} joined", text(node, "/metadata/name")), String::new()))
    });
    let (when, what, who) = rollouts.chain(machines).max()?;
    Some((CLUSTER.into(), What::Change { what, who, when }))
}

/// A replica set that is not the first of its deployment.
fn rollout(lists: &Lists, set: &Value) -> Option<(Timestamp, String, String)> {
    let revision: u64 = text(set, "/metadata/annotations/deployment.kubernetes.io~1revision").parse().ok()?;
    if revision < 2 {
        return None;
    }
    let owner = list_at(set, "/metadata/ownerReferences").find(|owner| owner["controller"] == true)?;
    let name = format!("{}/{}", text(set, "/metadata/namespace"), text(owner, "/name"));
    let deployment = lists.deployments.items.iter().find(|one| full_name(one) == name);
    let who = deployment.map(last_manager).unwrap_or_default();
    Some((time(set, "/metadata/creationTimestamp")?, format!("{name} got another version"), who))
}

/// The program by which an object was changed last, the controllers apart.
pub fn last_manager(object: &Value) -> String {
    let people = list_at(object, "/metadata/managedFields").filter(|one| one["subresource"].is_null());
    let people = people.filter(|one| !text(one, "/manager").starts_with("kube-controller-manager"));
    let last = people.filter(|one| !text(one, "/manager").contains("controller")).max_by_key(|one| time(one, "/time"));
    let name = last.map(|one| text(one, "/manager")).unwrap_or_default();
    // kubectl appends what it did: kubectl-client-side-apply.
    if name.starts_with("kubectl") { "kubectl".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{facts, last_manager};
    use crate::wire::facts::cluster::{List, Lists};
    use keeper::wrong::What;
    use serde_json::json;

    #[test]
    fn ready_copies_are_counted_and_the_platform_known() {
        let deployment = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 3},
            "status": {"readyReplicas": 2}});
        let lists = Lists { deployments: List { items: vec![deployment], ..List::default() }, ..Lists::default() };
        let found = facts(&lists);
        assert!(matches!(found[0].1, What::Workload { wanted: 3, ready: 2, platform: false }), "{found:?}");
    }

    #[test]
    fn the_last_person_is_no_controller() {
        let object = json!({"metadata": {"managedFields": [
            {"manager": "kubectl-client-side-apply", "time": "2026-01-01T00:00:00Z"},
            {"manager": "kube-controller-manager", "time": "2026-01-02T00:00:00Z", "subresource": "status"},
        ]}});
        assert_eq!(last_manager(&object), "kubectl");
    }
}
