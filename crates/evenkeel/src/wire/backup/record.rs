//! What the cluster itself knows of its backups: one status, and the evidence of the last proofs, as ConfigMaps.
//!
//! They are objects so that every server shares them and a bundle holds them. `status.json` of `evenkeel-backup` is read by
//! `evenkeel status`; its shape is [`Status`].

use anyhow::{Context, Result};
use api::{Gvr, Key, PatchType, Tree};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keeper::backup::{BundleName, Evidence, Finding, Size, surplus};
use serde::{Deserialize, Serialize};
use serde_json::json;
use view::{Client, ListOptions, PatchRequest};

use super::apps::AppStatus;

const NAMESPACE: &str = "kube-system";
const STATUS: &str = "evenkeel-backup";
const STATUS_KEY: &str = "status.json";
const EVIDENCE: &str = "evenkeel-evidence";
const EVIDENCE_KEY: &str = "evidence.json";
const LABEL: &str = "evenkeel.io/evidence";

/// How the backups of this cluster are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub schedule: String,
    pub last_bundle: Option<LastBundle>,
    /// When the one after the next should have been made: past this, something is wrong.
    pub overdue_after: Option<Timestamp>,
    /// The size of the one before.
    pub before: Option<Size>,
    /// Why the last try made none; None where it made one.
    pub failure: Option<String>,
    pub targets: Vec<TargetStatus>,
    /// What applications gave by their hooks.
    pub apps: Vec<AppStatus>,
    pub last_proof: Option<LastProof>,
    /// The newest bundle that a proof of passed.
    pub proven_bundle: Option<Proven>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastBundle {
    pub name: BundleName,
    pub at: Timestamp,
    pub revision: u64,
    #[serde(flatten)]
    pub size: Size,
    pub missing: Vec<String>,
}

/// How the last bundle reached a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    pub name: String,
    pub kind: String,
    pub offsite: bool,
    pub at: Timestamp,
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastProof {
    pub bundle: String,
    pub at: Timestamp,
    pub passed: bool,
    pub failed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proven {
    pub name: String,
    pub at: Timestamp,
}

/// Reads and writes these objects.
#[derive(Clone)]
pub struct Records {
    client: Client,
}

// === impl Records ===

impl Records {
    pub fn new(client: Client) -> Records {
        Records { client }
    }

    /// The status; an empty one where nothing was ever written, or what is there is no status.
    pub async fn status(&self) -> Result<Status> {
        match self.client.get(&maps(), &Key::new(NAMESPACE, STATUS)).await {
            Ok(tree) => Ok(document(&tree, STATUS_KEY).unwrap_or_default()),
            Err(error) if error.is_not_found() => Ok(Status::default()),
            Err(error) => Err(error).context("read the status of the backups"),
        }
    }

    pub async fn write_status(&self, status: &Status) -> Result<()> {
        let text = serde_json::to_string_pretty(status)?;
        self.put(STATUS, &json!({}), STATUS_KEY, &text).await.context("write the status of the backups")
    }

    /// Keeps the evidence of a proof, and no more than the last ones.
    pub async fn add(&self, evidence: &Evidence) -> Result<()> {
        let time = evidence.at.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H%M%S");
        let text = serde_json::to_string_pretty(evidence)?;
        let labels = json!({LABEL: "backup"});
        self.put(&format!("{EVIDENCE}-{time}"), &labels, EVIDENCE_KEY, &text).await.context("write the evidence")?;
        let names = self.listed().await?.into_iter().map(|tree| name(&tree)).collect();
        for old in surplus(names) {
            let key = Key::new(NAMESPACE, &old);
            self.client.delete(&maps(), &key, &json!({})).await.context("remove old evidence")?;
        }
        Ok(())
    }

    /// The evidence that is kept, oldest first.
    pub async fn evidence(&self) -> Result<Vec<Evidence>> {
        let mut listed = self.listed().await?;
        listed.sort_by_key(name);
        Ok(listed.iter().filter_map(|tree| document(tree, EVIDENCE_KEY)).collect())
    }

    async fn listed(&self) -> Result<Vec<Tree>> {
        let selector = format!("{LABEL}=backup");
        let options =
            ListOptions { namespace: Some(NAMESPACE), label_selector: Some(&selector), ..ListOptions::default() };
        let page = self.client.list(&maps(), &options).await.context("list the evidence")?;
        Ok(page.items.iter().map(|object| object.tree()).collect())
    }

    async fn put(&self, name: &str, labels: &Tree, file: &str, text: &str) -> Result<()> {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "data": {file: text},
        });
        let key = Key::new(NAMESPACE, name);
        let patch = PatchType::Apply { force: true };
        let request = PatchRequest { gvr: &maps(), key: &key, subresource: None, patch, body: &body };
        self.client.patch(&request).await?;
        Ok(())
    }
}

fn maps() -> Gvr {
    Gvr::new("", "v1", "configmaps")
}

fn name(tree: &Tree) -> String {
    tree.pointer("/metadata/name").and_then(Tree::as_str).unwrap_or_default().to_owned()
}

fn document<T: serde::de::DeserializeOwned>(tree: &Tree, file: &str) -> Option<T> {
    serde_json::from_str(tree.get("data")?.get(file)?.as_str()?).ok()
}
