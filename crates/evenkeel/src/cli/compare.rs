//! `evenkeel compare NODE NODE`: in what two nodes differ, of what they report of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use api::{Gvr, Tree};
use base::Clock;
use keeper::wrong::answer;
use serde::Serialize;
use view::ListOptions;

use super::args::CompareArgs;
use super::attention;
use super::output::table;
use super::wrong::look;
use crate::pki::Kubeconfig;
use crate::wire::drift::Published;
use crate::wire::{SystemClock, admin};

/// What is each node's own: it differs always and says nothing.
const OWN: [&str; 4] = ["bootID", "machineID", "systemUUID", "kubernetes.io/hostname"];

#[derive(Debug, Serialize)]
struct Report {
    head: String,
    /// What differs, by what it is called.
    differences: BTreeMap<String, [String; 2]>,
}

pub async fn run(args: CompareArgs) -> Result<ExitCode> {
    let layout = args.ask.common.layout();
    let facts = look(&layout, &args.ask.common.config, args.ask.kubeconfig.as_deref()).await?;
    let path = args.ask.kubeconfig.clone().unwrap_or_else(|| layout.kubeconfig());
    let client = admin::client(&Kubeconfig::load(&path)?)?;
    let page = client.list(&Gvr::new("", "v1", "nodes"), &ListOptions::default()).await.context("list the nodes")?;
    let nodes: Vec<Tree> = page.items.iter().map(|item| item.tree()).collect();
    let of = |name: &str| {
        let found = nodes.iter().find(|node| node.pointer("/metadata/name").and_then(Tree::as_str) == Some(name));
        found.map_or_else(|| bail!("there is no node {name}"), |node| Ok(told(node)))
    };
    let differences = differences(&of(&args.one)?, &of(&args.other)?);
    let report = Report { head: answer(&facts, SystemClock.now()).head(), differences };
    if args.ask.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let rows = report.differences.iter().map(|(what, [one, other])| vec![what.clone(), one.clone(), other.clone()]);
        let rows: Vec<Vec<String>> = rows.collect();
        println!("{}", report.head);
        if rows.is_empty() {
            println!("{} and {} do not differ", args.one, args.other);
        } else {
            print!("{}", table(&["WHAT", &args.one, &args.other], &rows));
        }
    }
    Ok(if report.differences.is_empty() { ExitCode::SUCCESS } else { attention() })
}

/// What a node says of itself, each under a name.
fn told(node: &Tree) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let parts = [("", "/status/nodeInfo"), ("capacity ", "/status/capacity"), ("label ", "/metadata/labels")];
    for (prefix, pointer) in parts {
        for (key, value) in node.pointer(pointer).and_then(Tree::as_object).into_iter().flatten() {
            if let Some(text) = value.as_str().filter(|_| !OWN.contains(&key.as_str())) {
                found.insert(format!("{prefix}{key}"), text.to_owned());
            }
        }
    }
    let drift = Published::of_node(node).unwrap_or_default();
    found.extend(drift.lines.iter().map(|line| (format!("{} {}", line.kind.word(), line.name), line.change.clone())));
    found.extend(drift.added.iter().map(|(kind, added)| (format!("{kind} since it joined"), added.names.join(", "))));
    found
}

fn differences(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> BTreeMap<String, [String; 2]> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let of = |told: &BTreeMap<String, String>, name: &String| told.get(name).cloned().unwrap_or_else(|| "-".to_owned());
    let both = names.into_iter().map(|name| (name.clone(), [of(one, name), of(other, name)]));
    both.filter(|(_, [one, other])| one != other).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{differences, told};

    #[test]
    fn only_what_differs_is_told() {
        let node = |name: &str, kernel: &str, memory: &str| {
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "disk": "ssd"}},
                "status": {"nodeInfo": {"kernelVersion": kernel, "bootID": name}, "capacity": {"memory": memory}}})
        };
        let (a, b) = (told(&node("a", "6.1", "8Gi")), told(&node("b", "6.18", "8Gi")));
        assert_eq!(
            differences(&a, &b).into_iter().collect::<Vec<_>>(),
            [("kernelVersion".to_owned(), ["6.1".to_owned(), "6.18".to_owned()])]
        );
        assert!(differences(&a, &a).is_empty());
    }
}
