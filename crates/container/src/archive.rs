//! What image files say about themselves, read without unpacking them; and which of them are still to be imported.
//!
//! A node starts its pods while its image files are imported: who needs an image must be able to tell one that is about
//! to come from one that has to be pulled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

/// Largest index that is read from an archive.
const INDEX_BYTES_MAX: u64 = 4 << 20;
/// What image names without a host mean.
const DEFAULT_HOST: &str = "docker.io";

/// Images that files on this machine are about to become. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expected {
    files: Arc<watch::Sender<BTreeMap<PathBuf, Vec<String>>>>,
}

// === impl Expected ===

impl Default for Expected {
    /// Nothing is to come.
    fn default() -> Expected {
        Expected::of(&[])
    }
}

impl Expected {
    /// What these files name. A file that cannot be read this way (a compressed one) is imported, but not waited for.
    pub fn of(files: &[PathBuf]) -> Expected {
        let named = files.iter().filter_map(|file| Some((file.clone(), image_names(file).ok()?)));
        Expected { files: Arc::new(watch::Sender::new(named.collect())) }
    }

    /// Whether a file that is still to be imported names this image.
    pub fn has(&self, image: &str) -> bool {
        names(&self.files.borrow(), &reference(image))
    }

    /// Waits until no file that is still to be imported names this image.
    pub async fn settled(&self, image: &str) {
        let image = reference(image);
        let mut files = self.files.subscribe();
        // The sender lives in `self`.
        let _ = files.wait_for(|files| !names(files, &image)).await;
    }

    /// The file was imported, or will not be.
    pub fn done(&self, file: &Path) {
        self.files.send_modify(|files| drop(files.remove(file)));
    }

    /// No further file will be imported.
    pub fn close(&self) {
        self.files.send_modify(BTreeMap::clear);
    }
}

fn names(files: &BTreeMap<PathBuf, Vec<String>>, image: &str) -> bool {
    files.values().flatten().any(|name| name == image)
}

/// The images that an uncompressed archive holds, in their full form: by the index of the OCI layout, or by the list
/// that `docker save` writes.
pub fn image_names(archive: &Path) -> io::Result<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut archive = tar::Archive::new(File::open(archive)?);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        let read: fn(&Value) -> Vec<&str> = match path.strip_prefix("./").unwrap_or(&path).to_str() {
            Some("index.json") => layout_names,
            Some("manifest.json") => saved_names,
            _ => continue,
        };
        let tree: Value = serde_json::from_reader(entry.take(INDEX_BYTES_MAX))?;
        found.extend(read(&tree).into_iter().map(reference));
    }
    Ok(found.into_iter().collect())
}

fn layout_names(index: &Value) -> Vec<&str> {
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    manifests.iter().filter_map(|one| keys.iter().find_map(|key| one["annotations"][*key].as_str())).collect()
}

fn saved_names(list: &Value) -> Vec<&str> {
    let images = list.as_array().map(Vec::as_slice).unwrap_or_default();
    images.iter().filter_map(|image| image["RepoTags"].as_array()).flatten().filter_map(Value::as_str).collect()
}

/// The name in its full form, with the tag that a name without one means.
fn reference(name: &str) -> String {
    let full = full_name(name);
    let last = full.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { full } else { format!("{full}:latest") }
}

/// The name as CRI understands it: a first part that is no host stands for the default registry's.
pub(crate) fn full_name(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or((name, ""));
    let host = !rest.is_empty() && (first.contains(['.', ':']) || first == "localhost");
    match (host, rest.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{DEFAULT_HOST}/library/{name}"),
        (false, false) => format!("{DEFAULT_HOST}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn archive(path: &Path, member: &str, text: &str) {
        let mut builder = tar::Builder::new(File::create(path).unwrap());
        for (name, bytes) in [("blobs/sha256/ab", "layer"), (member, text)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes.as_bytes()).unwrap();
        }
        builder.finish().unwrap();
    }

    #[test]
    fn archives_of_both_kinds_name_their_images() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, saved) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
        archive(
            &layout,
            "index.json",
            r#"{"manifests":[{"annotations":{"io.containerd.image.name":"a.local/pause:1","org.opencontainers.image.ref.name":"1"}}]}"#,
        );
        archive(&saved, "manifest.json", r#"[{"RepoTags":["web","team/web:2"]}]"#);
        assert_eq!(image_names(&layout).unwrap(), ["a.local/pause:1"]);
        assert_eq!(image_names(&saved).unwrap(), ["docker.io/library/web:latest", "docker.io/team/web:2"]);
    }

    #[test]
    fn an_image_settles_with_the_file_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
        archive(&first, "manifest.json", r#"[{"RepoTags":["web:1"]}]"#);
        archive(&second, "manifest.json", r#"[{"RepoTags":["db:1"]}]"#);
        let expected = Expected::of(&[first.clone(), second]);
        assert!(expected.has("web:1") && expected.settled("web:1").now_or_never().is_none());
        expected.done(&first);
        assert!(!expected.has("web:1") && expected.settled("web:1").now_or_never().is_some());
        assert!(expected.has("docker.io/library/db:1"));
        expected.close();
        assert!(!expected.has("db:1"));
    }

    #[test]
    fn short_names_are_completed() {
        for (name, full) in [
            ("web:1", "docker.io/library/web:1"),
            ("team/web:1", "docker.io/team/web:1"),
            ("a.local/web:1", "a.local/web:1"),
            ("localhost/web", "localhost/web"),
            ("host:5000/web", "host:5000/web"),
        ] {
            assert_eq!(full_name(name), full);
        }
    }
}
