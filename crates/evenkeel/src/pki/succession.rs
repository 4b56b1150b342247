//! One set of authorities in the place of another, step by step: what the files of a server are in each phase.
//!
//! The whole succession is noted in one file before the others follow it, so that a server that is killed in between
//! finds its way at the next start.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::PkiError;
use super::authority::{cross_path, paths};
use super::bundle::{Lineage, first};
use super::files::{Access, read, write};
use super::server::{Authorities, SERVER_CA, SIGNING_KEYS};

/// How far one set of authorities has taken the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Both are trusted; the old one signs.
    Distribute,
    /// Both are trusted; the new one signs, with the old one's word for it.
    Issue,
    /// The new one alone is trusted.
    Finish,
    /// And nobody needs the old one's word any more.
    Done,
}

/// The next authorities with their keys, and the next key of service-account tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Succession {
    pub number: u64,
    pub phase: Phase,
    /// By the names of the authorities' files.
    pub heirs: BTreeMap<String, Heir>,
    pub signing_key: String,
    /// Of its file.
    pub signing_name: String,
    /// Until then the keys before verify what they signed: from the finish on, and for as long as a token may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_until: Option<Timestamp>,
}

/// Certificates and key in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heir {
    pub old: String,
    pub new: String,
    pub key: String,
    pub cross: String,
}

// === impl Succession ===

impl Succession {
    /// Draws the keys. Nothing knows of them yet.
    pub fn draw(number: u64, before: &Authorities, now: Timestamp) -> Result<Succession, PkiError> {
        let mut heirs = BTreeMap::new();
        for (name, authority) in before.named() {
            let made = authority.successor(name, now)?;
            let old = first(&authority.pem).to_owned();
            let heir = Heir { old, new: made.certificate, key: made.key, cross: made.cross };
            heirs.insert(name.to_owned(), heir);
        }
        let signing_key = KeyPair::generate()?.serialize_pem();
        let signing_name = format!("{:04}", before.signing_number + 1);
        Ok(Succession { number, phase: Phase::Distribute, heirs, signing_key, signing_name, tokens_until: None })
    }

    /// Without what nobody may need any more: what is kept of one that is over.
    #[must_use]
    pub fn without_keys(mut self) -> Succession {
        for heir in self.heirs.values_mut() {
            heir.key.clear();
        }
        self.signing_key.clear();
        self
    }

    /// Whom machines trust to serve in a phase.
    pub fn server_bundle(&self, phase: Phase) -> String {
        self.heirs.get(SERVER_CA).map(|heir| heir.bundle(phase)).unwrap_or_default()
    }

    /// True where this server has what comes last, by whatever way.
    pub fn is_reached(&self, now: &Authorities) -> bool {
        self.heirs.get(SERVER_CA).is_some_and(|heir| heir.new == first(&now.server.pem))
    }

    /// True where this is further than the other, or another one altogether.
    pub fn is_beyond(&self, other: &Succession) -> bool {
        (other.number, other.phase) < (self.number, self.phase)
    }

    pub fn noted(folder: &Path) -> Result<Option<Succession>, PkiError> {
        let path = note_path(folder);
        let Some(text) = read(&path)? else { return Ok(None) };
        let parsed = serde_json::from_str(&text);
        parsed.map(Some).map_err(|error| PkiError::Content { path, why: error.to_string() })
    }

    /// Notes it, and makes the files of the folder what its phase says.
    pub fn apply(&self, folder: &Path) -> Result<(), PkiError> {
        let text = serde_json::to_string(self).expect("a succession is plain data");
        write(&note_path(folder), text.as_bytes(), Access::Secret)?;
        self.materialise(folder)
    }

    /// Makes the files of the folder what the phase says. Any number of times.
    pub(super) fn materialise(&self, folder: &Path) -> Result<(), PkiError> {
        if self.phase >= Phase::Issue
            && let Some(heir) = self.heirs.get(SERVER_CA)
        {
            Lineage::note(folder, &heir.old, &heir.new)?;
        }
        for (name, heir) in &self.heirs {
            heir.materialise(folder, name, self.phase)?;
        }
        self.signing(&folder.join(SIGNING_KEYS))?;
        if self.phase == Phase::Done { remove(&note_path(folder)) } else { Ok(()) }
    }

