//! `evenkeel drift`: what was changed by hand, on which node, since when, and who was logged in.
//!
//! Of this machine its own ledger is read, with the API down as well; of others what they told the cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use api::Gvr;
use base::Clock;
use jiff::Timestamp;
use keeper::drift::{How, Ledger, Line, Policy};
use keeper::wrong::answer;
use serde::Serialize;
use view::ListOptions;

use super::args::{AskArgs, DriftArgs};
use super::attention;
use super::output::table;
use super::wrong::look;
use crate::pki::Kubeconfig;
use crate::wire::drift::{Added, Inventory, Published, Shelf, Told};
use crate::wire::facts::node_name;
use crate::wire::{SystemClock, admin};

/// Lines that are over and shown with `--all`.
const OVER_MAX: usize = 20;

/// One node's drift as it is shown.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    policy: Policy,
    open: usize,
    lines: Vec<Told>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    over: Vec<Line>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    added: BTreeMap<String, Added>,
}

#[derive(Debug, Serialize)]
struct Report {
    head: String,
    nodes: BTreeMap<String, Shown>,
    /// Nodes that do not tell.
    silent: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

pub async fn run(args: DriftArgs) -> Result<ExitCode> {
    let layout = args.ask.common.layout();
    let facts = look(&layout, &args.ask.common.config, args.ask.kubeconfig.as_deref()).await?;
    let head = answer(&facts, SystemClock.now()).head();
    let mut report = Report { head, nodes: BTreeMap::new(), silent: Vec::new(), missing: None };
    match published(&args.ask).await {
        Ok(nodes) => report.take(nodes, args.all),
        Err(error) => report.missing = Some(format!("only this machine is shown: {}", error.root_cause())),
    }
    report.own(&args)?;
    if let Some(node) = &args.node {
        report.nodes.retain(|name, _| name == node);
        report.silent.retain(|name| name == node);
        let known = !report.nodes.is_empty() || !report.silent.is_empty();
        ensure!(known || report.missing.is_some(), "there is no node {node}");
    }
    if args.ask.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    let open = report.nodes.values().any(|shown| shown.open != 0);
    Ok(if open { attention() } else { ExitCode::SUCCESS })
}

/// What every node told the cluster; None for one that told nothing.
pub async fn published(ask: &AskArgs) -> Result<BTreeMap<String, Option<Published>>> {
    let path = ask.kubeconfig.clone().unwrap_or_else(|| ask.common.layout().kubeconfig());
    let client = admin::client(&Kubeconfig::load(&path)?)?;
    let page = client.list(&Gvr::new("", "v1", "nodes"), &ListOptions::default()).await.context("list the nodes")?;
    let trees = page.items.iter().map(|item| item.tree());
    let named = trees
        .filter_map(|node| Some((node.pointer("/metadata/name")?.as_str()?.to_owned(), Published::of_node(&node))));
    Ok(named.collect())
}

// === impl Report ===

impl Report {
    fn take(&mut self, nodes: BTreeMap<String, Option<Published>>, all: bool) {
        for (name, told) in nodes {
            let Some(Published { policy, open, lines, added }) = told else {
                self.silent.push(name);
                continue;
            };
            let added = if all { added } else { BTreeMap::new() };
            self.nodes.insert(name, Shown { policy, open, lines, added, ..Shown::default() });
        }
    }

    /// This machine's own ledger says more, and is there without the API.
    fn own(&mut self, args: &DriftArgs) -> Result<()> {
        let layout = args.ask.common.layout();
        let shelf = Shelf::new(&layout);
        let foreign = args.ask.kubeconfig.is_some();
        let Some(book) = shelf.book()?.filter(|_| !foreign) else { return Ok(()) };
        let name = node_name(&layout).to_string();
        self.silent.retain(|silent| *silent != name);
        let shown = self.nodes.entry(name).or_default();
        shown.lines = book.ledger.open().map(Told::of).collect();
        shown.open = shown.lines.len();
        if args.all {
            shown.over = over(&book.ledger);
            if let Some(joined) = shelf.joined()? {
                let now =
                    Inventory { firewall: joined.inventory.firewall.clone(), ..Inventory::of_machine("/".as_ref()) };
                let added = now.added(&joined.inventory).into_iter();
                shown.added =
                    added.map(|(kind, names)| (kind.to_owned(), Added { count: names.len(), names })).collect();
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut out = format!("{}\n", self.head);
        for (name, shown) in &self.nodes {
            shown.text(name, &mut out);
        }
        for name in &self.silent {
            let _ = writeln!(out, "{name}: does not tell");
        }
        if let Some(missing) = &self.missing {
            let _ = writeln!(out, "{missing}");
        }
        out
    }
}

/// The last lines that are over, the newest first.
fn over(ledger: &Ledger) -> Vec<Line> {
    ledger.lines.iter().rev().filter(|line| line.closed.is_some()).take(OVER_MAX).cloned().collect()
}

// === impl Shown ===

impl Shown {
    fn text(&self, name: &str, out: &mut String) {
        let policy = match self.policy {
            Policy::Report => "changes are reported",
            Policy::Repair => "changes are put back",
        };
        let count = match self.open {
            0 => "nothing was changed by hand".to_owned(),
            1 => "1 thing was changed by hand".to_owned(),
            many => format!("{many} things were changed by hand"),
        };
        let _ = writeln!(out, "{name}: {count}; {policy}");
        let row = |told: &Told| {
            vec![
                time(told.first_seen),
                told.kind.word().to_owned(),
                format!("{} {}", told.name, told.change),
                told.who.clone(),
            ]
        };
        let rows: Vec<Vec<String>> = self.lines.iter().map(row).collect();
        if !rows.is_empty() {
            let _ = write!(out, "{}", table(&["FIRST SEEN", "KIND", "WHAT", "WHO"], &rows));
        }
        if self.lines.len() < self.open {
            let _ = writeln!(out, "and {} more: evenkeel drift, on {name}", self.open - self.lines.len());
        }
        for line in &self.over {
            let Some(closing) = line.closed else { continue };
            let how = if closing.how == How::Repaired { "put back" } else { "over" };
            let _ = writeln!(out, "  {how} {}: {} {}", time(closing.at), line.thing.name, line.change);
        }
        for (kind, added) in &self.added {
            let more = added.count.saturating_sub(added.names.len());
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let _ = writeln!(out, "  {kind} since it joined: {}{more}", added.names.join(", "));
        }
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
