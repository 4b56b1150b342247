//! `server/manifests`: applied when they change, pruned when they go.
//!
//! The folder is read every few seconds, which costs the store nothing. What was applied is remembered in a file beside
//! it, so that pruning survives a restart. One file's trouble is told, in the log and as an event of this server's node,
//! and holds up no other file; within a file one object's trouble holds up no other object, so that a custom resource
//! follows its definition a moment later.
//!
//! What somebody changes in the cluster of what a file brought is told, and taken back only where that is the policy.

mod edited;
mod folder;
mod looking;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::op::Regarding;
use api::{Gvk, Gvr, Key, Op, PatchType, Registry, Tree};
use base::Chain;
use keeper::drift::Policy;
use reconcile::RecorderHandle;
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};
use view::{Client, Drain, PatchRequest};

use self::edited::own_fields;
use self::looking::Looking;
use crate::layout::Layout;
use crate::pki::{self, Access, sha256_hex};

pub use edited::{Edited, MANAGER};
use folder::{Applied, Found, Record, Records};

const LOOK: Duration = Duration::from_secs(3);
/// Most looks that a file in trouble is left alone between two tries: half a minute.
const PAUSE_LOOKS_MAX: u32 = 10;
/// The group of the kinds that k3s's own Helm controller knows.
const K3S_HELM_GROUP: &str = "helm.cattle.io/";

/// Keeps the cluster as the folder says.
pub struct Manifests {
    folder: PathBuf,
    memory: PathBuf,
    disabled: BTreeSet<String>,
    client: Client,
    registry: Arc<dyn Fn() -> Arc<Registry> + Send + Sync>,
    events: RecorderHandle,
    /// The node of this machine, which the events are about.
    node: String,
    looking: Looking,
}

/// What becomes of what was changed in the cluster, and who hears of it.
pub struct Edits {
    pub policy: Policy,
    pub told: watch::Sender<Vec<Edited>>,
}

/// A file that could not be applied as a whole.
#[derive(Debug, Default)]
struct Trouble {
    text: String,
    tries: u32,
    /// Looks to let pass before the next try, unless the file changes.
    pause: u32,
    hash: String,
}

type Troubles = BTreeMap<String, Trouble>;

/// What came of applying one file: what is in the cluster, and what went wrong.
#[derive(Default)]
struct Outcome {
    objects: BTreeSet<Applied>,
    fields: BTreeMap<String, Tree>,
    failures: Vec<String>,
}

// === impl Manifests ===

impl Manifests {
    pub fn new(
        layout: &Layout,
        disabled: &[String],
        client: Client,
        registry: Arc<dyn Fn() -> Arc<Registry> + Send + Sync>,
        (events, node): (RecorderHandle, &str),
        edits: Edits,
    ) -> Manifests {
        let (folder, memory) = (layout.manifests(), layout.server().join("manifests.json"));
        let (disabled, node, looking) = (disabled.iter().cloned().collect(), node.to_owned(), Looking::new(edits));
        Manifests { folder, memory, disabled, client, registry, events, node, looking }
    }

