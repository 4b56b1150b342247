//! A folder: of the data disk, of a second disk, or of something that is mounted.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::Target;
use crate::pki::{self, Access};

/// Files in a folder that only root reads.
pub struct Folder {
    path: PathBuf,
}

// === impl Folder ===

impl Folder {
    pub fn new(path: PathBuf) -> Folder {
        Folder { path }
    }

    /// Runs what may block on a disk where it holds nobody up.
    async fn apart<T: Send + 'static>(&self, work: impl FnOnce(PathBuf) -> Result<T> + Send + 'static) -> Result<T> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || work(path)).await?
    }
}

#[async_trait]
impl Target for Folder {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn kind(&self) -> &'static str {
        "folder"
    }

    fn is_offsite(&self) -> bool {
        false
    }

    async fn list(&self) -> Result<BTreeMap<String, u64>> {
        self.apart(|folder| {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
                entries => entries.with_context(|| format!("read {}", folder.display()))?,
            };
            let mut files = BTreeMap::new();
            for entry in entries {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_file() {
                    files.insert(entry.file_name().to_string_lossy().into_owned(), metadata.len());
                }
            }
            Ok(files)
        })
        .await
    }

    async fn put(&self, file: &str, content: &[u8]) -> Result<()> {
        let (file, content) = (file.to_owned(), content.to_vec());
        self.apart(move |folder| Ok(pki::write(&folder.join(file), &content, Access::Secret)?)).await
    }

    async fn get(&self, file: &str) -> Result<Vec<u8>> {
        let file = file.to_owned();
        self.apart(move |folder| {
            let path = folder.join(file);
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        })
        .await
    }

    async fn remove(&self, file: &str) -> Result<()> {
        let file = file.to_owned();
        self.apart(move |folder| match fs::remove_file(folder.join(file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        })
        .await
    }
}
