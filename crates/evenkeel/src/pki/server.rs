//! What a server makes on its first start and finds on every later one: the whole PKI of a cluster. It changes while the
//! server runs when one set of authorities takes the place of another.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use rcgen::KeyPair;
use tokio::sync::watch;

use super::PkiError;
use super::authority::Authority;
use super::bundle::{Lineage, hashes, trust_of};
use super::files::{Access, read, write};
use super::leaf::{Leaf, Profile, Renewal};
use super::succession::{Phase, Succession};
use crate::layout::Layout;

/// Older signing keys stay until their tokens have expired; more than this is a mistake.
const SIGNING_KEYS_MAX: usize = 8;

/// Files of the authority whom everybody trusts to serve.
pub(super) const SERVER_CA: &str = "server-ca";
const CLIENT_CA: &str = "client-ca";
const REQUEST_HEADER_CA: &str = "request-header-ca";
/// Folder of the keys of service-account tokens.
pub(super) const SIGNING_KEYS: &str = "service-account";

/// Files of the managed etcd's authority and of this server's leaf of it, less their ending.
pub const ETCD_CA: &str = "etcd-ca";
pub const ETCD_MEMBER: &str = "etcd-member";

/// Every name and address that a client may know the API server by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames {
    pub names: BTreeSet<String>,
    pub addresses: BTreeSet<IpAddr>,
}

/// Authorities and keys of a cluster, and what this server issues with them.
pub struct ServerPki {
    current: ArcSwap<Authorities>,
    changed: watch::Sender<()>,
    /// How long the leaves last that are issued.
    pub leaf_life: SignedDuration,
    folder: PathBuf,
}

/// Authorities and keys as they are at one moment.
pub struct Authorities {
    /// Signs what servers show: the API server and every kubelet.
    pub server: Authority,
    /// Signs what clients show.
    pub client: Authority,
    /// Signs front proxies: their word about users is taken.
    pub request_header: Authority,
    /// Signs members of the managed etcd and who may read and write it: nobody but servers.
    pub etcd: Authority,
    /// Private keys of service-account tokens in PEM: the first one signs.
    pub signing_keys: Vec<String>,
    pub(super) signing_number: u64,
    /// What this cluster is known by, whatever its authorities are now.
    pub cluster: String,
    /// Hashes of the server authorities that machines may know this cluster by.
    pub known_as: Vec<String>,
}

// === impl ServerNames ===

impl ServerNames {
    /// The names every API server has, and what this one's operator adds (`--tls-san`: names or addresses).
    pub fn new(domain: &str, service_address: IpAddr, own: &[IpAddr], host: &str, extra: &[String]) -> ServerNames {
        let mut names: BTreeSet<String> = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(str::to_owned)
            .into_iter()
            .collect();
        names.insert(format!("kubernetes.default.svc.{domain}"));
        names.insert(host.to_owned());
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), service_address];
        let mut addresses: BTreeSet<IpAddr> = loopback.into_iter().chain(own.iter().copied()).collect();
        addresses.retain(|address| !address.is_unspecified());
        for name in extra {
            match name.parse() {
                Ok(address) => addresses.insert(address),
                Err(_) => names.insert(name.clone()),
            };
        }
        ServerNames { names, addresses }
    }
}

// === impl ServerPki ===

impl ServerPki {
    pub fn load_or_make(layout: &Layout, leaf_life: SignedDuration, now: Timestamp) -> Result<ServerPki, PkiError> {
        let folder = layout.server_tls();
        // A server that was killed among its files goes on from what it noted first.
        if let Some(noted) = Succession::noted(&folder)? {
            noted.materialise(&folder)?;
        }
        let current = ArcSwap::from_pointee(Authorities::load_or_make(&folder, now)?);
        Ok(ServerPki { current, changed: watch::Sender::new(()), leaf_life, folder })
    }

    pub fn current(&self) -> Arc<Authorities> {
        self.current.load_full()
    }

    /// Becomes true whenever there are other authorities.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The succession that this server takes a part in, where one is open.
    pub fn noted(&self) -> Result<Option<Succession>, PkiError> {
        Succession::noted(&self.folder)
    }

    /// Goes on to the phase of a succession, with the files on the disk. True where that is something new.
    pub fn succeed(&self, wanted: &Succession, now: Timestamp) -> Result<bool, PkiError> {
        let mut wanted = wanted.clone();
        match Succession::noted(&self.folder)? {
            Some(noted) if noted.number == wanted.number => {
                if !wanted.is_beyond(&noted) {
                    return Ok(false);
                }
                // What is over is told without its keys.
                wanted = Succession { phase: wanted.phase, tokens_until: wanted.tokens_until, ..noted };
            }
            _ if wanted.phase == Phase::Done => {
                let missed = "this server missed the change of the authorities; it has to join the cluster anew";
                return if wanted.is_reached(&self.current()) {
                    Ok(false)
                } else {
                    Err(PkiError::Token(missed.into()))
                };
            }
            _ => {}
        }
        wanted.apply(&self.folder)?;
        self.current.store(Arc::new(Authorities::load_or_make(&self.folder, now)?));
        self.changed.send_replace(());
        Ok(true)
    }

