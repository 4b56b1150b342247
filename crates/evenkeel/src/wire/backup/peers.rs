//! A copy of every bundle, and of what lies sealed beside it, on every server: each fetches from the others what it does
//! not hold. What retention lets go takes along what lies beside it.
//!
//! The servers of a cluster are the endpoints of the `kubernetes` Service. A server asks as the administrator that it can
//! issue a certificate for; bundles travel and lie sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::{Gvr, Tree};
use base::{Chain, Clock};
use bytes::Bytes;
use http::Request;
use keeper::backup::{BundleName, Retention};
use tracing::{info, warn};
use view::{Client, Drain, Endpoint, Https, ListOptions, Transport};

use super::apps::bundle_of;
use super::kit;
use super::paths::{BUNDLES_PATH, ListedBundle, Listing};
use super::record::Records;
use super::targets::{self, Folder, Target};
use crate::layout::Layout;
use crate::pki::{ServerPki, client_config};
use crate::wire::SystemClock;

/// Between two looks at what the others hold.
const LOOK: Duration = Duration::from_secs(60);
/// A peer that takes longer with one answer is asked at the next look.
const PEER_TIMEOUT: Duration = Duration::from_secs(120);
const BUNDLE_BYTES_MAX: usize = 5 << 30;
/// Newest bundles of a peer that are copied at one look.
const COPIES_MAX: usize = 4;

/// Fetches from the other servers.
pub struct Peers {
    pub client: Client,
    pub records: Records,
    pub pki: Arc<ServerPki>,
    /// This server's own addresses and port.
    pub own: BTreeSet<SocketAddr>,
    pub target: Arc<dyn Target>,
    pub retention: Retention,
    pub layout: Layout,
}

// === impl Peers ===

impl Peers {
    pub async fn run(self, drain: Drain) {
        loop {
            if let Err(failure) = self.look().await {
                warn!(error = %Chain(failure.as_ref()), "bundles of other servers were not looked at");
            }
            if drain.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&self) -> Result<()> {
        let options = ListOptions {
            namespace: Some("default"),
            field_selector: Some("metadata.name=kubernetes"),
            ..ListOptions::default()
        };
        let slices = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
        let page = self.client.list(&slices, &options).await.context("list the servers")?;
        let servers = page.items.iter().flat_map(|slice| addresses(&slice.tree())).collect::<BTreeSet<_>>();
        for server in servers.difference(&self.own) {
            if let Err(failure) = self.copy_from(*server).await {
                warn!(%server, error = %Chain(failure.as_ref()), "no bundles were copied from this server");
            }
        }
        Ok(())
    }

    async fn copy_from(&self, server: SocketAddr) -> Result<()> {
        let (admin, _) = self.pki.admin(SystemClock.now())?;
        let tls = client_config(&self.pki.current().server.pem, Some(&admin), true)?;
        let https = Https::new(Endpoint::new(&server.ip().to_string(), server.port()), Arc::new(move || tls.clone()));
        let listings: Vec<Listing> = serde_json::from_slice(&get(&https, BUNDLES_PATH).await?)?;
        // What lies in a store that all share needs no copy.
        let local = listings.into_iter().filter(|listing| listing.kind == "folder");
        let (mut listed, mut beside) = (Vec::new(), BTreeMap::new());
        for listing in local {
            listed.extend(listing.bundles);
            beside.extend(listing.beside);
        }
        self.copy_kits(&https, &beside).await?;
        let theirs: BTreeSet<BundleName> = listed.iter().map(|one| one.name.clone()).collect();
        let ours: BTreeSet<BundleName> =
            targets::bundles(self.target.as_ref()).await?.into_iter().map(|one| one.name).collect();
        for name in missing(&theirs, &ours) {
            let bytes = get(&https, &format!("{BUNDLES_PATH}/{name}")).await?;
            targets::keep(self.target.as_ref(), &name, &bytes).await?;
            info!(%name, %server, "a copy of a backup was fetched");
        }
        self.copy_apps(&https, &beside).await?;
        self.note_proofs(&listed).await?;
        targets::prune(self.target.as_ref(), &self.retention, SystemClock.now()).await.map(drop)
    }

    /// The kit first: it is small, and each server goes along with the newest.
    async fn copy_kits(&self, https: &Https, theirs: &BTreeMap<String, u64>) -> Result<()> {
        // Where every command finds it, wherever bundles go.
        let kits = Folder::new(self.layout.backups());
        let ours = kits.list().await?;
        for file in kit::copies::missing(theirs.keys(), ours.keys()) {
            let bytes = get(https, &format!("{BUNDLES_PATH}/{file}")).await?;
            kits.put(file, &bytes).await.with_context(|| format!("keep {file}"))?;
            info!(file, "a copy of the recovery kit was fetched");
        }
        kit::copies::prune(&self.layout)?;
        if kit::adopt(&self.layout)? {
            info!("bundles are sealed to a newer recovery kit from now on");
        }
        Ok(())
    }

    /// What applications kept beside the bundles that are here.
    async fn copy_apps(&self, https: &Https, theirs: &BTreeMap<String, u64>) -> Result<()> {
        let ours = self.target.list().await?;
        for file in missing_beside(theirs, &ours) {
            let bytes = get(https, &format!("{BUNDLES_PATH}/{file}")).await?;
            self.target.put(file, &bytes).await.with_context(|| format!("keep {file}"))?;
            info!(file, "a copy of an application's backup was fetched");
        }
        Ok(())
    }

    /// Copies say what was proven of them, or retention here would let go what it keeps there.
    async fn note_proofs(&self, listed: &[ListedBundle]) -> Result<()> {
        let ours = targets::bundles(self.target.as_ref()).await?;
        let unknown = ours.iter().filter(|one| one.proven.is_none()).map(|one| &one.name);
        let names: Vec<&BundleName> =
            unknown.filter(|name| listed.iter().any(|one| one.name == **name && one.proven.is_some())).collect();
        if names.is_empty() {
            return Ok(());
        }
        let evidence = self.records.evidence().await?;
        for name in names {
            if let Some(found) = evidence.iter().rev().find(|one| one.bundle == name.to_string()) {
                targets::note_proof(self.target.as_ref(), name, found).await?;
            }
        }
        Ok(())
    }
}

/// The newest of theirs that we lack; none that is older than all of ours, for retention let it go.
fn missing(theirs: &BTreeSet<BundleName>, ours: &BTreeSet<BundleName>) -> Vec<BundleName> {
    let newest = theirs.iter().rev().take(COPIES_MAX).filter(|name| !ours.contains(*name));
    newest.filter(|name| ours.first().is_none_or(|oldest| oldest < *name)).cloned().collect()
}

/// Files of applications beside bundles that are here, which are not: pieces before the index that names them.
fn missing_beside<'a>(theirs: &'a BTreeMap<String, u64>, ours: &BTreeMap<String, u64>) -> Vec<&'a str> {
    let is_here = |bundle: BundleName| ours.contains_key(&bundle.to_string());
    let wanted = theirs.keys().filter(|file| bundle_of(file).is_some_and(is_here) && !ours.contains_key(*file));
    wanted.map(String::as_str).collect()
}

