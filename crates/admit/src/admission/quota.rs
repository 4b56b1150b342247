//! ResourceQuota: what a namespace may hold, counted in the same batch as what is added.

use std::collections::BTreeMap;

use api::{Object, Quantity, Status, Tree};
use std::sync::Arc;

use crate::context::{Cx, Gathered, place_of, put};
use crate::vocabulary::quantity;
use crate::{Change, doc, strategy};

type Usage = BTreeMap<String, Quantity>;

/// Adds what an object uses to every quota that counts it.
pub(super) fn count(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, gathered: &mut Gathered) -> Result<(), Status> {
    if !cx.kind.is_namespaced() || !(cx.sub().is_empty() || cx.sub() == "resize") || old.is_some() && !grows(cx) {
        return Ok(());
    }
    let before = old.map(|old| usage(cx, old)).unwrap_or_default();
    let after = usage(cx, tree);
    let mut refused = Vec::new();
    for quota in quotas(cx) {
        let mut document = quota.tree();
        if !in_scope(cx, &document, tree) {
            continue;
        }
        refused.extend(missing(cx, &document, tree));
        let delta = difference(&after, &before);
        match spend(&document, &delta) {
            Ok(Some(used)) => {
                doc::set(&mut document, "status.used", used);
                gathered.changes.push(write(&quota, &document));
            }
            Ok(None) => {}
            Err(why) => refused.push(format!("exceeded quota: {}, {why}", quota.key.name)),
        }
    }
    match refused.first() {
        Some(why) => Err(cx.forbidden(doc::text(tree, "metadata.name"), why)),
        None => Ok(()),
    }
}

/// Takes what an object used out of every quota that counted it.
pub(super) fn give_back(cx: &Cx<'_>, old: &Tree) -> Vec<Change> {
    if !cx.kind.is_namespaced() {
        return Vec::new();
    }
    let used = usage(cx, old);
    let mut changes = Vec::new();
    for quota in quotas(cx) {
        let mut document = quota.tree();
        if !in_scope(cx, &document, old) {
            continue;
        }
        let mut changed = false;
        for (resource, amount) in &used {
            let Some(have) = document["status"]["used"].get(resource).map(quantity) else { continue };
            let left = if have > *amount { have - *amount } else { Quantity::default() };
            doc::object_mut(&mut document, "status.used").insert(resource.clone(), left.to_string().into());
            changed = true;
        }
        if changed {
            changes.push(write(&quota, &document));
        }
    }
    changes
}

fn quotas(cx: &Cx<'_>) -> Vec<Arc<Object>> {
    if cx.is("", "ResourceQuota") {
        return Vec::new();
    }
    cx.list("", "resourcequotas", Some(&cx.request.namespace))
}

fn write(quota: &Arc<Object>, document: &Tree) -> Change {
    let place = place_of("", "resourcequotas", &quota.key.namespace, &quota.key.name);
    put(place, Some(quota.revision), document)
}

/// Updates that may use more.
fn grows(cx: &Cx<'_>) -> bool {
    cx.is("", "PersistentVolumeClaim") || cx.is("", "Service") || cx.is("", "Pod") && cx.sub() == "resize"
}

fn difference(after: &Usage, before: &Usage) -> Usage {
    let mut delta = after.clone();
    for (resource, amount) in before {
        let have = delta.get(resource).copied().unwrap_or_default();
        delta.insert(resource.clone(), have - *amount);
    }
    delta.retain(|_, amount| !amount.is_zero());
    delta
}

/// The new `status.used`, None where the quota counts none of it.
fn spend(quota: &Tree, delta: &Usage) -> Result<Option<Tree>, String> {
    let hard = doc::get(quota, "spec.hard");
    let mut used = doc::get(quota, "status.used").clone();
    let mut over: [Vec<String>; 3] = Default::default();
    let mut counted = false;
    for (resource, amount) in delta {
        let Some(limit) = hard.get(resource) else { continue };
        counted = true;
        let have = used.get(resource).map(quantity).unwrap_or_default();
        let total = have + *amount;
        if total > quantity(limit) && *amount > Quantity::default() {
            over[0].push(format!("{resource}={amount}"));
            over[1].push(format!("{resource}={have}"));
            over[2].push(format!("{resource}={}", limit.as_str().unwrap_or_default()));
        }
        doc::object_mut(&mut used, "").insert(resource.clone(), total.to_string().into());
    }
    if over[0].is_empty() {
        return Ok(counted.then_some(used));
    }
    let [requested, have, limited] = over.map(|list| list.join(","));
    Err(format!("requested: {requested}, used: {have}, limited: {limited}"))
}

/// A quota on compute makes every container say what it takes.
fn missing(cx: &Cx<'_>, quota: &Tree, tree: &Tree) -> Option<String> {
    if !cx.is("", "Pod") {
        return None;
    }
    let names = |resource: &str| match resource {
        "cpu" | "requests.cpu" => Some(("requests", "cpu")),
        "memory" | "requests.memory" => Some(("requests", "memory")),
        "limits.cpu" => Some(("limits", "cpu")),
        "limits.memory" => Some(("limits", "memory")),
        _ => None,
    };
    let containers = || doc::items(tree, "spec.containers").iter().chain(doc::items(tree, "spec.initContainers"));
    let mut lacking = Vec::new();
    for (resource, _) in doc::entries(quota, "spec.hard") {
        let Some((list, name)) = names(resource) else { continue };
        let lacks = |container: &&Tree| doc::get(container, "resources").get(list).and_then(|l| l.get(name)).is_none();
        let without: Vec<&str> = containers().filter(lacks).map(|container| doc::text(container, "name")).collect();
        if !without.is_empty() && !doc::has(tree, "spec.resources") {
            lacking.push(format!("{resource} for: {}", without.join(",")));
        }
    }
    let quota = doc::text(quota, "metadata.name");
    (!lacking.is_empty()).then(|| format!("failed quota: {quota}: must specify {}", lacking.join("; ")))
}