    /// Lets keys go that sign no tokens since a succession, once none of their tokens holds. True where there were any.
    pub fn retire(&self, succession: &Succession, now: Timestamp) -> Result<bool, PkiError> {
        if !succession.retire(&self.folder, now)? {
            return Ok(false);
        }
        self.current.store(Arc::new(Authorities::load_or_make(&self.folder, now)?));
        self.changed.send_replace(());
        Ok(true)
    }

    pub fn serving(&self, names: &ServerNames, now: Timestamp) -> Result<(Leaf, Renewal), PkiError> {
        let profile =
            Profile::server("kube-apiserver", names.names.clone(), names.addresses.clone()).lasting(self.leaf_life);
        Leaf::load_or_issue(&self.folder, "serving", &self.current().server, &profile, now)
    }

    pub fn admin(&self, now: Timestamp) -> Result<(Leaf, Renewal), PkiError> {
        self.client_leaf("admin", &Profile::client("system:admin", &["system:masters"]), now)
    }

    /// What the API server shows to kubelets.
    pub fn kubelet_client(&self, now: Timestamp) -> Result<(Leaf, Renewal), PkiError> {
        let profile = Profile::client("kube-apiserver-kubelet-client", &["evenkeel:kubelet-clients"]);
        self.client_leaf("kubelet-client", &profile, now)
    }

    /// What this server's etcd member shows to clients and peers, and this server to every member. etcd reads the files
    /// at every handshake.
    pub fn etcd_member(&self, node: &str, addresses: &[IpAddr], now: Timestamp) -> Result<(Leaf, Renewal), PkiError> {
        let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let addresses = own.into_iter().chain(addresses.iter().copied()).collect();
        let profile = Profile::etcd_member(node, addresses).lasting(self.leaf_life);
        Leaf::load_or_issue(&self.folder, ETCD_MEMBER, &self.current().etcd, &profile, now)
    }

    fn client_leaf(&self, name: &str, profile: &Profile, now: Timestamp) -> Result<(Leaf, Renewal), PkiError> {
        let profile = profile.clone().lasting(self.leaf_life);
        Leaf::load_or_issue(&self.folder, name, &self.current().client, &profile, now)
    }
}

// === impl Authorities ===

impl Authorities {
    fn load_or_make(folder: &Path, now: Timestamp) -> Result<Authorities, PkiError> {
        let server = Authority::load_or_make(folder, SERVER_CA, now)?;
        let (signing_keys, signing_number) = signing_keys(&folder.join(SIGNING_KEYS))?;
        let noted = Succession::noted(folder)?;
        let heir = noted.as_ref().and_then(|noted| noted.heirs.get(SERVER_CA));
        let mut known_as = hashes(&server.pem);
        known_as.extend(heir.into_iter().flat_map(|heir| hashes(&heir.old)));
        Ok(Authorities {
            cluster: Lineage::of(folder)?.cluster(&server.pem),
            known_as,
            server,
            client: Authority::load_or_make(folder, CLIENT_CA, now)?,
            request_header: Authority::load_or_make(folder, REQUEST_HEADER_CA, now)?,
            etcd: Authority::load_or_make(folder, ETCD_CA, now)?,
            signing_keys,
            signing_number,
        })
    }

    /// Each with the name of its files.
    pub(super) fn named(&self) -> [(&'static str, &Authority); 4] {
        [
            (SERVER_CA, &self.server),
            (CLIENT_CA, &self.client),
            (REQUEST_HEADER_CA, &self.request_header),
            (ETCD_CA, &self.etcd),
        ]
    }

    /// What this server trusts and who signs for it.
    pub fn trust(&self) -> String {
        trust_of(&self.server.pem)
    }
}

/// `0001.key`, `0002.key`, ...: the highest number signs. Made with one key when there is none. `0003.next` verifies, and
/// does not sign yet. Answers the highest number that signs as well.
fn signing_keys(folder: &Path) -> Result<(Vec<String>, u64), PkiError> {
    let mut entries: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(_) => Vec::new(),
    };
    entries.sort();
    let ending = |end: &str| {
        let found = entries.iter().filter(move |path| path.extension().is_some_and(|extension| extension == end));
        found.cloned().collect::<Vec<PathBuf>>()
    };
    let (mut names, next) = (ending("key"), ending("next"));
    if names.is_empty() {
        let path = folder.join("0001.key");
        write(&path, KeyPair::generate()?.serialize_pem().as_bytes(), Access::Secret)?;
        names.push(path);
    }
    let newest_first = names.iter().rev().take(SIGNING_KEYS_MAX).chain(&next);
    let mut keys = Vec::new();
    for path in newest_first {
        keys.extend(read(path)?);
    }
    let number = names.last().and_then(|path| path.file_stem()?.to_str()?.parse().ok()).unwrap_or_default();
    Ok((keys, number))
}

