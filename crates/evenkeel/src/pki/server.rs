//! What a server makes on its first start and finds on every later one: the whole PKI of a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use rcgen::KeyPair;

use super::PkiError;
use super::authority::Authority;
use super::files::{Access, read, write};
use super::leaf::{Leaf, Profile, Renewal};
use crate::layout::Layout;

/// Older signing keys stay until their tokens have expired; more than this is a mistake.
const SIGNING_KEYS_MAX: usize = 8;

/// Files of the managed etcd's authority and of this server's leaf of it, less their ending.
pub const ETCD_CA: &str = "etcd-ca";
pub const ETCD_MEMBER: &str = "etcd-member";

/// Every name and address that a client may know the API server by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames {
    pub names: BTreeSet<String>,
    pub addresses: BTreeSet<IpAddr>,
}

/// Authorities and keys of a cluster.
pub struct ServerPki {
    /// Signs what servers show: the API server and every kubelet.
    pub server: Authority,
    /// Signs what clients show.
    pub client: Authority,
    /// Signs front proxies: their word about users is taken.
    pub request_header: Authority,
    /// Signs members of the managed etcd and who may read and write it: nobody but servers.
    pub etcd: Authority,
    /// Private keys of service-account tokens in PEM, newest first.
    pub signing_keys: Vec<String>,
    /// How long the leaves last that are issued.
    pub leaf_life: SignedDuration,
    folder: PathBuf,
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
        Ok(ServerPki {
            server: Authority::load_or_make(&folder, "server-ca", now)?,
            client: Authority::load_or_make(&folder, "client-ca", now)?,
            request_header: Authority::load_or_make(&folder, "request-header-ca", now)?,
            etcd: Authority::load_or_make(&folder, ETCD_CA, now)?,
            signing_keys: signing_keys(&folder.join("service-account"))?,
            leaf_life,
            folder,
        })
    }

    pub fn serving(&self, names: &ServerNames, now: Timestamp) -> Result<(Leaf, Renewal), PkiError> {
        let profile =
            Profile::server("kube-apiserver", names.names.clone(), names.addresses.clone()).lasting(self.leaf_life);
        Leaf::load_or_issue(&self.folder, "serving", &self.server, &profile, now)
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
        Leaf::load_or_issue(&self.folder, ETCD_MEMBER, &self.etcd, &profile, now)
    }

    fn client_leaf(&self, name: &str, profile: &Profile, now: Timestamp) -> Result<(Leaf, Renewal), PkiError> {
        let profile = profile.clone().lasting(self.leaf_life);
        Leaf::load_or_issue(&self.folder, name, &self.client, &profile, now)
    }
}

/// `0001.key`, `0002.key`, ...: the highest number signs. Made with one key when there is none.
fn signing_keys(folder: &std::path::Path) -> Result<Vec<String>, PkiError> {
    let mut names: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(_) => Vec::new(),
    };
    names.retain(|path| path.extension().is_some_and(|extension| extension == "key"));
    names.sort();
    if names.is_empty() {
        let path = folder.join("0001.key");
        write(&path, KeyPair::generate()?.serialize_pem().as_bytes(), Access::Secret)?;
        names.push(path);
    }
    let newest_first = names.iter().rev().take(SIGNING_KEYS_MAX);
    let mut keys = Vec::new();
    for path in newest_first {
        keys.extend(read(path)?);
    }
    Ok(keys)
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
        assert_eq!(first.server.pem, again.server.pem);
        assert_eq!(first.signing_keys, again.signing_keys);
        assert_ne!(first.server.pem, first.client.pem, "authorities are separate");
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
        Leaf::load_or_issue(&tls, "admin", &foreign.client, &profile, now()).unwrap();
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