    /// The next key verifies before it signs. The ones before it verify what they signed for as long as that holds.
    fn signing(&self, folder: &Path) -> Result<(), PkiError> {
        let file = |end: &str| folder.join(format!("{}.{end}", self.signing_name));
        if self.phase == Phase::Distribute {
            return put(&file("next"), &self.signing_key, Access::Secret);
        }
        put(&file("key"), &self.signing_key, Access::Secret)?;
        remove(&file("next"))
    }

    /// True where no token that an earlier key signed holds any more.
    fn has_outlived_tokens(&self, now: Timestamp) -> bool {
        Phase::Finish <= self.phase && self.tokens_until.is_some_and(|until| until <= now)
    }

    /// Removes the keys before this one's from a server's files, where their tokens are over; true where there were any.
    pub(super) fn retire(&self, folder: &Path, now: Timestamp) -> Result<bool, PkiError> {
        let folder = folder.join(SIGNING_KEYS);
        // A server that has not come along has no other key to sign with.
        if !self.has_outlived_tokens(now) || !folder.join(format!("{}.key", self.signing_name)).exists() {
            return Ok(false);
        }
        let entries = fs::read_dir(&folder).map_err(|source| PkiError::Read { path: folder.clone(), source })?;
        let is_older = |path: &PathBuf| {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            path.extension().is_some_and(|end| end == "key") && stem.is_some_and(|stem| stem < self.signing_name)
        };
        let older: Vec<PathBuf> =
            entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(is_older).collect();
        older.iter().try_for_each(|path| remove(path))?;
        Ok(!older.is_empty())
    }
}

/// Without the keys.
impl fmt::Debug for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Succession({}, {:?})", self.number, self.phase)
    }
}

// === impl Heir ===

impl Heir {
    fn bundle(&self, phase: Phase) -> String {
        match phase {
            Phase::Distribute => [self.old.as_str(), &self.new].concat(),
            Phase::Issue => [self.new.as_str(), &self.old].concat(),
            Phase::Finish | Phase::Done => self.new.clone(),
        }
    }

    fn materialise(&self, folder: &Path, name: &str, phase: Phase) -> Result<(), PkiError> {
        let ((certificate, key), cross) = (paths(folder, name), cross_path(folder, name));
        if phase != Phase::Distribute {
            put(&key, &self.key, Access::Secret)?;
        }
        put(&certificate, &self.bundle(phase), Access::Public)?;
        match phase {
            Phase::Issue | Phase::Finish => put(&cross, &self.cross, Access::Public),
            Phase::Distribute | Phase::Done => remove(&cross),
        }
    }
}

fn note_path(folder: &Path) -> PathBuf {
    folder.join("succession.json")
}

fn put(path: &Path, text: &str, access: Access) -> Result<(), PkiError> {
    if read(path)?.as_deref() == Some(text) { Ok(()) } else { write(path, text.as_bytes(), access) }
}

