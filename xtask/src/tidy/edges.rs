//! The layers: which crate may name which. A new edge is an architectural change and needs an ADR.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::Value;

use crate::process;

/// The crates in the order a request travels, with the edges each may have. `*` is everything.
const EDGES: [(&str, &str); 18] = [
    ("base", ""),
    ("api", "base"),
    ("admit", "base api"),
    ("store", "base api admit"),
    ("apiserver", "base api admit store"),
    ("view", "base api"),
    ("reconcile", "base api view"),
    ("controllers", "base api"),
    ("schedule", "base api"),
    ("node", "base api view reconcile"),
    ("container", "base"),
    ("net", "base api view reconcile"),
    ("keeper", "base"),
    ("evenkeel", "*"),
    ("sim", "*"),
    ("e2e", ""),
    ("fuzz", "api"),
    ("xtask", ""),
];

/// Crates whose closure must not contain an async runtime: they decide, they do not perform.
const PURE: [&str; 6] = ["base", "api", "admit", "controllers", "schedule", "keeper"];
const RUNTIMES: [&str; 3] = ["tokio", "hyper", "async-std"];

pub fn check() -> anyhow::Result<Vec<String>> {
    let text = process::output(&process::cargo(), &["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Value = serde_json::from_str(&text).context("read cargo metadata")?;
    let graph = Graph::of(&metadata);
    let mut findings = graph.forbidden_edges();
    findings.extend(graph.impure());
    Ok(findings)
}

/// Package name -> names of the packages it is built with (normal dependencies that are ever built).
struct Graph {
    ours: BTreeSet<String>,
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn of(metadata: &Value) -> Graph {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let packages = list(&metadata["packages"]);
        let names: BTreeMap<String, String> =
            packages.iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let members = list(&metadata["workspace_members"]);
        let ours = members.iter().filter_map(|id| names.get(&text(id)).cloned()).collect();
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let from = names.get(&text(&node["id"])).cloned().unwrap_or_default();
            let built = list(&node["deps"]).into_iter().filter(|dep| list(&dep["dep_kinds"]).iter().any(is_built));
            let to = built.filter_map(|dep| names.get(&text(&dep["pkg"])).cloned());
            needs.entry(from).or_default().extend(to);
        }
        Graph { ours, needs }
    }

    fn forbidden_edges(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for name in &self.ours {
            let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
                findings.push(format!("crate {name} is not in the edge table"));
                continue;
            };
            let edges = self.needs.get(name).into_iter().flatten().filter(|to| self.ours.contains(*to));
            let forbidden = edges.filter(|to| *allowed != "*" && !allowed.split(' ').any(|ok| ok == to.as_str()));
            findings.extend(forbidden.map(|to| format!("edge {name} -> {to} is not allowed")));
        }
        findings
    }

    fn impure(&self) -> Vec<String> {
        let runtimes = |name: &&str| {
            let closure = self.closure(name);
            let found: Vec<&str> = RUNTIMES.into_iter().filter(|runtime| closure.contains(*runtime)).collect();
            (!found.is_empty()).then(|| format!("crate {name} is pure but is built with {}", found.join(", ")))
        };
        PURE.iter().filter_map(runtimes).collect()
    }

    fn closure(&self, name: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(next) = open.pop() {
            let needs = self.needs.get(&next).into_iter().flatten();
            open.extend(needs.filter(|need| seen.insert((*need).clone())).cloned());
        }
        seen
    }
}

/// Development, build and never-compiled (`cfg(any())`) dependencies do not reach the crate's code.
fn is_built(kind: &Value) -> bool {
    kind["kind"].is_null() && kind["target"].as_str() != Some("cfg(any())")
}
