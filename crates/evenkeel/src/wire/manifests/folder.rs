//! What lies in `server/manifests`, and what became of it: the folder as it is read, and the memory beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use api::Tree;
use serde::{Deserialize, Serialize};

/// A manifest larger than this is no manifest.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// An object that a file brought, by the words of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub namespace: String,
    pub name: String,
}

/// What was applied from one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the content that was applied as a whole; empty while some of it could not be.
    pub hash: String,
    pub objects: BTreeSet<Applied>,
    /// The fields that it set, by object, as the API keeps them: for who changes them later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Tree>,
}

/// By the file's name, relative to the folder.
pub type Records = BTreeMap<String, Record>;

// === impl Applied ===

impl Applied {
    /// `Deployment shop/web`.
    pub fn title(&self) -> String {
        let namespace = if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
        format!("{} {namespace}{}", self.kind, self.name)
    }
}

/// A file as it was found.
#[derive(Debug)]
pub enum Found {
    Content(Vec<u8>),
    /// `NAME.skip` lies beside it: what it brought stays as it is.
    Skipped,
    Unreadable(anyhow::Error),
}

/// YAML and JSON files of the folder and its subfolders, by relative name. A file whose name, apart from its ending, is
/// disabled is as good as absent.
pub fn read(folder: &Path, disabled: &BTreeSet<String>) -> Result<BTreeMap<String, Found>> {
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
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if is_manifest(&path) && !disabled.contains(&*stem) {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                found.insert(name, look_at(&path));
            }
        }
    }
    Ok(found)
}

/// By its ending; editors' hidden files are none.
fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
}

fn look_at(path: &Path) -> Found {
    if PathBuf::from(format!("{}.skip", path.display())).exists() {
        return Found::Skipped;
    }
    let content = || {
        anyhow::ensure!(path.metadata()?.len() <= FILE_BYTES_MAX, "larger than {} MiB", FILE_BYTES_MAX >> 20);
        fs::read(path).map_err(anyhow::Error::from)
    };
    content().map_or_else(Found::Unreadable, Found::Content)
}

#[cfg(test)]
mod tests {
    use super::{Found, read};
    use std::collections::BTreeSet;

    #[test]
    fn skipped_disabled_and_unreadable_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), "a: 1").unwrap();
        std::fs::create_dir(folder.path().join("more")).unwrap();
        for name in ["web.yaml", "old.yml", "old.yml.skip", "traefik.yaml", ".swap.yaml", "notes.txt", "more/x.json"] {
            write(name);
        }
        let huge = std::fs::File::create(folder.path().join("huge.yaml")).unwrap();
        huge.set_len(super::FILE_BYTES_MAX + 1).unwrap();
        let found = read(folder.path(), &BTreeSet::from(["traefik".to_owned()])).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|(name, found)| {
                let what = match found {
                    Found::Content(_) => "content",
                    Found::Skipped => "skipped",
                    Found::Unreadable(_) => "unreadable",
                };
                format!("{name} {what}")
            })
            .collect();
        assert_eq!(told, ["huge.yaml unreadable", "more/x.json content", "old.yml skipped", "web.yaml content"]);
    }
}