    pub async fn run(mut self, drain: Drain) {
        let mut records = self.recall();
        let mut troubles = Troubles::new();
        loop {
            match drain.run_until_cancelled(self.look(&mut records, &mut troubles)).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(failure)) => warn!(error = %Chain(failure.as_ref()), "the folder of manifests"),
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

    /// One pass. Every file gets its turn, whatever became of the one before.
    async fn look(&mut self, records: &mut Records, troubles: &mut Troubles) -> Result<()> {
        let files = folder::read(&self.folder, &self.disabled)?;
        let before = records.clone();
        self.look_for_edits(&files, records).await;
        troubles.retain(|name, _| files.contains_key(name));
        for (name, found) in &files {
            match found {
                Found::Skipped => {}
                Found::Unreadable(failure) => self.tell(troubles, name, "", &[Chain(failure.as_ref()).to_string()]),
                Found::Content(content) => self.file(name, content, records, troubles).await,
            }
        }
        let gone: Vec<String> = records.keys().filter(|name| !files.contains_key(*name)).cloned().collect();
        for name in gone {
            let record = records.remove(&name).unwrap_or_default();
            info!(file = name, objects = record.objects.len(), "manifest gone; pruning");
            let objects = self.prune(&name, record.objects, records).await;
            if !objects.is_empty() {
                records.insert(name, Record { objects, ..Record::default() });
            }
        }
        if *records != before {
            pki::write(&self.memory, serde_json::to_string_pretty(records)?.as_bytes(), Access::Secret)?;
        }
        Ok(())
    }

    /// Applies a file whose content is new, or that was not applied as a whole; prunes what it no longer brings.
    async fn file(&self, name: &str, content: &[u8], records: &mut Records, troubles: &mut Troubles) {
        let hash = sha256_hex(content);
        if records.get(name).is_some_and(|record| record.hash == hash) {
            troubles.remove(name);
            return;
        }
        if let Some(trouble) = troubles.get_mut(name).filter(|trouble| trouble.hash == hash && trouble.pause > 0) {
            trouble.pause -= 1;
            return;
        }
        let mut outcome = match documents(content) {
            Ok(documents) => self.apply(documents).await,
            Err(failure) => Outcome { failures: vec![Chain(failure.as_ref()).to_string()], ..Outcome::default() },
        };
        let old = records.remove(name).unwrap_or_default();
        if outcome.failures.is_empty() {
            let gone = old.objects.difference(&outcome.objects).cloned().collect();
            let (objects, fields) = (outcome.objects.clone(), outcome.fields);
            records.insert(name.to_owned(), Record { hash: hash.clone(), objects, fields });
            let left = self.prune(name, gone, records).await;
            info!(file = name, objects = outcome.objects.len(), "manifest applied");
            troubles.remove(name);
            // What could not be pruned keeps the file from counting as done.
            if !left.is_empty() {
                outcome.objects.extend(left);
                records.insert(name.to_owned(), Record { objects: outcome.objects, ..Record::default() });
            }
        } else {
            // Nothing is pruned by half an application; what it made is remembered all the same.
            outcome.objects.extend(old.objects);
            if !outcome.objects.is_empty() {
                records.insert(name.to_owned(), Record { objects: outcome.objects, ..Record::default() });
            }
            self.tell(troubles, name, &hash, &outcome.failures);
        }
    }

    async fn apply(&self, documents: Vec<Tree>) -> Outcome {
        let mut outcome = Outcome::default();
        for object in documents {
            let what = describe(&object);
            match self.apply_one(object).await {
                Ok((applied, fields)) => {
                    outcome.fields.extend(fields.map(|fields| (applied.title(), fields)));
                    outcome.objects.insert(applied);
                }
                Err(failure) => outcome.failures.push(format!("{what}: {}", Chain(failure.as_ref()))),
            }
        }
        outcome
    }

    async fn apply_one(&self, mut object: Tree) -> Result<(Applied, Option<Tree>)> {
        let word = |object: &Tree, pointer: &str| {
            object.pointer(pointer).and_then(Tree::as_str).unwrap_or_default().to_owned()
        };
        let (gvr, namespaced) = self.kind_of(&object)?;
        let (name, mut namespace) = (word(&object, "/metadata/name"), word(&object, "/metadata/namespace"));
        anyhow::ensure!(!name.is_empty(), "it has no metadata.name");
        if namespaced && namespace.is_empty() {
            namespace = "default".to_owned();
            object["metadata"]["namespace"] = json!("default");
        }
        let key = Key::new(&namespace, &name);
        let patch = PatchType::Apply { force: true };
        let request = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch, body: &object };
        let made = self.client.patch(&request).await?;
        let (api_version, kind) = (word(&object, "/apiVersion"), word(&object, "/kind"));
        Ok((Applied { api_version, kind, namespace, name }, own_fields(&made)))
    }

