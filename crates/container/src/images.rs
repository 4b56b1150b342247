//! Image files brought to the machine by hand (`agent/images/*.tar`) become images of the runtime.
//!
//! CRI has no verb for this, and containerd's own import is part of its client library: layers go through its content
//! store, its differs and its snapshotter under a lease. So its tool `ctr`, which comes with it, is run as a child.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

use crate::archive::{Expected, full_name};
use crate::cri::{Cri, CriError};

/// Longest import of one file.
pub const IMPORT_TIMEOUT: Duration = Duration::from_secs(1800);
/// Longest wait until CRI knows of an imported image: it learns by an event.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);
const NOTICE_INTERVAL: Duration = Duration::from_millis(20);
/// Files one folder may hold.
pub const FILES_MAX: usize = 1024;
/// Before each pass over the files that are still to be imported: a runtime that was killed meanwhile comes back.
const PAUSES: [Duration; 4] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// containerd's namespace of everything CRI makes.
const NAMESPACE: &str = "k8s.io";
const PIN: &str = "io.cri-containerd.pinned=pinned";
const ENDINGS: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".oci"];

/// Imports image files into one containerd.
#[derive(Clone, Debug)]
pub struct Importer {
    tool: PathBuf,
    socket: PathBuf,
    snapshotter: String,
}

/// What a folder's import did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Names of images that were imported now.
    pub imported: Vec<String>,
    /// Files whose images were already there.
    pub unchanged: usize,
    pub failed: Vec<(PathBuf, ImportError)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("run {tool}")]
    Tool {
        tool: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{action} failed: {message}")]
    Refused { action: String, message: String },
    #[error("{action} took longer than {IMPORT_TIMEOUT:?}")]
    Slow { action: String },
    #[error("ask for an imported image")]
    Cri(#[from] CriError),
    #[error("the runtime does not list {image}, which was just imported")]
    Unseen { image: String },
}

/// What an earlier import made of a file, so that a restart does not repeat it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    modified_ns: u128,
    images: Vec<String>,
}

// === impl Importer ===

impl Importer {
    pub fn new(tool: PathBuf, socket: PathBuf, snapshotter: &str) -> Importer {
        Importer { tool, socket, snapshotter: snapshotter.to_owned() }
    }