fn usage(cx: &Cx<'_>, tree: &Tree) -> Usage {
    let one = Quantity::from_units(1);
    let mut usage = Usage::new();
    let (group, resource) = (cx.kind.gvk.group.as_str(), cx.kind.resource.as_str());
    let counted = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    usage.insert(format!("count/{counted}"), one);
    match (group, resource) {
        ("", "pods") => return pod_usage(tree, usage),
        ("", "services") => service_usage(tree, &mut usage),
        ("", "persistentvolumeclaims") => claim_usage(tree, &mut usage),
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            usage.insert(resource.to_owned(), one);
        }
        _ => {}
    }
    usage
}

/// A pod that is over uses nothing but its entry.
fn pod_usage(pod: &Tree, mut usage: Usage) -> Usage {
    if matches!(doc::text(pod, "status.phase"), "Succeeded" | "Failed") {
        return usage;
    }
    usage.insert("pods".to_owned(), Quantity::from_units(1));
    for list in ["requests", "limits"] {
        for (resource, amount) in pod_resources(pod, list) {
            if list == "requests" && matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                usage.insert(resource.clone(), amount);
            }
            usage.insert(format!("{list}.{resource}"), amount);
        }
    }
    usage
}

/// The sum over containers, or the largest init container where that is more; sidecars count with the containers.
fn pod_resources(pod: &Tree, list: &str) -> Usage {
    let mut total = Usage::new();
    let mut add = |container: &Tree| {
        for (resource, amount) in doc::entries(doc::get(container, "resources"), list) {
            let have = total.get(resource).copied().unwrap_or_default();
            total.insert(resource.clone(), have + quantity(amount));
        }
    };
    let inits = doc::items(pod, "spec.initContainers");
    let is_sidecar = |container: &&Tree| doc::text(container, "restartPolicy") == "Always";
    doc::items(pod, "spec.containers").iter().chain(inits.iter().filter(is_sidecar)).for_each(&mut add);
    for container in inits.iter().filter(|container| !is_sidecar(container)) {
        for (resource, amount) in doc::entries(doc::get(container, "resources"), list) {
            let have = total.get(resource).copied().unwrap_or_default();
            total.insert(resource.clone(), have.max(quantity(amount)));
        }
    }
    for (resource, amount) in doc::entries(pod, "spec.overhead") {
        let have = total.get(resource).copied().unwrap_or_default();
        total.insert(resource.clone(), have + quantity(amount));
    }
    total
}

fn service_usage(service: &Tree, usage: &mut Usage) {
    let one = Quantity::from_units(1);
    usage.insert("services".to_owned(), one);
    let ports = i64::try_from(doc::items(service, "spec.ports").len()).unwrap_or(i64::MAX);
    match doc::text(service, "spec.type") {
        "NodePort" => drop(usage.insert("services.nodeports".to_owned(), Quantity::from_units(ports))),
        "LoadBalancer" => {
            usage.insert("services.nodeports".to_owned(), Quantity::from_units(ports));
            usage.insert("services.loadbalancers".to_owned(), one);
        }
        _ => {}
    }
}

fn claim_usage(claim: &Tree, usage: &mut Usage) {
    let (one, size) = (Quantity::from_units(1), quantity(doc::get(claim, "spec.resources.requests.storage")));
    usage.insert("persistentvolumeclaims".to_owned(), one);
    usage.insert("requests.storage".to_owned(), size);
    let class = doc::text(claim, "spec.storageClassName");
    if !class.is_empty() {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        usage.insert(format!("{prefix}/persistentvolumeclaims"), one);
        usage.insert(format!("{prefix}/requests.storage"), size);
    }
}

/// Scopes narrow a quota to some pods.
fn in_scope(cx: &Cx<'_>, quota: &Tree, tree: &Tree) -> bool {
    let plain =
        doc::items(quota, "spec.scopes").iter().filter_map(Tree::as_str).map(|scope| (scope, "Exists", Vec::new()));
    let selected = doc::items(quota, "spec.scopeSelector.matchExpressions").iter().map(|term| {
        let values = doc::items(term, "values").iter().filter_map(Tree::as_str).collect::<Vec<_>>();
        (doc::text(term, "scopeName"), doc::text(term, "operator"), values)
    });
    plain.chain(selected).all(|(scope, operator, values)| {
        if !cx.is("", "Pod") {
            return false;
        }
        let spec = doc::get(tree, "spec");
        let best_effort = strategy::quality(tree) == "BestEffort";
        let class = doc::text(spec, "priorityClassName");
        match scope {
            "Terminating" => doc::has(spec, "activeDeadlineSeconds"),
            "NotTerminating" => !doc::has(spec, "activeDeadlineSeconds"),
            "BestEffort" => best_effort,
            "NotBestEffort" => !best_effort,
            "PriorityClass" => match operator {
                "In" => values.contains(&class),
                "NotIn" => !values.contains(&class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            },
            _ => false,
        }
    })
}