    /// Deletes what no file brings any more; answers what could not be deleted.
    async fn prune(&self, file: &str, old: BTreeSet<Applied>, records: &Records) -> BTreeSet<Applied> {
        let wanted: BTreeSet<&Applied> = records.values().flat_map(|record| &record.objects).collect();
        let mut left = BTreeSet::new();
        for gone in old.into_iter().filter(|object| !wanted.contains(object)) {
            let object = json!({"apiVersion": gone.api_version, "kind": gone.kind});
            // A kind that is not served any more took its objects along.
            let Ok((gvr, _)) = self.kind_of(&object) else { continue };
            let key = Key::new(&gone.namespace, &gone.name);
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
            match self.client.delete(&gvr, &key, &options).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    warn!(file, error = %Chain(&error), "not pruned: {} {key}", gvr.resource);
                    left.insert(gone);
                }
            }
        }
        left
    }

    fn kind_of(&self, object: &Tree) -> Result<(Gvr, bool)> {
        let word = |field: &str| object[field].as_str().unwrap_or_default();
        let (version, kind) = (word("apiVersion"), word("kind"));
        if version.starts_with(K3S_HELM_GROUP) {
            bail!(
                "{kind} is for the Helm controller of k3s, which is not part of Evenkeel; install the chart with helm"
            );
        }
        anyhow::ensure!(!kind.is_empty(), "it has no kind");
        let gvk = Gvk::parse(version, kind).with_context(|| format!("apiVersion {version:?}"))?;
        let registry = (self.registry)();
        let row = registry.kind(&gvk).with_context(|| format!("{gvk} is not served (yet)"))?;
        Ok((row.gvr(), row.is_namespaced()))
    }

    /// Says what is wrong with a file, once for each thing that is.
    fn tell(&self, troubles: &mut Troubles, name: &str, hash: &str, failures: &[String]) {
        let text = failures.join("; ");
        let trouble = troubles.entry(name.to_owned()).or_default();
        if trouble.hash != hash {
            trouble.tries = 0;
        }
        trouble.pause = (1 << trouble.tries.min(PAUSE_LOOKS_MAX)).min(PAUSE_LOOKS_MAX + 1) - 1;
        trouble.tries += 1;
        trouble.hash = hash.to_owned();
        if trouble.text == text {
            return;
        }
        warn!(file = name, "manifest not applied: {text}");
        self.event(true, "ManifestNotApplied", format!("server/manifests/{name}: {text}"));
        trouble.text = text;
    }

    fn event(&self, warning: bool, reason: &str, message: String) {
        let regarding = Regarding {
            api_version: "v1".into(),
            kind: "Node".into(),
            key: Key::cluster(&self.node),
            uid: self.node.as_str().into(),
            field_path: Default::default(),
        };
        self.events.record(Op::Event { regarding, warning, reason: reason.into(), message });
    }
}

/// The objects of a file: its documents, a `List` standing for its items, an empty document for none.
fn documents(content: &[u8]) -> Result<Vec<Tree>> {
    let text = std::str::from_utf8(content).context("not UTF-8")?;
    // The parser draws a picture below its first line; an event has one line.
    let plain = |error: serde_saphyr::Error| anyhow::anyhow!("not YAML: {}", first_line(&error.to_string()));
    let documents: Vec<Tree> = serde_saphyr::from_multiple(text).map_err(plain)?;
    Ok(documents.into_iter().flat_map(items).collect())
}

fn items(document: Tree) -> Vec<Tree> {
    if document.is_null() {
        return Vec::new();
    }
    match document.get("items").and_then(Tree::as_array) {
        Some(items) if document["kind"] == "List" => items.clone(),
        _ => vec![document],
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn describe(object: &Tree) -> String {
    let word = |pointer: &str| object.pointer(pointer).and_then(Tree::as_str).unwrap_or_default();
    format!("{} {}", word("/kind"), word("/metadata/name")).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn documents_and_lists_become_objects() {
        let text = "---\nkind: A\n---\n# nothing\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n";
        let kinds: Vec<_> = documents(text.as_bytes())
            .unwrap()
            .iter()
            .map(|object| object["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert!(documents(b"a: [").is_err() && documents(b"\xff").is_err());
        assert!(documents(b"").unwrap().is_empty());
        assert!(documents(b"- {").unwrap_err().to_string().starts_with("not YAML: error: line 1"));
    }
}