#[cfg(test)]
mod tests {
    use super::{ServerNames, ServerPki};
    use crate::layout::Layout;
    use crate::pki::leaf::LEAF_LIFE;
    use crate::pki::leaf::Renewal;
    use crate::pki::{Leaf, Profile};
    use jiff::{SignedDuration, Timestamp};
    use std::os::unix::fs::PermissionsExt;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn names(extra: &[&str]) -> ServerNames {
        let extra: Vec<String> = extra.iter().map(|name| (*name).to_owned()).collect();
        ServerNames::new("cluster.local", "10.43.0.1".parse().unwrap(), &["192.0.2.7".parse().unwrap()], "box", &extra)
    }

    #[test]
    fn found_again_on_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let first = ServerPki::load_or_make(&layout, LEAF_LIFE, now()).unwrap();
        let again = ServerPki::load_or_make(&layout, LEAF_LIFE, now()).unwrap();
        let (one, other) = (first.current(), again.current());
        assert_eq!((&one.server.pem, &one.signing_keys), (&other.server.pem, &other.signing_keys));
        assert_ne!(one.server.pem, one.client.pem, "authorities are separate");
        let (serving, outcome) = first.serving(&names(&[]), now()).unwrap();
        assert_eq!(outcome, Renewal::Issued);
        let (kept, outcome) = again.serving(&names(&[]), now()).unwrap();
        assert_eq!((kept.pem == serving.pem, outcome), (true, Renewal::Kept));
        for entry in walk(folder.path()) {
            if entry.extension().is_some_and(|extension| extension == "key") {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{entry:?}");
            }
        }
    }

    #[test]
    fn a_leaf_is_issued_again_for_new_names_and_at_two_thirds_of_its_life() {
        let folder = tempfile::tempdir().unwrap();
        let pki = ServerPki::load_or_make(&Layout::new(folder.path()), LEAF_LIFE, now()).unwrap();
        pki.serving(&names(&[]), now()).unwrap();
        assert_eq!(pki.serving(&names(&["api.example.org", "198.51.100.1"]), now()).unwrap().1, Renewal::Issued);
        let days = |days: i64| now() + SignedDuration::from_hours(24 * days);
        let extra = names(&["api.example.org", "198.51.100.1"]);
        assert_eq!(pki.serving(&extra, days(240)).unwrap().1, Renewal::Kept);
        assert_eq!(pki.serving(&extra, days(245)).unwrap().1, Renewal::Issued);
    }

    /// Also for the shortest life: a leaf is not due at once, is issued again before its end, and then holds anew.
    #[test]
    fn leaves_of_every_life_overlap_their_successors() {
        for life in [SignedDuration::from_mins(1), SignedDuration::from_hours(1), LEAF_LIFE] {
            let folder = tempfile::tempdir().unwrap();
            let pki = ServerPki::load_or_make(&Layout::new(folder.path()), life, now()).unwrap();
            let (first, _) = pki.admin(now()).unwrap();
            assert!(now() + life / 2 < first.due() && first.due() < now() + life * 3 / 4, "{life}: {}", first.due());
            assert_eq!(pki.admin(first.due() - SignedDuration::from_secs(1)).unwrap().1, Renewal::Kept);
            let (second, outcome) = pki.admin(first.due()).unwrap();
            assert_eq!(outcome, Renewal::Issued);
            assert!(
                second.not_before <= first.due() && first.not_after < second.not_after && first.due() < second.due()
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        ServerPki::load_or_make(&layout, LEAF_LIFE, now()).unwrap().admin(now()).unwrap();
        let shorter = ServerPki::load_or_make(&layout, LEAF_LIFE / 2, now()).unwrap();
        assert_eq!(shorter.admin(now()).unwrap().1, Renewal::Issued, "a shorter life holds at once");
    }

    #[test]
    fn a_damaged_or_foreign_leaf_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let pki = ServerPki::load_or_make(&Layout::new(folder.path()), LEAF_LIFE, now()).unwrap();
        let foreign = ServerPki::load_or_make(&Layout::new(other.path()), LEAF_LIFE, now()).unwrap();
        let profile = Profile::client("system:admin", &["system:masters"]);
        let tls = Layout::new(folder.path()).server_tls();
        Leaf::load_or_issue(&tls, "admin", &foreign.current().client, &profile, now()).unwrap();
        assert_eq!(pki.admin(now()).unwrap().1, Renewal::Issued, "another authority's");
        std::fs::write(tls.join("admin.crt"), "garbage").unwrap();
        assert_eq!(pki.admin(now()).unwrap().1, Renewal::Issued, "damaged");
        std::fs::remove_file(tls.join("client-ca.key")).unwrap();
        assert!(
            ServerPki::load_or_make(&Layout::new(folder.path()), LEAF_LIFE, now()).is_err(),
            "never a second authority"
        );
    }

    fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
        }
        found
    }
}
