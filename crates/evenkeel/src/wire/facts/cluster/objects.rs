//! Objects that hold others up: budgets, finalizers, webhooks.

use std::collections::BTreeMap;

use api::LabelSelector;
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};
use keeper::wrong::{Name, What};
use serde_json::Value;

use super::{Lists, condition, full_name, list_at, number, text, time};

/// Something that is being deleted may take this long.
const DELETE_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// A namespace that says itself what it waits for is believed earlier.
const DELETE_AFTER_WORD: SignedDuration = SignedDuration::from_secs(20);

pub fn facts(lists: &Lists, now: Timestamp) -> Vec<(Name, What)> {
    let stuck = lists.namespaces.items.iter().filter_map(|one| namespace(one, now));
    let stuck = stuck.chain(lists.pods.items.iter().filter_map(|one| object("pod", one, now)));
    let stuck = stuck.chain(lists.claims.items.iter().filter_map(|one| object("persistentvolumeclaim", one, now)));
    stuck.chain(budgets(lists)).chain(webhooks(lists)).collect()
}

fn namespace(one: &Value, now: Timestamp) -> Option<(Name, What)> {
    let since = time(one, "/metadata/deletionTimestamp")?;
    let says = ["NamespaceFinalizersRemaining", "NamespaceContentRemaining"].into_iter().find_map(|kind| {
        let condition = condition(one, kind).filter(|condition| condition["status"] == "True")?;
        let message = text(condition, "/message");
        // What comes before the colon says again that something is left.
        Some(message.split_once(": ").map_or(message, |(_, what)| what).to_owned())
    });
    let patience = if says.is_some() { DELETE_AFTER_WORD } else { DELETE_AFTER };
    if now.duration_since(since) < patience {
        return None;
    }
    let name = text(one, "/metadata/name");
    let waits_for = says.unwrap_or_else(|| "its content".to_owned());
    Some((name.into(), What::Terminating { resource: format!("namespace/{name}"), since, waits_for }))
}

fn object(kind: &str, one: &Value, now: Timestamp) -> Option<(Name, What)> {
    let since = time(one, "/metadata/deletionTimestamp").filter(|at| DELETE_AFTER < now.duration_since(*at))?;
    let finalizers: Vec<&str> = list_at(one, "/metadata/finalizers").filter_map(Value::as_str).collect();
    if finalizers.is_empty() {
        return None;
    }
    let (name, space) = (text(one, "/metadata/name"), text(one, "/metadata/namespace"));
    let resource = format!("{kind}/{name} -n {space}");
    Some((full_name(one), What::Terminating { resource, since, waits_for: finalizers.join(", ") }))
}

/// Pods of cordoned nodes that no budget lets go.
fn budgets(lists: &Lists) -> Vec<(Name, What)> {
    let cordoned = |node: &&Value| node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    let nodes: Vec<&str> = lists.nodes.items.iter().filter(cordoned).map(|node| text(node, "/metadata/name")).collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    let closed = lists.budgets.items.iter().filter(|one| number(one, "/status/disruptionsAllowed") == Some(0));
    let closed: Vec<(&Value, LabelSelector)> =
        closed.filter_map(|one| Some((one, LabelSelector::from_tree(one.pointer("/spec/selector")?).ok()?))).collect();
    let find = |pod: &Value| {
        let node = text(pod, "/spec/nodeName");
        let (space, labels) = (text(pod, "/metadata/namespace"), labels(pod));
        let budget = closed
            .iter()
            .find(|(one, selector)| text(one, "/metadata/namespace") == space && selector.matches(&labels));
        let (budget, _) = budget.filter(|_| nodes.contains(&node))?;
        Some((full_name(pod), What::EvictionBlocked { node: node.into(), budget: full_name(budget).into() }))
    };
    lists.pods.items.iter().filter_map(find).collect()
}

fn labels(object: &Value) -> BTreeMap<SmolStr, SmolStr> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    labels.map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into())).collect()
}

