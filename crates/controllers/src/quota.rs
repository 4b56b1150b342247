//! ResourceQuota status: what a namespace uses of what it may use. Admission enforces; this corrects the count.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Plan, Quantity, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use serde_json::json;

use crate::kinds::every_kind;
use crate::kit::keys;
use crate::kit::op;
use crate::kit::value::{int, list, text, words};
use crate::{Controller, Ctx, Watch};

/// Short names of `count/...` for core kinds.
const COUNTED: [&str; 7] =
    ["services", "configmaps", "secrets", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "pods"];

pub fn controller() -> Controller {
    Controller {
        name: "resourcequota",
        component: "resourcequota-controller",
        watches: vec![
            Watch { gvr: gvr_of::<ResourceQuota>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Service>(), indexes: vec![] },
            Watch { gvr: gvr_of::<PersistentVolumeClaim>(), indexes: vec![] },
        ],
        every_kind: true,
        enqueue,
        plan,
        workers: 2,
    }
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<ResourceQuota>() {
        return keys::own(old, new);
    }
    let Some(object) = new.or(old).filter(|object| !object.key.namespace.is_empty()) else { return vec![] };
    let quotas = snapshot.of::<ResourceQuota>();
    let mut concerned = quotas.in_namespace(&object.key.namespace).peekable();
    if concerned.peek().is_none() {
        return vec![];
    }
    // Counts change with births and deaths; amounts also with a spec, and with a pod's end.
    let both = old.zip(new);
    let amounts = [gvr_of::<Pod>(), gvr_of::<Service>(), gvr_of::<PersistentVolumeClaim>()].contains(gvr);
    let facts = |object: &Object| {
        let tree = object.tree();
        let ended = matches!(text(&tree, "/status/phase"), "Succeeded" | "Failed");
        (tree.get("spec").cloned(), ended)
    };
    let same = both.is_some_and(|(old, new)| !amounts || facts(old) == facts(new));
    if same { vec![] } else { concerned.map(|quota| quota.key.clone()).collect() }
}

fn plan(ctx: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let quotas = snapshot.of::<ResourceQuota>();
    let Some(quota) = quotas.get(key) else { return Plan::NOTHING };
    let tree = quota.tree();
    let hard = tree.pointer("/spec/hard").cloned().unwrap_or_else(|| json!({}));
    let mut used = BTreeMap::new();
    let pods = pod_usage(snapshot, key, &tree);
    for name in hard.as_object().into_iter().flatten().map(|(name, _)| name) {
        let amount = pods.get(name.as_str()).copied().or_else(|| count(ctx, snapshot, key, name));
        used.insert(name.clone(), amount.unwrap_or_default().to_string());
    }
    let status = json!({"hard": hard, "used": used});
    Plan::step(op::status::<ResourceQuota>(quota, &tree, &status).into_iter().collect())
}

fn whole(count: usize) -> Quantity {
    Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX))
}

fn parse(tree: Option<&Tree>) -> Quantity {
    tree.and_then(Tree::as_str).and_then(|text| Quantity::parse(text).ok()).unwrap_or_default()
}

/// What pods of the quota's scopes use, by every name it may go under.
fn pod_usage(snapshot: &Snapshot, key: &Key, quota: &Tree) -> BTreeMap<String, Quantity> {
    let mut used: BTreeMap<String, Quantity> = BTreeMap::new();
    for name in
        ["pods", "count/pods", "cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"]
    {
        used.insert(name.to_owned(), Quantity::default());
    }
    for pod in snapshot.of::<Pod>().in_namespace(&key.namespace) {
        let tree = pod.tree();
        let ended = matches!(text(&tree, "/status/phase"), "Succeeded" | "Failed");
        if !in_scope(quota, &tree) {
            continue;
        }
        let mut add = |name: &str, amount: Quantity| {
            let sum = used.entry(name.to_owned()).or_default();
            *sum = *sum + amount;
        };
        add("count/pods", whole(1));
        if ended {
            continue;
        }
        add("pods", whole(1));
        for (kind, prefix) in [("requests", "requests."), ("limits", "limits.")] {
            for (resource, amount) in pod_amounts(&tree, kind) {
                add(&format!("{prefix}{resource}"), amount);
                if kind == "requests" && ["cpu", "memory", "ephemeral-storage"].contains(&resource.as_str()) {
                    add(&resource, amount);
                }
            }
        }
    }
    used
}