async fn get(https: &Https, path: &str) -> Result<Bytes> {
    let got = async {
        let response = https.call(Request::get(path).body(Bytes::new())?).await?;
        ensure!(response.status().is_success(), "{path} is answered {}", response.status());
        Ok(view::read_body(response.into_body(), BUNDLE_BYTES_MAX).await?)
    };
    tokio::time::timeout(PEER_TIMEOUT, got).await.with_context(|| format!("{path} takes too long"))?
}

/// Every address of a slice with its port.
fn addresses(slice: &Tree) -> Vec<SocketAddr> {
    let port = slice.pointer("/ports/0/port").and_then(Tree::as_u64).and_then(|port| u16::try_from(port).ok());
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let texts = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    let parsed = texts.filter_map(|text| text.as_str()?.parse::<IpAddr>().ok());
    parsed.zip(std::iter::repeat(port)).filter_map(|(ip, port)| Some(SocketAddr::new(ip, port?))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Peers, addresses, missing, missing_beside};
    use crate::cli::{Cli, Command};
    use crate::layout::Layout;
    use crate::pki::leaf::LEAF_LIFE;
    use crate::pki::{Access, ServerNames, ServerPki};
    use crate::wire::apiserver::{Parts, Tls, build};
    use crate::wire::backup::targets::{self, Folder, Target};
    use crate::wire::backup::{Paths, Records, kit};
    use crate::wire::presence::Presence;
    use crate::wire::{SystemClock, inprocess};
    use base::Clock;
    use clap::Parser;
    use keeper::backup::{BundleName, Evidence, Retention};
    use reconcile::Health;
    use serde_json::json;
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::path::Path;
    use std::sync::Arc;
    use tokio::sync::{mpsc, watch};

    /// A server over TLS that keeps bundles in `BELOW/backups`.
    async fn serving(below: &Path) -> (apiserver::Server, Arc<ServerPki>, SocketAddr) {
        let layout = Layout::new(below);
        layout.make().unwrap();
        let clock = Arc::new(SystemClock);
        let pki = Arc::new(ServerPki::load_or_make(&layout, LEAF_LIFE, clock.now()).unwrap());
        let engine = store::sqlite::open(&layout.database()).unwrap();
        let store = store::Store::open(engine, store::Keyring::plain(), clock.clone()).await.unwrap();
        let loopback = Ipv4Addr::LOCALHOST.into();
        let tls = Tls::new(pki.clone(), ServerNames::new("cluster.local", loopback, &[], "a", &[]), &*clock).unwrap();
        let listener = tokio::net::TcpListener::bind((loopback, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let parts = Parts {
            store,
            pki: pki.clone(),
            extension: Arc::new(Paths::new(&[], &layout, mpsc::channel(1).0)),
            revoked: watch::channel(BTreeSet::new()).1,
            nodes: tls.proxy().unwrap(),
            advertise: address,
            health: watch::channel(Health::default()).1,
            loops: Vec::new(),
            checks: Vec::new(),
        };
        let Command::Server(args) = Cli::parse_from(["evenkeel", "server"]).command else { unreachable!("a server") };
        let server = build(&args, &layout, parts).unwrap();
        server.bootstrap().await.unwrap();
        tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener, tls.source(), std::future::pending()).await }
        });
        (server, pki, address)
    }

    #[tokio::test]
    async fn bundles_are_copied_with_what_was_proven_of_them() {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (server, pki, address) = serving(theirs.path()).await;
        let name = BundleName::new(SystemClock.now(), 7);
        let there = Folder::new(Layout::new(theirs.path()).backups());
        targets::keep(&there, &name, b"sealed").await.unwrap();
        let (app, other) = (format!("{name}.app-shop.sql.json"), "evenkeel-19700101t000000z-r1.bundle.app-a.b.json");
        for file in [&app, other] {
            there.put(file, b"sealed, too").await.unwrap();
        }
        let own = Layout::new(ours.path());
        kit::standing(&Layout::new(theirs.path())).unwrap();
        crate::pki::write(
            &own.proof_key(),
            kit::proof_secret(&Layout::new(theirs.path())).unwrap().as_bytes(),
            Access::Secret,
        )
        .unwrap();
        let client = inprocess::administrator(&server, "test");
        let target: Arc<dyn Target> = Arc::new(Folder::new(ours.path().join("backups")));
        let peers = Peers {
            records: Records::new(client.clone()),
            client,
            pki,
            own: BTreeSet::new(),
            target: target.clone(),
            retention: Retention { count: 3, age: None },
            layout: own.clone(),
        };
        // The slice of the `kubernetes` Service names the server.
        let clock = Arc::new(SystemClock);
        Presence::new(peers.client.clone(), "a", address, clock).turn().await.unwrap();
        peers.look().await.unwrap();
        assert_eq!(target.get(&name.to_string()).await.unwrap(), b"sealed", "copied from {address}");
        assert_eq!(targets::bundles(target.as_ref()).await.unwrap()[0].proven, None);
        assert_eq!(target.get(&app).await.unwrap(), b"sealed, too");
        assert!(target.get(other).await.is_err(), "its bundle is not here");
        assert_eq!(kit::find(&own).unwrap(), kit::find(&Layout::new(theirs.path())).unwrap());
        let evidence = Evidence {
            at: SystemClock.now(),
            by: "a".to_owned(),
            bundle: name.to_string(),
            passed: true,
            millis: 1,
            checks: Vec::new(),
            packets: Some(0),
            not_covered: Vec::new(),
        };
        targets::note_proof(&there, &name, &evidence).await.unwrap();
        peers.records.add(&evidence).await.unwrap();
        peers.look().await.unwrap();
        assert_eq!(targets::bundles(target.as_ref()).await.unwrap()[0].proven, Some(true));
    }

    #[test]
    fn servers_are_read_from_the_slice() {
        let slice =
            json!({"ports": [{"port": 6443}], "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::2"]}]});
        let found: Vec<String> = addresses(&slice).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:6443", "[fd00::2]:6443"]);
        assert!(addresses(&json!({"endpoints": [{"addresses": ["10.0.0.1"]}]})).is_empty(), "no port");
    }

    #[test]
    fn an_index_comes_after_its_pieces() {
        let bundle = BundleName::new(jiff::Timestamp::UNIX_EPOCH, 7).to_string();
        let files = |ends: &[&str]| ends.iter().map(|end| (format!("{bundle}{end}"), 1)).collect();
        let theirs = files(&[".app-a.b.json", ".app-a.b.00000", ".app-a.b.00001", ".proven.json"]);
        let found = missing_beside(&theirs, &files(&["", ".app-a.b.00000"])).join(" ");
        assert_eq!(found, format!("{bundle}.app-a.b.00001 {bundle}.app-a.b.json"));
        assert!(missing_beside(&theirs, &files(&[])).is_empty());
    }

    #[test]
    fn what_retention_let_go_is_not_fetched_again() {
        let names = |days: &[i64]| -> BTreeSet<BundleName> {
            let at = |day: &i64| BundleName::new(jiff::Timestamp::from_second(day * 86_400).unwrap(), 1);
            days.iter().map(at).collect()
        };
        let wanted =
            |theirs: &[i64], ours: &[i64]| missing(&names(theirs), &names(ours)).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(wanted(&[1, 2, 3], &[]), names(&[1, 2, 3]));
        assert_eq!(wanted(&[1, 2, 3], &[2]), names(&[3]));
        assert_eq!(wanted(&[1, 2, 3, 4, 5, 6], &[]), names(&[3, 4, 5, 6]));
    }
}