    /// Imports every image file of a folder that is new, changed, or whose images are gone. `stamps` remembers between
    /// starts, `expected` hears of each file's end. Small files come first: most images are there soonest. One bad file
    /// does not keep the others out, and what failed is tried again.
    pub async fn import_folder(
        &self,
        folder: &Path,
        stamps: &Path,
        cri: &Cri,
        expected: &Expected,
    ) -> Result<Outcome, ImportError> {
        let mut known: BTreeMap<PathBuf, Stamp> =
            fs::read(stamps).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let mut outcome = Outcome::default();
        let mut files = image_files(folder)?;
        files.sort_by_key(|file| fs::metadata(file).map_or(u64::MAX, |meta| meta.len()));
        known.retain(|file, _| files.contains(file));
        let mut left = files;
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            outcome.failed.clear();
            for file in left {
                match self.import_anew(&file, &mut known, cri).await {
                    Ok(None) => outcome.unchanged += 1,
                    Ok(Some(images)) => {
                        outcome.imported.extend(images);
                        let text = serde_json::to_vec_pretty(&known).expect("stamps are JSON");
                        // Only a hint: without it the next start imports again.
                        let _ = fs::write(stamps, text);
                    }
                    Err(error) => {
                        outcome.failed.push((file, error));
                        continue;
                    }
                }
                expected.done(&file);
            }
            left = outcome.failed.iter().map(|(file, _)| file.clone()).collect();
            if left.is_empty() {
                break;
            }
        }
        expected.close();
        Ok(outcome)
    }

    /// Imports one file unless its images are there from before; their names, if it did.
    async fn import_anew(
        &self,
        file: &Path,
        known: &mut BTreeMap<PathBuf, Stamp>,
        cri: &Cri,
    ) -> Result<Option<Vec<String>>, ImportError> {
        let stamp = stamp(file)?;
        if let Some(old) = known.get(file)
            && (old.bytes, old.modified_ns) == (stamp.bytes, stamp.modified_ns)
            && all_present(&old.images, cri).await?
        {
            return Ok(None);
        }
        let images = self.import(file, cri).await?;
        known.insert(file.to_path_buf(), Stamp { images: images.clone(), ..stamp });
        Ok(Some(images))
    }

    /// Imports one file and waits until CRI knows its images; their names.
    pub async fn import(&self, file: &Path, cri: &Cri) -> Result<Vec<String>, ImportError> {
        let file_text = file.to_string_lossy();
        let arguments = ["images", "import", "--snapshotter", &self.snapshotter, &file_text];
        let printed = self.tool(&format!("import of {file_text}"), &arguments).await?;
        let mut images = names(&printed);
        for image in &mut images {
            // CRI looks names up in their full form; an archive may carry a short one.
            let full = full_name(image);
            if full != *image {
                self.tool(&format!("name {full}"), &["images", "tag", "--force", image, &full]).await?;
                *image = full;
            }
            notice(image, cri).await?;
        }
        Ok(images)
    }

    /// Keeps an image from being collected as unused (respected by containerd 1.7 and later; before that the node's
    /// own collector must spare it).
    pub async fn pin(&self, image: &str) -> Result<(), ImportError> {
        self.tool(&format!("pin of {image}"), &["images", "label", image, PIN]).await.map(drop)
    }

    async fn tool(&self, action: &str, arguments: &[&str]) -> Result<String, ImportError> {
        let mut command = Command::new(&self.tool);
        command.arg("--address").arg(&self.socket).args(["--namespace", NAMESPACE]).args(arguments);
        let reply = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let reply = tokio::time::timeout(IMPORT_TIMEOUT, reply).await;
        let reply = reply.map_err(|_| ImportError::Slow { action: action.to_owned() })?;
        let output = reply.map_err(|source| ImportError::Tool { tool: self.tool.clone(), source })?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(ImportError::Refused { action: action.to_owned(), message });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

async fn all_present(images: &[String], cri: &Cri) -> Result<bool, CriError> {
    for image in images {
        if cri.image_status(image).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(!images.is_empty())
}

async fn notice(image: &str, cri: &Cri) -> Result<(), ImportError> {
    let deadline = Instant::now() + NOTICE_TIMEOUT;
    while cri.image_status(image).await?.is_none() {
        if deadline < Instant::now() {
            return Err(ImportError::Unseen { image: image.to_owned() });
        }
        tokio::time::sleep(NOTICE_INTERVAL).await;
    }
    Ok(())
}

/// The tool prints `unpacking NAME (sha256:...)...done` per image; later versions print the bare name first.
fn names(printed: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in printed.lines() {
        let line = line.trim();
        let name = match line.strip_prefix("unpacking ") {
            Some(rest) => rest.split_once(" (").map(|(name, _)| name),
            None => line.split_whitespace().next().filter(|word| line.contains("saved") && word.contains(['/', ':'])),
        };
        if let Some(name) = name.filter(|name| !names.iter().any(|known| known == name)) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The files of a folder that can be images, by name.
pub fn image_files(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let fail = |source| ImportError::Read { path: folder.to_path_buf(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut files = Vec::new();
    for entry in entries.take(FILES_MAX) {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn stamp(file: &Path) -> Result<Stamp, ImportError> {
    let fail = |source| ImportError::Read { path: file.to_path_buf(), source };
    let meta = fs::metadata(file).map_err(fail)?;
    let modified = meta.modified().map_err(fail)?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Stamp { bytes: meta.len(), modified_ns: modified.as_nanos(), images: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_what_the_tool_prints() {
        let printed = "unpacking local/pause:1 (sha256:ab)...done\nunpacking local/web:2 (sha256:cd)...done\n";
        assert_eq!(names(printed), ["local/pause:1", "local/web:2"]);
        assert_eq!(names("local/pause:1          saved\nelapsed: 0.1 s\n"), ["local/pause:1"]);
    }

    #[test]
    fn only_image_files_count() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.tar.zst", "a.tar", "readme.txt", "c.tar.gz"] {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        let files = image_files(folder.path()).unwrap();
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.tar", "b.tar.zst", "c.tar.gz"]);
        assert!(image_files(&folder.path().join("absent")).unwrap().is_empty());
    }
}
