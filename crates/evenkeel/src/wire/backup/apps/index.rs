//! The files of an application's backup beside its bundle: sealed pieces, and an index with their hashes.
//!
//! ```text
//! BUNDLE.app-NAMESPACE.NAME.00000 ...   pieces, each sealed to those who can open the bundle
//! BUNDLE.app-NAMESPACE.NAME.json        {"index": TEXT, "mac": HMAC-SHA256 of TEXT under the cluster's proof key}
//! ```
//! Pieces can be sealed by anybody who knows a recipient; the index, only by this cluster. Its key is among those that the
//! bundle holds.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use jiff::Timestamp;
use keeper::backup::BundleName;
use serde::{Deserialize, Serialize};

use super::hook::App;
use crate::layout::Layout;
use crate::pki::{Opener, hex, open_with, sha256_hex};
use crate::wire::backup::kit;

const FORMAT: u32 = 1;
const END: &str = ".json";

/// What an application's backup is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub format: u32,
    pub bundle: BundleName,
    #[serde(flatten)]
    pub app: App,
    pub pod: String,
    pub at: Timestamp,
    /// Of the backup as the application gave it.
    pub bytes: u64,
    pub measured: Option<u64>,
    /// The script that brings it to life; None where there is none.
    pub prove: Option<String>,
    /// SHA-256 of each sealed piece, in order.
    pub pieces: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    index: String,
    mac: String,
}

/// The cluster's own key for what it wrote itself.
pub struct Key {
    mac: hmac::Key,
    opener: Opener,
}

/// The files beside a bundle.
pub fn files_of<'a>(bundle: &BundleName, files: &'a BTreeMap<String, u64>) -> impl Iterator<Item = String> + use<'a> {
    let prefix = format!("{bundle}.app-");
    files.keys().filter(move |file| file.starts_with(&prefix)).cloned()
}

// === impl Key ===

impl Key {
    pub fn of(layout: &Layout) -> Result<Key> {
        Key::parse(&kit::proof_secret(layout)?)
    }

    /// Out of the file's text, as a bundle holds it too.
    pub fn parse(text: &str) -> Result<Key> {
        let opener = Opener::secret(text)?;
        Ok(Key { mac: hmac::Key::new(hmac::HMAC_SHA256, text.trim().as_bytes()), opener })
    }
}

// === impl Index ===

impl Index {
    pub fn new(bundle: &BundleName, app: &App, pod: &str, at: Timestamp) -> Index {
        let (bundle, app, pod) = (bundle.clone(), app.clone(), pod.to_owned());
        Index { format: FORMAT, bundle, app, pod, at, bytes: 0, measured: None, prove: None, pieces: Vec::new() }
    }

    pub fn is_one(file: &str) -> bool {
        file.ends_with(END)
    }

    pub fn file(&self) -> String {
        Index::file_of(&self.bundle, &self.app)
    }

    pub fn piece(&self, number: usize) -> String {
        format!("{}.app-{}.{}.{number:05}", self.bundle, self.app.namespace, self.app.name)
    }

    /// The index of an application's backup beside a bundle.
    pub fn file_of(bundle: &BundleName, app: &App) -> String {
        format!("{bundle}.app-{}.{}{END}", app.namespace, app.name)
    }

    pub fn sign(&self, key: &Key) -> Result<Vec<u8>> {
        let index = serde_json::to_string(self)?;
        let mac = hex(hmac::sign(&key.mac, index.as_bytes()).as_ref());
        Ok(serde_json::to_vec_pretty(&Signed { index, mac })?)
    }

    pub fn read(bytes: &[u8], key: &Key) -> Result<Index> {
        let signed: Signed = serde_json::from_slice(bytes).context("this is no index of a backup")?;
        let mac = hex(hmac::sign(&key.mac, signed.index.as_bytes()).as_ref());
        ensure!(mac == signed.mac, "the index was not written by this cluster, or was changed");
        let index: Index = serde_json::from_str(&signed.index).context("read the index")?;
        ensure!(index.format == FORMAT, "it has format {}; this program reads {FORMAT}", index.format);
        Ok(index)
    }

    /// A piece, checked and opened.
    pub fn open(&self, number: usize, sealed: &[u8], key: &Key) -> Result<Vec<u8>> {
        let file = self.piece(number);
        let hash = self.pieces.get(number).with_context(|| format!("the index names no {file}"))?;
        ensure!(sha256_hex(sealed) == *hash, "{file} is damaged");
        open_with(&key.opener, sealed).with_context(|| format!("open {file}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, Key, files_of};
    use crate::pki::{Opener, recipient, seal_to, sha256_hex};
    use crate::wire::backup::apps::hook::App;
    use jiff::Timestamp;
    use keeper::backup::BundleName;
    use std::collections::BTreeMap;

    fn index() -> Index {
        let bundle = BundleName::new(Timestamp::UNIX_EPOCH, 7);
        Index::new(&bundle, &App { namespace: "shop".into(), name: "sql".into() }, "sql-0", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn only_the_cluster_writes_an_index_and_no_piece_is_exchanged() {
        let (public, secret) = recipient().unwrap();
        let key = Key::parse(&format!("{public}\n{secret}\n")).unwrap();
        let sealed = seal_to(&[Opener::recipient(&public).unwrap()], b"rows").unwrap();
        let index = Index { pieces: vec![sha256_hex(&sealed)], ..index() };
        let signed = index.sign(&key).unwrap();
        assert_eq!(Index::read(&signed, &key).unwrap(), index);
        assert_eq!(index.open(0, &sealed, &key).unwrap(), b"rows");
        let other = seal_to(&[Opener::recipient(&public).unwrap()], b"rows").unwrap();
        assert!(index.open(0, &other, &key).is_err() && index.open(1, &sealed, &key).is_err());
        let changed = String::from_utf8(signed).unwrap().replace("sql-0", "sql-1");
        assert!(Index::read(changed.as_bytes(), &key).unwrap_err().to_string().contains("was changed"));
        let (public, secret) = recipient().unwrap();
        assert!(Index::read(changed.as_bytes(), &Key::parse(&format!("{public} {secret}")).unwrap()).is_err());
    }

    #[test]
    fn the_files_beside_a_bundle_are_told_from_others() {
        let index = index();
        let names = [index.file(), index.piece(0), index.bundle.to_string(), format!("{}.proven.json", index.bundle)];
        let files: BTreeMap<String, u64> = names.into_iter().map(|name| (name, 1)).collect();
        let found: Vec<String> = files_of(&index.bundle, &files).collect();
        assert_eq!(found, [index.piece(0), index.file()]);
        assert_eq!(index.piece(0), "evenkeel-19700101t000000z-r7.bundle.app-shop.sql.00000");
    }
}
