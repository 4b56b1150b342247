//! `evenkeel diff`: what is declared against what runs, node by node. Empty where there is nothing to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use base::Clock;
use bytes::Bytes;
use http::Request;
use keeper::wrong::answer;
use keeper::{NodeName, NodeTarget};
use serde::Serialize;

use super::args::AskArgs;
use super::attention;
use super::drift::published;
use super::wrong::look;
use crate::layout::Layout;
use crate::pki::Kubeconfig;
use crate::wire::drift::Published;
use crate::wire::facts::node_name;
use crate::wire::keeper::PATH;
use crate::wire::keeper::api::{NodeStatus, Status};
use crate::wire::{SystemClock, admin, pid};

#[derive(Debug, Serialize)]
struct Report {
    head: String,
    /// By node; nodes without a difference are left out.
    nodes: BTreeMap<String, Vec<String>>,
}

pub async fn run(args: AskArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    let facts = look(&layout, &args.common.config, args.kubeconfig.as_deref()).await?;
    let status = status(&args).await?;
    let mut nodes = programs(&status);
    for (node, told) in published(&args).await? {
        nodes.entry(node).or_default().extend(told.iter().flat_map(by_hand));
    }
    if args.kubeconfig.is_none() && is_newer(&args.common.config, &layout) {
        let what = format!("{} was written after the program started: restart it", args.common.config.display());
        nodes.entry(node_name(&layout).to_string()).or_default().push(what);
    }
    nodes.retain(|_, differences| !differences.is_empty());
    let report = Report { head: answer(&facts, SystemClock.now()).head(), nodes };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.nodes.is_empty() { ExitCode::SUCCESS } else { attention() })
}

/// What the keeper knows.
async fn status(args: &AskArgs) -> Result<Status> {
    let path = args.kubeconfig.clone().unwrap_or_else(|| args.common.layout().kubeconfig());
    let request = Request::get(format!("{PATH}status")).body(Bytes::new())?;
    let (code, body) = admin::exchange(&Kubeconfig::load(&path)?, &[], request).await.context("ask the server")?;
    ensure!(code == 200, "the server answered {code}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).context("read the server's answer")
}

/// Nodes that run what nobody declared, or say nothing.
fn programs(status: &Status) -> BTreeMap<String, Vec<String>> {
    let Some(generation) = &status.generation else { return BTreeMap::new() };
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, node) in &status.nodes {
        let target = generation.nodes.get(&NodeName(name.as_str().into()));
        let differences = found.entry(name.clone()).or_default();
        differences.extend(program(target, node, generation.number));
        differences.extend(settings(target, node, generation.number));
    }
    for NodeName(name) in generation.nodes.keys().filter(|name| !status.nodes.contains_key(name.0.as_str())) {
        found.entry(name.to_string()).or_default().push("is declared and not there".to_owned());
    }
    found
}

fn program(target: Option<&NodeTarget>, node: &NodeStatus, generation: u64) -> Option<String> {
    match (target, &node.report) {
        (None, Some(_)) => Some(format!("is there and not declared: generation {generation} does not name it")),
        (_, None) => Some(format!("says nothing: {}", node.silent.as_deref().unwrap_or_default())),
        (Some(target), Some(report)) if target.runs.release == report.running.release => None,
        (Some(target), Some(report)) => {
            let (shall, runs) = (&target.runs.release, &report.running.release);
            Some(format!(
                "runs {} ({}), generation {generation} says {} ({})",
                runs.version,
                runs.program.short(),
                shall.version,
                shall.program.short()
            ))
        }
    }
}

/// What the program was started with, against what the cluster file says.
fn settings(target: Option<&NodeTarget>, node: &NodeStatus, generation: u64) -> Vec<String> {
    let (Some(target), Some(report)) = (target, &node.report) else { return Vec::new() };
    let changes = report.running.settings.changes(&target.runs.settings);
    changes.into_iter().map(|change| format!("{change} in generation {generation}: evenkeel apply")).collect()
}

fn by_hand(told: &Published) -> Vec<String> {
    let lines = told.lines.iter().map(|line| format!("{}: {} {}", line.kind.word(), line.name, line.change));
    let more = told.open.saturating_sub(told.lines.len());
    let more = (more != 0).then(|| format!("{more} more changes by hand"));
    lines.chain(more).collect()
}

/// Whether the running program has not read this file as it is.
fn is_newer(config: &Path, layout: &Layout) -> bool {
    let written = std::fs::metadata(config).and_then(|found| found.modified());
    let started = pid::age(layout).and_then(|age| SystemTime::now().checked_sub(age));
    matches!((written, started), (Ok(written), Some(started)) if started < written)
}

// === impl Report ===

impl Report {
    fn text(&self) -> String {
        let mut out = format!("{}\n", self.head);
        for (node, differences) in &self.nodes {
            for difference in differences {
                let _ = writeln!(out, "{node}: {difference}");
            }
        }
        out
    }
}
