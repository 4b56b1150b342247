//! Where configuration lies on this machine, and at which commit, where a folder above it is a working tree of git.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::layout::Layout;
use crate::pki::sha256_hex;

const ENVIRONMENT: &str = "/etc/systemd/system/evenkeel.env";
const REGISTRIES: &str = "/etc/evenkeel/registries.yaml";
/// Digits that tell contents apart.
const DIGITS: usize = 8;
const COMMIT_DIGITS: usize = 12;

#[derive(Debug, Serialize)]
pub struct Place {
    pub what: String,
    pub path: String,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

// === impl Place ===

impl Place {
    pub fn told(&self) -> String {
        let commit = self.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        format!("{}{}{commit}", self.path, self.detail)
    }
}

/// Everything that says how this machine is to be; what is not there is left out, but for the first.
pub fn all(layout: &Layout, config: &Path) -> Vec<Place> {
    let more = PathBuf::from(format!("{}.d", config.display()));
    let rest = [
        ("more of it", folder(&more)),
        ("environment", file(Path::new(ENVIRONMENT))),
        ("registries", file(Path::new(REGISTRIES))),
        ("cluster file", file(&layout.cluster_settings())),
        ("of the cluster", file(&layout.shared_flags())),
        ("deploy folder", folder(&layout.manifests())),
    ];
    let first = file(config).unwrap_or_else(|| (config.to_owned(), ", which is not there: defaults hold".to_owned()));
    let rest = rest.into_iter().filter_map(|(what, found)| Some((what, found?)));
    let all = std::iter::once(("this machine", first)).chain(rest);
    all.map(|(what, (path, detail))| Place {
        what: what.to_owned(),
        commit: commit(&path),
        path: path.display().to_string(),
        detail,
    })
    .collect()
}

fn file(path: &Path) -> Option<(PathBuf, String)> {
    let content = fs::read(path).ok()?;
    Some((path.to_owned(), format!(" (sha256 {})", &sha256_hex(&content)[..DIGITS])))
}

fn folder(path: &Path) -> Option<(PathBuf, String)> {
    let count = fs::read_dir(path).ok()?.flatten().filter(|entry| entry.path().is_file()).count();
    let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    Some((path.to_owned(), format!(", {files}")))
}

/// The commit that is checked out around a path.
fn commit(path: &Path) -> Option<String> {
    let git = path.ancestors().map(|folder| folder.join(".git")).find(|git| git.is_dir())?;
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let head = head.trim();
    let Some(reference) = head.strip_prefix("ref: ") else { return Some(short(head)) };
    let loose = fs::read_to_string(git.join(reference)).ok();
    let packed = || {
        let text = fs::read_to_string(git.join("packed-refs")).ok()?;
        text.lines().find_map(|line| line.strip_suffix(reference).map(str::to_owned))
    };
    loose.or_else(packed).map(|text| short(text.trim()))
}

fn short(commit: &str) -> String {
    commit.chars().take(COMMIT_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{all, commit};
    use crate::layout::Layout;

    #[test]
    fn a_file_is_named_with_its_commit() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("rack/config.yaml");
        fs::create_dir_all(folder.path().join(".git/refs/heads")).unwrap();
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        fs::write(folder.path().join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(folder.path().join(".git/packed-refs"), "# pack\nfedcba98765432100000 refs/heads/main\n").unwrap();
        assert_eq!(commit(&config).as_deref(), Some("fedcba987654"));
        fs::write(folder.path().join(".git/refs/heads/main"), "0123456789abcdef\n").unwrap();
        fs::write(&config, "debug: true\n").unwrap();
        let places = all(&Layout::new(folder.path().join("data")), &config);
        assert_eq!(places.iter().filter(|place| place.what == "this machine").count(), 1);
        let told = places[0].told();
        assert!(told.contains("/rack/config.yaml (sha256 ") && told.ends_with("), commit 0123456789ab"), "{told}");
    }
}
