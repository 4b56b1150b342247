//! The files of an application's backup beside its bundle: sealed pieces, and an index with their hashes.
//!
//! ```text
//! BUNDLE.app-NAMESPACE.NAME.00000 ...   pieces, each sealed to those who can open the bundle
//! BUNDLE.app-NAMESPACE.NAME.json        signed by the cluster
//! ```
//! Pieces can be sealed by anybody who knows a recipient; the index is written by this cluster alone.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use keeper::backup::BundleName;
use serde::{Deserialize, Serialize};

use super::hook::App;
use crate::pki::sha256_hex;
use crate::wire::backup::signed::Key;

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

/// The bundle that a file of an application's backup lies beside; None for every other name.
pub fn bundle_of(file: &str) -> Option<BundleName> {
    let (bundle, rest) = file.split_once(".app-")?;
    let plain = rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    plain.then(|| bundle.parse().ok())?
}

/// The files beside a bundle.
pub fn files_of<'a>(bundle: &BundleName, files: &'a BTreeMap<String, u64>) -> impl Iterator<Item = String> + use<'a> {
    let prefix = format!("{bundle}.app-");
    files.keys().filter(move |file| file.starts_with(&prefix)).cloned()
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
        key.sign(serde_json::to_string(self)?)
    }

    pub fn read(bytes: &[u8], key: &Key) -> Result<Index> {
        let text = key.read(bytes).context("this is no index of a backup")?;
        let index: Index = serde_json::from_str(&text).context("read the index")?;
        ensure!(index.format == FORMAT, "it has format {}; this program reads {FORMAT}", index.format);
        Ok(index)
    }

    /// A piece, checked and opened.
    pub fn open(&self, number: usize, sealed: &[u8], key: &Key) -> Result<Vec<u8>> {
        let file = self.piece(number);
        let hash = self.pieces.get(number).with_context(|| format!("the index names no {file}"))?;
        ensure!(sha256_hex(sealed) == *hash, "{file} is damaged");
        key.open(sealed).with_context(|| format!("open {file}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, bundle_of, files_of};
    use crate::pki::{Opener, recipient, seal_to, sha256_hex};
    use crate::wire::backup::apps::hook::App;
    use crate::wire::backup::signed::Key;
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
        let refused = format!("{:#}", Index::read(changed.as_bytes(), &key).unwrap_err());
        assert!(refused.contains("was changed"), "{refused}");
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
        assert_eq!(bundle_of(&index.piece(0)), Some(index.bundle.clone()));
        for other in [index.bundle.to_string(), format!("{}.app-../x", index.bundle), "x.app-a.b.json".to_owned()] {
            assert_eq!(bundle_of(&other), None, "{other}");
        }
        assert_eq!(index.piece(0), "evenkeel-19700101t000000z-r7.bundle.app-shop.sql.00000");
    }
}
