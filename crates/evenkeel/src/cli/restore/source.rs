//! Where a bundle is read from: a file, or a store that speaks S3.

use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::backup::S3Flags;
use crate::wire::backup::bundle::Bundle;
use crate::wire::backup::targets::{S3, S3Options, Target};

/// Reads the whole bundle and checks its members.
pub async fn read(source: &str, flags: &S3Flags) -> Result<Bundle> {
    if !source.starts_with("https://") {
        return Bundle::read(Path::new(source));
    }
    let (url, name) = source.rsplit_once('/').context("the address names no bundle")?;
    let (credentials, ca) = (flags.backup_s3_credentials.clone(), flags.backup_s3_ca.clone());
    let bytes = S3::new(S3Options { url: url.to_owned(), credentials, ca })?.get(name).await;
    let bytes = bytes.with_context(|| format!("fetch {source}"))?;
    Bundle::parse(bytes.as_slice()).with_context(|| source.to_owned())
}