fn remove(path: &Path) -> Result<(), PkiError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PkiError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase, Succession};
    use crate::layout::Layout;
    use crate::pki::leaf::LEAF_LIFE;
    use crate::pki::{Lineage, ServerNames, ServerPki, certificates, client_config, hash_of_ca};
    use jiff::{SignedDuration, Timestamp};
    use rustls_pki_types::{ServerName, UnixTime};
    use std::path::Path;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn pki(folder: &Path) -> ServerPki {
        ServerPki::load_or_make(&Layout::new(folder), LEAF_LIFE, now()).unwrap()
    }

    /// Whether who trusts this takes the server for the real one, by what it shows now.
    fn trusts(ca_pem: &str, server: &ServerPki) -> bool {
        let names = ServerNames::new("cluster.local", "10.43.0.1".parse().unwrap(), &[], "box", &[]);
        let (leaf, _) = server.serving(&names, now()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for ca in certificates(ca_pem).unwrap() {
            roots.add(ca).unwrap();
        }
        client_config(ca_pem, Some(&leaf), true).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let seconds = u64::try_from(now().as_second()).unwrap();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let name = ServerName::try_from("box").unwrap();
        let (first, rest) = leaf.chain.split_first().unwrap();
        rustls::client::danger::ServerCertVerifier::verify_server_cert(&*verifier, first, rest, &name, &[], time)
            .is_ok()
    }

    #[test]
    fn whoever_trusts_the_old_or_the_new_is_served_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let server = pki(folder.path());
        let (old, keys) = (server.current().server.pem.clone(), server.current().signing_keys.clone());
        let drawn = Succession::draw(1, &server.current(), now() + SignedDuration::from_secs(1)).unwrap();
        let (new, until) = (drawn.server_bundle(Phase::Done), now() + SignedDuration::from_hours(1));
        let mut seen = Vec::new();
        for phase in [Phase::Distribute, Phase::Issue, Phase::Finish, Phase::Done] {
            let at = if phase == Phase::Done { drawn.clone().without_keys() } else { drawn.clone() };
            let at = Succession { tokens_until: (Phase::Finish <= phase).then_some(until), ..at };
            assert!(server.succeed(&Succession { phase, ..at.clone() }, now()).unwrap());
            assert!(!server.retire(&Succession { phase, ..at.clone() }, now()).unwrap(), "tokens of before hold");
            assert!(!server.succeed(&Succession { phase, ..at }, now()).unwrap(), "twice is once");
            let again = pki(folder.path());
            assert_eq!(again.current().server.pem, server.current().server.pem, "found again after a restart");
            assert_eq!(again.current().cluster, hash_of_ca(&old), "it stays the same cluster");
            let verifies = server.current().signing_keys.contains(&keys[0]);
            let signs = server.current().signing_keys[0] == keys[0];
            seen.push((trusts(&old, &server), trusts(&new, &server), signs, verifies));
        }
        let wanted = [
            (true, false, true, true),
            (true, true, false, true),
            // Until every etcd was started again the old one's word goes along.
            (true, true, false, true),
            (false, true, false, true),
        ];
        assert_eq!(seen, wanted);
        let over = Succession { phase: Phase::Done, tokens_until: Some(until), ..drawn.without_keys() };
        assert!(server.retire(&over, until).unwrap() && !server.retire(&over, until).unwrap());
        assert_eq!(server.current().signing_keys.len(), 1, "only the new key verifies");
        assert!(!pki(tempfile::tempdir().unwrap().path()).retire(&over, until).unwrap(), "another server's only key");
        assert!(Lineage::of(&Layout::new(folder.path()).server_tls()).unwrap().holds(&hash_of_ca(&old)));
        assert!(Succession::noted(&Layout::new(folder.path()).server_tls()).unwrap().is_none());
    }

    #[test]
    fn a_server_that_was_killed_among_its_files_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (tls, server) = (Layout::new(folder.path()).server_tls(), pki(folder.path()));
        let drawn = Succession::draw(1, &server.current(), now()).unwrap();
        server.succeed(&drawn, now()).unwrap();
        let before = std::fs::read(tls.join("client-ca.crt")).unwrap();
        server.succeed(&Succession { phase: Phase::Issue, ..drawn.clone() }, now()).unwrap();
        std::fs::write(tls.join("client-ca.crt"), before).unwrap();
        std::fs::remove_file(tls.join("cross-etcd-ca.crt")).unwrap();
        let again = pki(folder.path());
        assert_eq!(again.current().client.pem, server.current().client.pem);
        assert_eq!(again.current().etcd.cross, drawn.heirs["etcd-ca"].cross);
    }

    #[test]
    fn a_server_that_missed_it_is_told_so_and_one_that_joined_after_it_is_not() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (server, other) = (pki(here.path()), pki(there.path()));
        let drawn = Succession::draw(1, &server.current(), now()).unwrap();
        let over = Succession { phase: Phase::Done, ..drawn.clone() }.without_keys();
        assert!(other.succeed(&over, now()).is_err());
        server.succeed(&Succession { phase: Phase::Finish, ..drawn }, now()).unwrap();
        server.succeed(&over, now()).unwrap();
        assert!(!pki(here.path()).succeed(&over, now()).unwrap());
        assert!(!format!("{over:?}").contains("PRIVATE"));
    }
}
