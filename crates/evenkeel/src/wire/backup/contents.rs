//! What belongs into a bundle beside the state, and what is known not to be in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use api::Tree;
use serde::{Deserialize, Serialize};
use store::Survey;

use crate::layout::Layout;

/// Files without which a restored cluster is another one, or cannot read its own state.
const NEEDED: [&str; 7] = [
    "server/tls/server-ca.crt",
    "server/tls/server-ca.key",
    "server/tls/client-ca.crt",
    "server/tls/client-ca.key",
    "server/tls/request-header-ca.crt",
    "server/tls/request-header-ca.key",
    "server/cred/encryption.keys",
];
/// And one file at least of this folder.
const SIGNING_KEYS: &str = "server/tls/service-account";

pub const INCLUDED: [&str; 5] = [
    "every object of the cluster, Secrets encrypted",
    "the authorities, the signing keys and the encryption keys",
    "join tokens and the names of nodes",
    "the files of server/manifests",
    "the flags that the whole cluster shares",
];
pub const NOT_INCLUDED: [&str; 4] = [
    "the content of volumes",
    "container images",
    "logs of containers and the audit log",
    "the configuration file and registries.yaml",
];

/// Storages whose documents a manifest is written from.
pub const SURVEYED: [&str; 2] = ["/persistentvolumes", "/nodes"];

/// A volume whose content no bundle holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    /// `namespace/name` of its claim; empty where it has none.
    pub claim: String,
    /// The node that holds it; empty where it is not bound to one.
    pub node: String,
}

// === impl Volume ===

impl Volume {
    fn of(tree: &Tree) -> Volume {
        let text = |pointer: &str| tree.pointer(pointer).and_then(Tree::as_str).unwrap_or_default().to_owned();
        let claim = [text("/spec/claimRef/namespace"), text("/spec/claimRef/name")];
        let terms = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0";
        let claim = if claim[1].is_empty() { String::new() } else { claim.join("/") };
        Volume { name: text("/metadata/name"), claim, node: text(terms) }
    }

    /// For people.
    pub fn sentence(&self) -> String {
        let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
        let (claim, node) = (or(&self.claim, "no claim"), or(&self.node, "no node in particular"));
        format!("the content of volume {} ({claim}, {node})", self.name)
    }
}

/// The volumes of a snapshot.
pub fn volumes(survey: &Survey) -> Vec<Volume> {
    documents(survey, SURVEYED[0]).map(|tree| Volume::of(&tree)).collect()
}

/// The names of the nodes of a snapshot.
pub fn nodes(survey: &Survey) -> Vec<String> {
    let found = survey.documents.iter().filter(|(place, _)| place.storage == SURVEYED[1]);
    found.map(|(place, _)| place.key.name.to_string()).collect()
}

/// The documents of one storage.
pub fn documents(survey: &Survey, storage: &str) -> impl Iterator<Item = Tree> {
    let found = survey.documents.iter().filter(move |(place, _)| place.storage == storage);
    found.filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok())
}

/// What a restore needs and these files, named from the data folder, lack.
pub fn missing<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Vec<String> {
    let files: Vec<&PathBuf> = files.into_iter().collect();
    let mut missing: Vec<String> = NEEDED.map(str::to_owned).to_vec();
    missing.retain(|name| !files.iter().any(|file| file.as_path() == Path::new(name)));
    let signs = |file: &&PathBuf| file.starts_with(SIGNING_KEYS) && file.extension().is_some_and(|end| end == "key");
    if !files.iter().any(signs) {
        missing.push(format!("{SIGNING_KEYS}/*.key"));
    }
    missing
}

/// The files that a restore needs beside the store, relative to the data folder: the set a joining server copies too.
pub fn key_files(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["server/tls", "server/cred", "server/manifests"] {
        walk(&layout.data.join(folder), &mut found)?;
    }
    found.extend([layout.token(), layout.cluster_flags()]);
    let mut relative: Vec<PathBuf> = found
        .into_iter()
        .filter(|path| path.exists())
        .filter_map(|path| path.strip_prefix(&layout.data).map(Path::to_owned).ok())
        .collect();
    relative.sort();
    Ok(relative)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Volume, missing};
    use serde_json::json;
    use std::path::PathBuf;

    #[test]
    fn a_volume_is_named_with_its_claim_and_node() {
        let term = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]});
        let tree = json!({"metadata": {"name": "pvc-1"}, "spec": {
            "claimRef": {"namespace": "shop", "name": "data"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        }});
        assert_eq!(Volume::of(&tree).sentence(), "the content of volume pvc-1 (shop/data, a)");
        let bare = Volume::of(&json!({"metadata": {"name": "b"}}));
        assert_eq!(bare.sentence(), "the content of volume b (no claim, no node in particular)");
    }

    #[test]
    fn what_is_missing_is_named() {
        let files: Vec<PathBuf> =
            ["server/tls/server-ca.crt", "server/tls/service-account/0001.key"].map(PathBuf::from).into();
        let missing = missing(&files);
        assert!(missing.contains(&"server/cred/encryption.keys".to_owned()), "{missing:?}");
        assert_eq!(missing.len(), 6);
    }
}
