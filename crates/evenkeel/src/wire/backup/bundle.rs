//! A backup bundle: one tar with a manifest that says what is in it and what is not.
//!
//! ```text
//! manifest.json     format, cluster, revision, sha256 of each member, who opens the keys, what is in it and what is not
//! store.snapshot    every object at one revision; Secrets stay encrypted in it
//! keys.sealed       the PKI, the credentials, server/manifests, the cluster's flags and the snapshot's sha256, as a tar
//!                   sealed to the recipients
//! ```
//! The manifest's hashes find damage. Against an altered snapshot stands the hash among the sealed keys: who cannot open
//! them cannot make others that hold this cluster's keys.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::super::agreed::ClusterFlags;
use super::contents::Volume;
use crate::pki::{Opener, open_with, seal_to, sha256_hex};

pub const FORMAT: u32 = 2;
const MANIFEST: &str = "manifest.json";
const SNAPSHOT: &str = "store.snapshot";
const KEYS: &str = "keys.sealed";
/// Among the sealed keys: the hash of the snapshot they belong to.
const SNAPSHOT_HASH: &str = "snapshot.sha256";
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
    /// Objects of each kind's storage, `group/resource`: what a restore is held against.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    /// Format of the snapshot.
    #[serde(default)]
    pub snapshot_format: u8,
    /// The Kubernetes version that was served.
    #[serde(default)]
    pub kubernetes: String,
    /// What the server was started with that a restored one must be started with too.
    #[serde(default)]
    pub settings: Option<ClusterFlags>,
    #[serde(default)]
    pub nodes: Vec<String>,
    /// SHA-256 of each other member.
    pub members: BTreeMap<String, String>,
    /// The recipients of the sealed keys.
    pub opens_with: Vec<String>,
    pub included: Vec<String>,
    pub keys: Vec<String>,
    pub not_included: Vec<String>,
    /// The volumes whose content is not in it.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Key files that a restore needs and that were not there.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// A bundle whose members are whole.
#[derive(Debug)]
pub struct Bundle {
    pub manifest: Manifest,
    pub snapshot: Vec<u8>,
    sealed: Vec<u8>,
}

// === impl Bundle ===

impl Bundle {
    /// Reads a bundle and checks every member against the manifest.
    pub fn read(path: &Path) -> Result<Bundle> {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        Bundle::parse(std::io::BufReader::new(file)).with_context(|| path.display().to_string())
    }

    pub fn parse(reader: impl Read) -> Result<Bundle> {
        let mut members = unpack(reader).context("this is not a bundle, or it is cut off")?;
        let text = members.get(Path::new(MANIFEST)).context("this is not a bundle: it has no manifest")?;
        // A newer manifest may lack what this program knows; its format says so first.
        let tree: serde_json::Value = serde_json::from_slice(text).context("read the manifest")?;
        match tree["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) if format > u64::from(FORMAT) => {
                let (by, own) = (tree["program"].as_str().unwrap_or("another"), env!("CARGO_PKG_VERSION"));
                bail!(
                    "version {by} made this bundle in format {format}; this program, {own}, reads {FORMAT}: nothing was \
                     touched, take a newer one"
                )
            }
            format => bail!("the bundle has format {}, this program reads {FORMAT}", format.unwrap_or_default()),
        }
        let manifest: Manifest = serde_json::from_value(tree).context("read the manifest")?;
        let mut member = |name: &str| {
            let hash = manifest.members.get(name).with_context(|| format!("the manifest does not name {name}"))?;
            let content = members.remove(Path::new(name)).with_context(|| format!("{name} is missing"))?;
            ensure!(sha256_hex(&content) == *hash, "{name} is damaged");
            Ok(content)
        };
        let (snapshot, sealed) = (member(SNAPSHOT)?, member(KEYS)?);
        Ok(Bundle { manifest, snapshot, sealed })
    }

    /// The key files, by their names below the data folder.
    pub fn keys(&self, opener: &Opener) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let packed = open_with(opener, &self.sealed).context("open the sealed keys")?;
        let mut files = unpack(packed.as_slice()).context("read the sealed keys")?;
        let hash = files.remove(Path::new(SNAPSHOT_HASH)).context("the sealed keys name no snapshot")?;
        let same = hash == sha256_hex(&self.snapshot).as_bytes();
        ensure!(same, "the snapshot is not the one these keys were sealed with: it was exchanged");
        Ok(files)
    }
}

