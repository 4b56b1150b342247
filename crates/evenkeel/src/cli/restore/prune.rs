//! `evenkeel restore --prune`: nodes that a restore brought back as objects and that no machine stands behind.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::{Gvr, Key, Tree};
use jiff::Timestamp;
use serde_json::json;
use view::{Client, ListOptions};

use crate::cli::output::table;
use crate::layout::Layout;
use crate::wire::{admin, pid};

/// A node that does not report, and what hangs on it.
#[derive(Debug, PartialEq, Eq)]
struct Ghost {
    node: String,
    pods: usize,
}

/// As long after its start a server does not know yet who comes back: nodes look for it and report anew, and what a
/// bundle says of them is from before.
const COMING_BACK: Duration = Duration::from_secs(40);

/// Between two looks while they come back.
const AGAIN: Duration = Duration::from_secs(2);

pub async fn run(layout: &Layout, yes: bool) -> Result<()> {
    let client = admin::own_client(layout).context("the restored server must run first")?;
    let ghosts = after_all_came_back(&client, pid::age(layout).unwrap_or_default()).await?;
    if ghosts.is_empty() {
        println!("Every node reports; nothing is to be pruned.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = ghosts.iter().map(|ghost| vec![ghost.node.clone(), ghost.pods.to_string()]).collect();
    println!(
        "These nodes do not report. Machines that come back rejoin by themselves; those that never will are ghosts.\n"
    );
    print!("{}", table(&["NODE", "PODS"], &rows));
    if !yes && !agreed()? {
        println!("Nothing was removed.");
        return Ok(());
    }
    for ghost in &ghosts {
        let key = Key::cluster(&ghost.node);
        client.delete(&Gvr::new("", "v1", "nodes"), &key, &json!({})).await.with_context(|| format!("remove {key}"))?;
        println!("removed node {}; its {} pods go with it and come up elsewhere", ghost.node, ghost.pods);
    }
    Ok(())
}

/// Those that stay silent, for a server of that age.
async fn after_all_came_back(client: &Client, age: Duration) -> Result<Vec<Ghost>> {
    let end = Instant::now() + COMING_BACK.saturating_sub(age);
    let start = Timestamp::now() - age;
    let mut told = false;
    loop {
        let nodes = list(client, &Gvr::new("", "v1", "nodes")).await?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(ghosts(&nodes, &list(client, &Gvr::new("", "v1", "pods")).await?));
        }
        let leases = list(client, &Gvr::new("coordination.k8s.io", "v1", "leases")).await?;
        if nodes.iter().all(|node| renewed(node, &leases, start)) {
            return Ok(Vec::new());
        }
        if !told {
            println!("The server has just started: up to {} s for nodes to come back ...", left.as_secs());
            told = true;
        }
        tokio::time::sleep(AGAIN.min(left)).await;
    }
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

fn agreed() -> Result<bool> {
    print!("\nRemove them with their pods? Volumes on their disks stay there and are no longer reached. [y/N] ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        bail!("nobody answered; --yes removes them without asking");
    }
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

async fn list(client: &Client, gvr: &Gvr) -> Result<Vec<Tree>> {
    let page = client.list(gvr, &ListOptions::default()).await.with_context(|| format!("list {}", gvr.resource))?;
    Ok(page.items.iter().map(|object| object.tree()).collect())
}

fn ghosts(nodes: &[Tree], pods: &[Tree]) -> Vec<Ghost> {
    let reports = |node: &Tree| {
        let conditions = node.pointer("/status/conditions").and_then(Tree::as_array).into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] != "Unknown")
    };
    let silent = nodes.iter().filter(|node| !reports(node));
    let names = silent.filter_map(|node| node.pointer("/metadata/name").and_then(Tree::as_str));
    let on = |name: &str| pods.iter().filter(|pod| pod.pointer("/spec/nodeName") == Some(&json!(name))).count();
    names.map(|name| Ghost { node: name.to_owned(), pods: on(name) }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Ghost, ghosts, renewed};
    use serde_json::json;

    #[test]
    fn nodes_that_do_not_report_are_ghosts() {
        let node = |name: &str, ready: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let nodes = [node("a", "True"), node("b", "Unknown"), node("c", "False")];
        let pods = [json!({"spec": {"nodeName": "a"}}), json!({"spec": {"nodeName": "b"}}), json!({"spec": {}})];
        assert_eq!(ghosts(&nodes, &pods), [Ghost { node: "b".to_owned(), pods: 1 }]);
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
