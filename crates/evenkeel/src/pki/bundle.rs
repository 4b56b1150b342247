//! Several authorities in one text, and what a cluster is known by when they change: each authority has a hash, and the
//! cluster keeps the one of its first.

use std::path::{Path, PathBuf};

use super::files::{Access, read, write};
use super::{PkiError, sha256_hex};

const END: &str = "-----END CERTIFICATE-----";
/// More rotations than a cluster lives to see.
const FORMER_MAX: usize = 64;
/// Digits that tell apart what a machine may trust.
const TRUST_DIGITS: usize = 12;

/// Server authorities of a folder that signed before, oldest first. Tokens and kubeconfigs may still name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage(Vec<String>);

/// The certificates of a text, each with its own line ends; one without any is a certificate as a whole.
pub(super) fn blocks(pem: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(pem);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.find(END).map(|at| at + END.len());
        let end = end.map(|at| at + (text[at..].len() - text[at..].trim_start().len()));
        let (block, others) = text.split_at(end.unwrap_or(text.len()));
        rest = Some(others).filter(|others| !others.is_empty());
        Some(block)
    })
}

/// The authority that signs, of those in a text.
pub fn first(pem: &str) -> &str {
    blocks(pem).next().unwrap_or_default()
}

/// The hash that tokens carry: of the authority that signs.
pub fn hash_of_ca(pem: &str) -> String {
    sha256_hex(first(pem).as_bytes())
}

/// The hashes of all authorities of a text.
pub(super) fn hashes(pem: &str) -> Vec<String> {
    blocks(pem).map(hash_of_ca).collect()
}

/// What a machine trusts and who signs for it, as it tells others.
pub fn trust_of(pem: &str) -> String {
    sha256_hex(pem.as_bytes())[..TRUST_DIGITS].to_owned()
}

// === impl Lineage ===

impl Lineage {
    /// Of the folder with the authority `server-ca`.
    pub fn of(folder: &Path) -> Result<Lineage, PkiError> {
        let text = read(&path(folder))?.unwrap_or_default();
        Ok(Lineage(text.lines().map(str::to_owned).collect()))
    }

    pub fn holds(&self, hash: &str) -> bool {
        self.0.iter().any(|former| former == hash)
    }

    /// What the cluster is known by, whatever authority it has now.
    pub fn cluster(&self, ca_pem: &str) -> String {
        self.0.first().cloned().unwrap_or_else(|| hash_of_ca(ca_pem))
    }

    /// True where two texts trust an authority of the same cluster, whose lineage this is.
    pub fn is_one(&self, own: &str, other: &str) -> bool {
        let own = hashes(own);
        hashes(other).iter().any(|hash| own.contains(hash) || self.holds(hash))
    }

    /// The newest that nobody trusts any more.
    pub fn ended(&self, ca_pem: &str) -> Option<&str> {
        let trusted = hashes(ca_pem);
        self.0.iter().rev().find(|former| !trusted.contains(former)).map(String::as_str)
    }

    /// Notes who signed, where another one does now.
    pub fn note(folder: &Path, before: &str, now: &str) -> Result<(), PkiError> {
        let (mut lineage, before) = (Lineage::of(folder)?, hash_of_ca(before));
        if before == hash_of_ca(now) || lineage.holds(&before) || FORMER_MAX <= lineage.0.len() {
            return Ok(());
        }
        lineage.0.push(before);
        write(&path(folder), (lineage.0.join("\n") + "\n").as_bytes(), Access::Public)
    }
}

/// Its name ends as an authority's files do: it is the cluster's, and goes to servers that join.
fn path(folder: &Path) -> PathBuf {
    folder.join("former-server-ca")
}

#[cfg(test)]
mod tests {
    use super::{Lineage, blocks, first, hash_of_ca, trust_of};

    const A: &str = "-----BEGIN CERTIFICATE-----\na\n-----END CERTIFICATE-----\n";
    const B: &str = "-----BEGIN CERTIFICATE-----\nb\n-----END CERTIFICATE-----\n";

    #[test]
    fn each_certificate_of_a_text_keeps_its_hash() {
        let both = [A, B].concat();
        assert_eq!(blocks(&both).collect::<Vec<_>>(), [A, B]);
        assert_eq!((first(&both), hash_of_ca(&both)), (A, hash_of_ca(A)));
        assert_eq!(first(""), "");
        assert_ne!(trust_of(&both), trust_of(&[B, A].concat()), "who signs is a part of it");
    }

    #[test]
    fn a_cluster_is_known_by_its_first_authority() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = |pem: &str| Lineage::of(folder.path()).unwrap().cluster(pem);
        assert_eq!(cluster(A), hash_of_ca(A));
        Lineage::note(folder.path(), A, &[A, B].concat()).unwrap();
        Lineage::note(folder.path(), &[A, B].concat(), &[B, A].concat()).unwrap();
        Lineage::note(folder.path(), A, B).unwrap();
        assert_eq!(cluster(B), hash_of_ca(A));
        let lineage = Lineage::of(folder.path()).unwrap();
        assert!(lineage.holds(&hash_of_ca(A)) && !lineage.holds(&hash_of_ca(B)) && lineage.0.len() == 1);
        assert_eq!((lineage.ended(&[B, A].concat()), lineage.ended(B)), (None, Some(hash_of_ca(A).as_str())));
    }
}
