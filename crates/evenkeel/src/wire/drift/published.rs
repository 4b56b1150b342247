//! What a node tells the cluster of its drift: an annotation of its own Node object, short and of bounded size.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use api::{Gvr, Key, PatchType, Tree};
use jiff::Timestamp;
use keeper::drift::{Kind, Ledger, Line, Policy, who};
use keeper::wrong::What;
use serde::{Deserialize, Serialize};
use serde_json::json;
use view::{Client, PatchRequest};

const ANNOTATION: &str = "evenkeel.dev/drift";
/// Lines that are told; of more only how many.
const LINES_MAX: usize = 16;
/// Names of each kind of what came after the join.
const ADDED_MAX: usize = 8;
const TEXT_CHARS_MAX: usize = 240;

/// The drift of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Published {
    pub policy: Policy,
    /// Differences there are.
    pub open: usize,
    pub lines: Vec<Told>,
    /// What came after the join, by kind: some names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<String, Added>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    pub kind: Kind,
    pub name: String,
    pub change: String,
    pub first_seen: Timestamp,
    pub who: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    pub count: usize,
    pub names: Vec<String>,
}

// === impl Told ===

impl Told {
    pub fn of(line: &Line) -> Told {
        // What was changed in the cluster was not changed by a login on this machine.
        let who = if line.thing.kind == Kind::Manifest { String::new() } else { who(&line.sessions) };
        Told {
            kind: line.thing.kind,
            name: short(&line.thing.name),
            change: short(&line.change),
            first_seen: line.first_seen,
            who: short(&who),
        }
    }

    /// As a fact of what is wrong.
    pub fn what(&self) -> What {
        let what = format!("{} {}", self.name, self.change);
        What::Drift { of: self.kind, what, first: self.first_seen, who: self.who.clone() }
    }
}

// === impl Published ===

impl Published {
    pub fn new(ledger: &Ledger, policy: Policy, added: &BTreeMap<&'static str, Vec<String>>) -> Published {
        let lines: Vec<Told> = ledger.open().map(Told::of).collect();
        let few = |names: &Vec<String>| names.iter().take(ADDED_MAX).map(|name| short(name)).collect();
        let added =
            added.iter().map(|(kind, names)| ((*kind).to_owned(), Added { count: names.len(), names: few(names) }));
        let open = lines.len() + usize::try_from(ledger.dropped).unwrap_or(usize::MAX);
        Published { policy, open, lines: lines.into_iter().take(LINES_MAX).collect(), added: added.collect() }
    }

    /// Of a Node object; None where its node does not tell.
    pub fn of_node(node: &Tree) -> Option<Published> {
        let text = node.pointer("/metadata/annotations")?.get(ANNOTATION)?.as_str()?;
        serde_json::from_str(text).ok()
    }

    pub fn whats(&self) -> impl Iterator<Item = What> {
        self.lines.iter().map(Told::what)
    }

    /// Puts it on the node's own object.
    pub async fn put(&self, client: &Client, node: &str) -> Result<()> {
        let text = serde_json::to_string(self).context("plain data")?;
        let body = json!({"metadata": {"annotations": {ANNOTATION: text}}});
        let (gvr, key) = (Gvr::new("", "v1", "nodes"), Key::cluster(node));
        let request = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
        client.patch(&request).await.context("tell the cluster what drifted")?;
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
