//! Where a bundle is read from, and what lies beside it: a folder, or a store that speaks S3.

use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::backup::S3Flags;
use crate::wire::backup::bundle::Bundle;
use crate::wire::backup::targets::{Folder, S3, S3Options, Target};

/// A bundle in a place.
pub struct Source {
    target: Box<dyn Target>,
    /// The bundle's file.
    pub name: String,
    text: String,
}

// === impl Source ===

impl Source {
    /// A path, or `https://ENDPOINT/BUCKET/PREFIX/NAME`.
    pub fn of(text: &str, flags: &S3Flags) -> Result<Source> {
        let (target, name): (Box<dyn Target>, String) = if text.starts_with("https://") {
            let (url, name) = text.rsplit_once('/').context("the address names no bundle")?;
            let (credentials, ca) = (flags.backup_s3_credentials.clone(), flags.backup_s3_ca.clone());
            (Box::new(S3::new(S3Options { url: url.to_owned(), credentials, ca })?), name.to_owned())
        } else {
            let path = std::path::absolute(text)?;
            let name =
                path.file_name().with_context(|| format!("{text} names no file"))?.to_string_lossy().into_owned();
            (Box::new(Folder::new(path.parent().unwrap_or(Path::new("/")).to_owned())), name)
        };
        Ok(Source { target, name, text: text.to_owned() })
    }

    /// Reads the whole bundle and checks its members.
    pub async fn bundle(&self) -> Result<Bundle> {
        Bundle::parse(self.file(&self.name).await?.as_slice()).with_context(|| self.text.clone())
    }

    /// A file beside it.
    pub async fn file(&self, name: &str) -> Result<Vec<u8>> {
        self.target.get(name).await.with_context(|| format!("fetch {name} for {}", self.text))
    }
}
