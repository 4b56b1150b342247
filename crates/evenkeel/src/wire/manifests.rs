//! `server/manifests`: applied when they change, pruned when they go.
//!
//! The folder is looked at by modification times, which costs the store nothing. What was applied is remembered in a
//! file beside it, so that pruning survives a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::{Gvk, Gvr, Key, PatchType, Registry, Tree};
use base::Chain;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};
use view::{Client, Drain, PatchRequest};

use crate::layout::Layout;
use crate::pki::{self, Access, sha256_hex};

const LOOK: Duration = Duration::from_secs(3);
/// A manifest larger than this is no manifest.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// An object that a file brought, by the words of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Applied {
    api_version: String,
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
}

/// What was applied from one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    hash: String,
    objects: BTreeSet<Applied>,
}

type Records = BTreeMap<String, Record>;

/// Keeps the cluster as the folder says.
pub struct Manifests {
    folder: PathBuf,
    memory: PathBuf,
    client: Client,
    registry: Arc<dyn Fn() -> Arc<Registry> + Send + Sync>,
}

// === impl Manifests ===

impl Manifests {
    pub fn new(layout: &Layout, client: Client, registry: Arc<dyn Fn() -> Arc<Registry> + Send + Sync>) -> Manifests {
        let memory = layout.server().join("manifests.json");
        Manifests { folder: layout.manifests(), memory, client, registry }
    }

    pub async fn run(self, drain: Drain) {
        let mut records = self.recall();
        let mut said = String::new();
        loop {
            match drain.run_until_cancelled(self.look(&mut records)).await {
                None => return,
                Some(Ok(())) => said.clear(),
                Some(Err(failure)) => {
                    let text = Chain(failure.as_ref()).to_string();
                    if text != said {
                        warn!(error = %text, "manifests");
                        said = text;
                    }
                }
            }
            if drain.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
        }
    }

    fn recall(&self) -> Records {
        let text = pki::read(&self.memory).ok().flatten().unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// One pass. Every file gets its turn; the first failure is reported at the end.
    async fn look(&self, records: &mut Records) -> Result<()> {
        let files = files(&self.folder)?;
        let mut outcome = Ok(());
        let mut changed = false;
        for (name, content) in &files {
            let hash = sha256_hex(content);
            if records.get(name).is_some_and(|record| record.hash == hash) {
                continue;
            }
            match self.apply(content).await {
                Ok(objects) => {
                    info!(file = name, objects = objects.len(), "manifest applied");
                    let old = records.insert(name.clone(), Record { hash, objects }).unwrap_or_default();
                    self.prune(&old.objects, records).await?;
                    changed = true;
                }
                Err(failure) => outcome = outcome.and(Err(failure.context(name.clone()))),
            }
        }
        let gone: Vec<String> = records.keys().filter(|name| !files.contains_key(*name)).cloned().collect();
        for name in gone {
            let record = records.remove(&name).unwrap_or_default();
            info!(file = name, objects = record.objects.len(), "manifest gone; pruning");
            self.prune(&record.objects, records).await?;
            changed = true;
        }
        if changed {
            pki::write(&self.memory, serde_json::to_string_pretty(records)?.as_bytes(), Access::Secret)?;
        }
        outcome
    }

    async fn apply(&self, content: &[u8]) -> Result<BTreeSet<Applied>> {
        let text = std::str::from_utf8(content).context("not UTF-8")?;
        let documents: Vec<Tree> = serde_saphyr::from_multiple(text).context("not YAML")?;
        let mut applied = BTreeSet::new();
        for mut object in documents.into_iter().flat_map(items) {
            let (gvr, namespaced) = self.kind_of(&object)?;
            let text = |pointer: &str| object.pointer(pointer).and_then(Tree::as_str).unwrap_or_default().to_owned();
            let (name, mut namespace) = (text("/metadata/name"), text("/metadata/namespace"));
            if namespaced && namespace.is_empty() {
                namespace = "default".to_owned();
                object["metadata"]["namespace"] = json!("default");
            }
            let key = Key::new(&namespace, &name);
            let patch = PatchType::Apply { force: true };
            let request = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch, body: &object };
            self.client.patch(&request).await.with_context(|| format!("{} {key}", gvr.resource))?;
            let word = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            applied.insert(Applied { api_version: word("apiVersion"), kind: word("kind"), namespace, name });
        }
        Ok(applied)
    }

    /// Deletes what no file brings any more.
    async fn prune(&self, old: &BTreeSet<Applied>, records: &Records) -> Result<()> {
        let wanted: BTreeSet<&Applied> = records.values().flat_map(|record| &record.objects).collect();
        for gone in old.iter().filter(|object| !wanted.contains(object)) {
            let object = json!({"apiVersion": gone.api_version, "kind": gone.kind});
            let Ok((gvr, _)) = self.kind_of(&object) else { continue };
            let key = Key::new(&gone.namespace, &gone.name);
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
            match self.client.delete(&gvr, &key, &options).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error).with_context(|| format!("prune {} {key}", gvr.resource)),
            }
        }
        Ok(())
    }

    fn kind_of(&self, object: &Tree) -> Result<(Gvr, bool)> {
        let word = |field: &str| object[field].as_str().unwrap_or_default();
        let (version, kind) = (word("apiVersion"), word("kind"));
        let gvk = Gvk::parse(version, kind).with_context(|| format!("apiVersion {version:?}"))?;
        let registry = (self.registry)();
        let row = registry.kind(&gvk).with_context(|| format!("{gvk} is not served (yet)"))?;
        Ok((row.gvr(), row.is_namespaced()))
    }
}

/// The objects of a document: a `List` stands for its items, an empty document for none.
fn items(document: Tree) -> Vec<Tree> {
    if document.is_null() {
        return Vec::new();
    }
    match document.get("items").and_then(Tree::as_array) {
        Some(items) if document["kind"] == "List" => items.clone(),
        _ => vec![document],
    }
}

/// YAML and JSON files of the folder and its subfolders, by relative name; `name.skip` beside one leaves it out.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", next.display())),
        };
        for entry in entries {
            let path = entry?.path();
            let manifest = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
            if path.is_dir() {
                folders.push(path);
            } else if manifest && !PathBuf::from(format!("{}.skip", path.display())).exists() {
                anyhow::ensure!(path.metadata()?.len() <= FILE_BYTES_MAX, "{} is too large", path.display());
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                found.insert(name, fs::read(&path).with_context(|| format!("read {}", path.display()))?);
            }
        }
    }
    Ok(found)
}