/// The larger of all containers together and any init container.
fn pod_amounts(pod: &Tree, kind: &str) -> BTreeMap<String, Quantity> {
    let of = |container: &Tree| -> Vec<(String, Quantity)> {
        let amounts = container.pointer(&format!("/resources/{kind}")).and_then(Tree::as_object);
        amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), parse(Some(amount)))).collect()
    };
    let mut sums: BTreeMap<String, Quantity> = BTreeMap::new();
    let init = list(pod, "/spec/initContainers");
    let sidecars = init.iter().filter(|container| text(container, "/restartPolicy") == "Always");
    for (name, amount) in list(pod, "/spec/containers").iter().chain(sidecars).flat_map(of) {
        let sum = sums.entry(name).or_default();
        *sum = *sum + amount;
    }
    for (name, amount) in init.iter().flat_map(of) {
        let sum = sums.entry(name).or_default();
        *sum = (*sum).max(amount);
    }
    sums
}

fn in_scope(quota: &Tree, pod: &Tree) -> bool {
    let best_effort = pod_amounts(pod, "requests").is_empty() && pod_amounts(pod, "limits").is_empty();
    let bounded = int(pod, "/spec/activeDeadlineSeconds").is_some();
    let class = text(pod, "/spec/priorityClassName");
    let holds = |scope: &str| match scope {
        "Terminating" => bounded,
        "NotTerminating" => !bounded,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => !class.is_empty(),
        _ => true,
    };
    let plain = words(list(quota, "/spec/scopes")).iter().all(|scope| holds(scope));
    plain
        && list(quota, "/spec/scopeSelector/matchExpressions").iter().all(|term| {
            let values = words(list(term, "/values"));
            match (text(term, "/scopeName"), text(term, "/operator")) {
                ("PriorityClass", "In") => values.iter().any(|value| value == class),
                ("PriorityClass", "NotIn") => !values.iter().any(|value| value == class),
                (scope, "DoesNotExist") => !holds(scope),
                (scope, _) => holds(scope),
            }
        })
}

/// Objects of a kind, and what Services and claims hold beyond their number.
fn count(ctx: &Ctx, snapshot: &Snapshot, key: &Key, name: &str) -> Option<Quantity> {
    let objects =
        |gvr: &Gvr| -> Vec<Arc<Object>> { snapshot.stream(gvr).in_namespace(&key.namespace).cloned().collect() };
    let services = || objects(&gvr_of::<Service>()).into_iter().map(|service| service.tree());
    let claims = || objects(&gvr_of::<PersistentVolumeClaim>()).into_iter().map(|claim| claim.tree());
    let sizes = |claims: &mut dyn Iterator<Item = Tree>| {
        claims.map(|claim| parse(claim.pointer("/spec/resources/requests/storage"))).sum()
    };
    match name {
        "services.loadbalancers" => {
            return Some(whole(services().filter(|service| text(service, "/spec/type") == "LoadBalancer").count()));
        }
        "services.nodeports" => {
            let ports = services().map(|service| {
                list(&service, "/spec/ports").iter().filter(|port| int(port, "/nodePort").unwrap_or(0) > 0).count()
            });
            return Some(whole(ports.sum()));
        }
        "requests.storage" => return Some(sizes(&mut claims())),
        _ => {}
    }
    if let Some((class, what)) = name.split_once(".storageclass.storage.k8s.io/") {
        let mut of = claims().filter(|claim| text(claim, "/spec/storageClassName") == class);
        return Some(if what == "requests.storage" { sizes(&mut of) } else { whole(of.count()) });
    }
    let resource = match name.strip_prefix("count/") {
        Some(resource) => resource,
        None => COUNTED.iter().copied().find(|known| *known == name)?,
    };
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let kinds = every_kind(&ctx.registry);
    let kind = kinds.iter().find(|kind| kind.resource == resource && kind.gvk.group == group)?;
    Some(whole(snapshot.stream(&kind.gvr()).in_namespace(&key.namespace).count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn counts_what_lives() {
        let mut world = World::new(&["resourcequota"]);
        let hard = json!({"pods": "10", "requests.cpu": "4", "limits.memory": "1Gi", "count/deployments.apps": "2", "secrets": "5"});
        world.put(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard}}));
        let resources = json!({"requests": {"cpu": "250m"}, "limits": {"memory": "128Mi"}});
        for (name, phase) in [("p1", "Running"), ("p2", "Pending"), ("p3", "Succeeded")] {
            world.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"},
                "spec": {"containers": [{"name": "c", "resources": resources}]}, "status": {"phase": phase}}));
        }
        world.put(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "a"}}));
        world.converge();
        let used = world.get("v1", "ResourceQuota", "a/q")["status"]["used"].clone();
        assert_eq!((&used["pods"], &used["requests.cpu"]), (&json!("2"), &json!("500m")));
        assert_eq!((&used["count/deployments.apps"], &used["secrets"]), (&json!("1"), &json!("0")));
        let memory = Quantity::parse(used["limits.memory"].as_str().unwrap()).unwrap();
        assert_eq!(memory.value_ceil(), 256 << 20);
    }
}
