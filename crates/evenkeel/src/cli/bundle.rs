//! A backup bundle: one tar with a manifest that says what is in it and what is not.
//!
//! ```text
//! manifest.json     format, cluster, revision, sha256 of each member, what is not in it
//! store.snapshot    every object at one revision; Secrets stay encrypted in it
//! keys.sealed       the PKI and the credentials, as a tar sealed to the recipient
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::pki::sha256_hex;

pub const FORMAT: u32 = 1;
pub const MANIFEST: &str = "manifest.json";
pub const SNAPSHOT: &str = "store.snapshot";
pub const KEYS: &str = "keys.sealed";
/// A member larger than this is not ours.
const MEMBER_BYTES_MAX: u64 = 8 << 30;

/// What a bundle says of itself; readable without any key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format: u32,
    /// Version of the program that wrote it.
    pub program: String,
    pub created: String,
    /// SHA-256 of the server authority: which cluster this is.
    pub cluster: String,
    pub revision: u64,
    pub objects: u64,
    /// SHA-256 of each other member.
    pub members: BTreeMap<String, String>,
    pub keys: Vec<String>,
    pub not_included: Vec<String>,
}

/// The files that a restore needs beside the store, relative to the data folder: the set a joining server copies too.
pub fn key_files(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["server/tls", "server/cred"] {
        walk(&layout.data.join(folder), &mut found)?;
    }
    found.push(layout.token());
    let mut relative: Vec<PathBuf> = found
        .into_iter()
        .filter(|path| path.exists())
        .filter_map(|path| path.strip_prefix(&layout.data).map(Path::to_owned).ok())
        .collect();
    relative.sort();
    Ok(relative)
}

/// A tar of files below a folder.
pub fn pack(root: &Path, files: &[PathBuf]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let content = std::fs::read(root.join(file)).with_context(|| format!("read {}", file.display()))?;
        append(&mut builder, &file.to_string_lossy(), 0o600, &content)?;
    }
    Ok(builder.into_inner()?)
}

/// The members of a tar. Names that lead out of the folder are refused.
pub fn unpack(reader: impl Read) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        ensure!(plain && entry.header().entry_type().is_file(), "{} does not belong in a bundle", path.display());
        ensure!(entry.size() <= MEMBER_BYTES_MAX, "{} is too large", path.display());
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        members.insert(path, content);
    }
    Ok(members)
}

pub fn append(builder: &mut tar::Builder<impl Write>, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_entry_type(tar::EntryType::Regular);
    builder.append_data(&mut header, name, content).with_context(|| format!("add {name}"))
}

/// Reads a bundle and checks every member against the manifest.
pub fn open(path: &Path) -> Result<(Manifest, BTreeMap<PathBuf, Vec<u8>>)> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let members = unpack(std::io::BufReader::new(file)).context("this is not a bundle")?;
    let manifest = members.get(Path::new(MANIFEST)).context("the bundle has no manifest")?;
    let manifest: Manifest = serde_json::from_slice(manifest).context("read the manifest")?;
    if manifest.format != FORMAT {
        bail!("the bundle has format {}, this program reads {FORMAT}", manifest.format);
    }
    for (name, hash) in &manifest.members {
        let content = members.get(Path::new(name)).with_context(|| format!("{name} is missing"))?;
        ensure!(sha256_hex(content) == *hash, "{name} is damaged");
    }
    Ok((manifest, members))
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
    use super::{pack, unpack};
    use std::path::{Path, PathBuf};

    #[test]
    fn files_come_back_and_nothing_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), "secret").unwrap();
        let packed = pack(folder.path(), &[PathBuf::from("a/b")]).unwrap();
        assert_eq!(unpack(packed.as_slice()).unwrap()[Path::new("a/b")], b"secret");
        let mut evil = packed.clone();
        evil[..3].copy_from_slice(b"../");
        assert!(unpack(evil.as_slice()).is_err());
    }
}