/// The whole bundle: key files and snapshot under a manifest that names them.
pub fn seal(
    manifest: Manifest,
    openers: &[Opener],
    root: &Path,
    files: &[PathBuf],
    snapshot: &[u8],
) -> Result<(Manifest, Vec<u8>)> {
    let hash = sha256_hex(snapshot);
    let keys = seal_to(openers, &pack(root, files, &hash)?)?;
    let members = BTreeMap::from([(SNAPSHOT.to_owned(), hash), (KEYS.to_owned(), sha256_hex(&keys))]);
    let manifest = Manifest { members, ..manifest };
    let mut builder = tar::Builder::new(Vec::new());
    append(&mut builder, MANIFEST, 0o644, serde_json::to_string_pretty(&manifest)?.as_bytes())?;
    append(&mut builder, SNAPSHOT, 0o600, snapshot)?;
    append(&mut builder, KEYS, 0o600, &keys)?;
    Ok((manifest, builder.into_inner()?))
}

/// A tar of files below a folder, and of the snapshot's hash.
fn pack(root: &Path, files: &[PathBuf], snapshot: &str) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    append(&mut builder, SNAPSHOT_HASH, 0o600, snapshot.as_bytes())?;
    for file in files {
        let content = std::fs::read(root.join(file)).with_context(|| format!("read {}", file.display()))?;
        append(&mut builder, &file.to_string_lossy(), 0o600, &content)?;
    }
    Ok(builder.into_inner()?)
}

/// The members of a tar. Names that lead out of the folder are refused.
fn unpack(reader: impl Read) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
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

fn append(builder: &mut tar::Builder<impl Write>, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_entry_type(tar::EntryType::Regular);
    builder.append_data(&mut header, name, content).with_context(|| format!("add {name}"))
}

#[cfg(test)]
mod tests {
    use super::{Bundle, FORMAT, Manifest, append, seal, unpack};
    use crate::pki::{Opener, recipient};
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    fn manifest() -> Manifest {
        let empty = String::new;
        Manifest {
            format: FORMAT,
            program: empty(),
            created: empty(),
            cluster: empty(),
            revision: 7,
            objects: 1,
            counts: BTreeMap::new(),
            snapshot_format: 1,
            kubernetes: empty(),
            settings: None,
            nodes: Vec::new(),
            members: BTreeMap::new(),
            opens_with: Vec::new(),
            included: Vec::new(),
            keys: Vec::new(),
            not_included: Vec::new(),
            volumes: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// A bundle with one key file and the snapshot `state`, and what opens it.
    fn sample(change: impl FnOnce(&mut Manifest)) -> (Vec<u8>, Opener) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), "secret").unwrap();
        let (public, secret) = recipient().unwrap();
        let mut manifest = manifest();
        change(&mut manifest);
        let openers = [Opener::recipient(&public).unwrap()];
        let (_, whole) = seal(manifest, &openers, folder.path(), &[PathBuf::from("a/b")], b"state").unwrap();
        (whole, Opener::secret(&secret).unwrap())
    }

    fn error(bytes: &[u8]) -> String {
        format!("{:#}", Bundle::parse(bytes).unwrap_err())
    }

    #[test]
    fn what_was_sealed_comes_back() {
        let (whole, secret) = sample(|_| ());
        let bundle = Bundle::parse(whole.as_slice()).unwrap();
        assert_eq!((bundle.manifest.revision, bundle.snapshot.as_slice()), (7, b"state".as_slice()));
        assert_eq!(bundle.keys(&secret).unwrap(), BTreeMap::from([(PathBuf::from("a/b"), b"secret".to_vec())]));
        assert!(bundle.keys(&Opener::Passphrase("p".to_owned())).is_err());
    }

    #[test]
    fn a_bundle_that_is_cut_off_damaged_newer_or_none_says_so() {
        let (whole, _) = sample(|_| ());
        for length in (0..whole.len() - 1024).step_by(97) {
            assert!(Bundle::parse(&whole[..length]).is_err(), "cut at {length}");
        }
        let find = |what: &[u8]| whole.windows(what.len()).position(|window| window == what).unwrap();
        let mut damaged = whole.clone();
        damaged[find(b"EVKSEAL") + 40] ^= 1;
        assert!(error(&damaged).contains("keys.sealed is damaged"));
        assert!(error(b"no tar at all, but a text that somebody wrote").contains("not a bundle"));
        let (newer, _) = sample(|manifest| manifest.format = FORMAT + 1);
        assert!(error(&newer).contains("take a newer one"));
    }

    /// Somebody who can write manifests, and hashes, but not open the keys.
    #[test]
    fn an_exchanged_snapshot_is_found_by_the_sealed_hash() {
        let (whole, secret) = sample(|_| ());
        let mut bundle = Bundle::parse(whole.as_slice()).unwrap();
        bundle.snapshot = b"other".to_vec();
        assert!(format!("{:#}", bundle.keys(&secret).unwrap_err()).contains("it was exchanged"));
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, "abc", 0o600, b"x").unwrap();
        let mut evil = builder.into_inner().unwrap();
        assert!(unpack(evil.as_slice()).unwrap().contains_key(Path::new("abc")));
        evil[..3].copy_from_slice(b"/bc");
        assert!(unpack(evil.as_slice()).is_err());
    }
}
