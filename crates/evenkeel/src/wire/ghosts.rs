//! Nodes that are objects and nothing more: no machine stands behind them any more, or none that is heard of.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::{Gvr, Tree};
use base::Clock;
use jiff::Timestamp;
use serde_json::json;
use view::{Client, ListOptions};

use super::SystemClock;
use super::join::records::Records;

/// As long after its start a server does not know yet who comes back: nodes look for it and report anew, and what a
/// bundle says of them is from before.
const COMING_BACK: Duration = Duration::from_secs(40);
/// Between two looks while they come back.
const AGAIN: Duration = Duration::from_secs(2);

/// A node, and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ghost {
    pub node: String,
    pub pods: usize,
    /// Its machine was given up in a recovery or a restore, and has not joined anew; else it is only not heard of.
    pub given_up: bool,
}

/// Nodes of machines that were given up and that nobody has joined as since, in the order of their names.
pub async fn given_up(client: &Client) -> Result<Vec<Ghost>> {
    let mut found = all(client).await?;
    found.retain(|ghost| ghost.given_up);
    Ok(found)
}

/// With nodes that do not report, for a server that runs for so long. `wait` is told once how long it may take until all
/// that come back have come.
pub async fn silent(client: &Client, age: Duration, wait: impl FnOnce(Duration)) -> Result<Vec<Ghost>> {
    let end = Instant::now() + COMING_BACK.saturating_sub(age);
    let start = SystemClock.now() - age;
    let mut wait = Some(wait);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return all(client).await;
        }
        let leases = list(client, &Gvr::new("coordination.k8s.io", "v1", "leases")).await?;
        if list(client, &Gvr::new("", "v1", "nodes")).await?.iter().all(|node| renewed(node, &leases, start)) {
            return given_up(client).await;
        }
        if let Some(wait) = wait.take() {
            wait(left);
        }
        tokio::time::sleep(AGAIN.min(left)).await;
    }
}

async fn all(client: &Client) -> Result<Vec<Ghost>> {
    let machines = Records::new(client.clone()).machines().await?.into_iter().map(|recorded| recorded.machine);
    let out: Vec<String> = machines.filter(|machine| machine.machine.is_none()).map(|machine| machine.node).collect();
    let nodes = list(client, &Gvr::new("", "v1", "nodes")).await?;
    Ok(ghosts(&nodes, &list(client, &Gvr::new("", "v1", "pods")).await?, &out))
}

async fn list(client: &Client, gvr: &Gvr) -> Result<Vec<Tree>> {
    let page = client.list(gvr, &ListOptions::default()).await.with_context(|| format!("list {}", gvr.resource))?;
    Ok(page.items.iter().map(|object| object.tree()).collect())
}

/// Whether a node renewed its lease since then.
fn renewed(node: &Tree, leases: &[Tree], since: Timestamp) -> bool {
    let own = |lease: &&Tree| {
        lease.pointer("/metadata/namespace") == Some(&json!("kube-node-lease"))
            && lease.pointer("/metadata/name") == node.pointer("/metadata/name")
    };
    let time = leases.iter().find(own).and_then(|lease| lease.pointer("/spec/renewTime")).and_then(Tree::as_str);
    time.and_then(|time| time.parse::<Timestamp>().ok()).is_some_and(|time| time > since)
}

/// `out` are the nodes whose machines were given up.
fn ghosts(nodes: &[Tree], pods: &[Tree], out: &[String]) -> Vec<Ghost> {
    let reports = |node: &Tree| {
        let conditions = node.pointer("/status/conditions").and_then(Tree::as_array).into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] != "Unknown")
    };
    let on = |name: &str| pods.iter().filter(|pod| pod.pointer("/spec/nodeName") == Some(&json!(name))).count();
    let ghost = |node: &Tree| {
        let name = node.pointer("/metadata/name").and_then(Tree::as_str)?;
        let given_up = out.iter().any(|one| one == name);
        (given_up || !reports(node)).then(|| Ghost { node: name.to_owned(), pods: on(name), given_up })
    };
    let mut found: Vec<Ghost> = nodes.iter().filter_map(ghost).collect();
    found.sort_by(|one, other| one.node.cmp(&other.node));
    found
}

#[cfg(test)]
mod tests {
    use super::{Ghost, ghosts, renewed};
    use serde_json::json;

    #[test]
    fn nodes_without_a_machine_and_nodes_that_do_not_report_are_ghosts() {
        let node = |name: &str, ready: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let nodes = [node("d", "True"), node("a", "True"), node("b", "Unknown"), node("c", "False")];
        let pods = [json!({"spec": {"nodeName": "a"}}), json!({"spec": {"nodeName": "b"}}), json!({"spec": {}})];
        let ghost = |node: &str, pods: usize, given_up: bool| Ghost { node: node.to_owned(), pods, given_up };
        let found = ghosts(&nodes, &pods, &["d".to_owned(), "gone".to_owned()]);
        assert_eq!(found, [ghost("b", 1, false), ghost("d", 0, true)]);
    }

    #[test]
    fn a_lease_out_of_the_bundle_is_no_report() {
        let node = json!({"metadata": {"name": "a"}});
        let lease = |time: &str| json!({"metadata": {"namespace": "kube-node-lease", "name": "a"}, "spec": {"renewTime": time}});
        let (before, after) = (lease("2026-01-01T00:00:00.000000Z"), lease("2026-01-01T00:01:01.000000Z"));
        let start = "2026-01-01T00:01:00Z".parse().unwrap();
        assert!(!renewed(&node, &[], start));
        assert!(!renewed(&node, &[before], start));
        assert!(renewed(&node, &[after], start));
    }
}