/// Webhooks that refuse when they are not answered, and have nobody behind them.
fn webhooks(lists: &Lists) -> Vec<(Name, What)> {
    let kinds =
        [("validatingwebhookconfiguration", &lists.validating), ("mutatingwebhookconfiguration", &lists.mutating)];
    let all = kinds.iter().flat_map(|(kind, list)| list.items.iter().map(move |one| (*kind, one)));
    let find = |(kind, one): (&str, &Value)| {
        let resource = format!("{kind}/{}", text(one, "/metadata/name"));
        let dead =
            list_at(one, "/webhooks").filter(|hook| text(hook, "/failurePolicy") != "Ignore").find_map(|hook| {
                let service = hook.pointer("/clientConfig/service")?;
                let (space, name) = (text(service, "/namespace"), text(service, "/name"));
                (!is_served(lists, space, name)).then(|| format!("{space}/{name}"))
            })?;
        Some((Name::from(dead.as_str()), What::Webhook { resource, service: dead }))
    };
    all.filter_map(find).collect()
}

fn is_served(lists: &Lists, namespace: &str, service: &str) -> bool {
    let of = |slice: &&Value| {
        text(slice, "/metadata/namespace") == namespace
            && text(slice, "/metadata/labels/kubernetes.io~1service-name") == service
    };
    let mut slices = lists.slices.items.iter().filter(of);
    slices.any(|slice| {
        list_at(slice, "/endpoints").any(|one| one.pointer("/conditions/ready") != Some(&Value::Bool(false)))
    })
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

    fn found(lists: &Lists) -> Vec<What> {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        facts(lists, now).into_iter().map(|(_, what)| what).collect()
    }

    #[test]
    fn a_budget_blocks_only_what_it_selects_on_a_cordoned_node() {
        let pod = |name: &str, node: &str| json!({"metadata": {"name": name, "namespace": "shop", "labels": {"app": "db"}}, "spec": {"nodeName": node}});
        let budget = json!({"metadata": {"name": "db", "namespace": "shop"}, "status": {"disruptionsAllowed": 0},
            "spec": {"selector": {"matchLabels": {"app": "db"}}}});
        let lists = Lists {
            nodes: list(vec![json!({"metadata": {"name": "a"}, "spec": {"unschedulable": true}})]),
            pods: list(vec![pod("db-0", "a"), pod("db-1", "b")]),
            budgets: list(vec![budget]),
            ..Lists::default()
        };
        let found = found(&lists);
        assert!(matches!(&found[..], [What::EvictionBlocked { budget, .. }] if budget == "shop/db"), "{found:?}");
    }

    #[test]
    fn a_webhook_without_endpoints_is_dead_unless_it_fails_open() {
        let hook = |policy: &str| {
            json!({"metadata": {"name": policy}, "webhooks": [{"failurePolicy": policy,
                "clientConfig": {"service": {"namespace": "k", "name": "s"}}}]})
        };
        let slice = json!({"metadata": {"namespace": "k", "labels": {"kubernetes.io/service-name": "s"}},
            "endpoints": [{"conditions": {"ready": true}}]});
        let mut lists = Lists { validating: list(vec![hook("Fail"), hook("Ignore")]), ..Lists::default() };
        assert_eq!(found(&lists).len(), 1);
        lists.slices = list(vec![slice]);
        assert!(found(&lists).is_empty());
    }

    #[test]
    fn a_namespace_that_stays_says_what_for() {
        let one = json!({"metadata": {"name": "old", "deletionTimestamp": "2026-01-01T00:59:00Z"}, "status": {"conditions": [
            {"type": "NamespaceFinalizersRemaining", "status": "True", "message": "foo in 1 resource"}]}});
        let lists = Lists { namespaces: list(vec![one]), ..Lists::default() };
        assert!(matches!(&found(&lists)[..], [What::Terminating { waits_for, .. }] if waits_for.starts_with("foo")));
    }
}
