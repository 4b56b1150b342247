//! `evenkeel restore --prune`: nodes that a restore brought back as objects and that no machine stands behind.

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};
use api::{Gvr, Key, Tree};
use serde_json::json;
use view::{Client, ListOptions};

use crate::cli::output::table;
use crate::layout::Layout;
use crate::wire::admin;

/// A node that does not report, and what hangs on it.
#[derive(Debug, PartialEq, Eq)]
struct Ghost {
    node: String,
    pods: usize,
}

pub async fn run(layout: &Layout, yes: bool) -> Result<()> {
    let client = admin::own_client(layout).context("the restored server must run first")?;
    let (nodes, pods) = (list(&client, "nodes").await?, list(&client, "pods").await?);
    let ghosts = ghosts(&nodes, &pods);
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

fn agreed() -> Result<bool> {
    print!("\nRemove them with their pods? Volumes on their disks stay there and are no longer reached. [y/N] ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        bail!("nobody answered; --yes removes them without asking");
    }
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

async fn list(client: &Client, resource: &str) -> Result<Vec<Tree>> {
    let page = client.list(&Gvr::new("", "v1", resource), &ListOptions::default()).await;
    let page = page.with_context(|| format!("list {resource}"))?;
    Ok(page.items.iter().map(|object| object.tree()).collect())
}

fn ghosts(nodes: &[Tree], pods: &[Tree]) -> Vec<Ghost> {
    let reports = |node: &Tree| {
        let conditions = node.pointer("/status/conditions").and_then(Tree::as_array).into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let silent = nodes.iter().filter(|node| !reports(node));
    let names = silent.filter_map(|node| node.pointer("/metadata/name").and_then(Tree::as_str));
    let on = |name: &str| pods.iter().filter(|pod| pod.pointer("/spec/nodeName") == Some(&json!(name))).count();
    names.map(|name| Ghost { node: name.to_owned(), pods: on(name) }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Ghost, ghosts};
    use serde_json::json;

    #[test]
    fn nodes_that_do_not_report_are_ghosts() {
        let node = |name: &str, ready: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let nodes = [node("a", "True"), node("b", "Unknown")];
        let pods = [json!({"spec": {"nodeName": "a"}}), json!({"spec": {"nodeName": "b"}}), json!({"spec": {}})];
        assert_eq!(ghosts(&nodes, &pods), [Ghost { node: "b".to_owned(), pods: 1 }]);
    }
}
