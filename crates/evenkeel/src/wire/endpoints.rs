//! The API servers that a node knows: its own machine's first, then what it has learned from the cluster, then the address
//! it joined by.
//!
//! The learned ones lie in a file that every process of the node reads. It is replaced only by a list that the cluster
//! gave and that is not empty, so that it never rots: a node finds its way back whichever servers are left.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use api::{Gvr, Key, Snapshot, Tree};
use base::Chain;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use view::{Client, Drain, Endpoint, Endpoints, View, Watched};

use crate::layout::Layout;
use crate::pki::{self, Access, sha256_hex};

/// More servers than that are no cluster of ours.
const SERVERS_MAX: usize = 16;

/// Where a node looks for an API server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KnownServers {
    /// The server of this machine, where there is one.
    pub own: Option<String>,
    /// The address that the node joined by: the last resort.
    pub joined: Option<String>,
    /// What was learned.
    pub file: PathBuf,
    /// Spreads nodes over servers.
    pub node: String,
}

/// The file's content.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Learned {
    servers: Vec<String>,
}

// === impl KnownServers ===

impl KnownServers {
    pub fn new(layout: &Layout, node: &str, own: Option<&Endpoint>, joined: Option<&Endpoint>) -> KnownServers {
        let url = |endpoint: &Endpoint| endpoint.url();
        KnownServers { own: own.map(url), joined: joined.map(url), file: layout.known_servers(), node: node.to_owned() }
    }

    /// The list for connections to come; the file is read again when it changes.
    pub fn endpoints(&self) -> Endpoints {
        let known = self.clone();
        let current = Mutex::new((None, known.order(&[])));
        Arc::new(move || {
            let mut current = current.lock().expect("no holder of this lock panics");
            let now = changed(&known.file);
            if current.0 != now {
                *current = (now, known.order(&read(&known.file)));
            }
            current.1.clone()
        })
    }

    /// Keeps the file as the cluster has it, until the drain.
    pub async fn follow(self, client: Client, drain: Drain) {
        let watched = Watched::all(slices(), &[]).in_namespace("default").with_fields("metadata.name=kubernetes");
        let view = View::start(&client, vec![watched], &drain);
        let mut snapshots = view.subscribe();
        let mut kept = read(&self.file);
        loop {
            let servers = servers(&snapshots.borrow_and_update());
            if !servers.is_empty() && servers != kept {
                match self.keep(&servers) {
                    Ok(()) => {
                        info!(?servers, "API servers");
                        kept = servers;
                    }
                    Err(error) => warn!(error = %Chain(&error), "the list of API servers is not kept"),
                }
            }
            match drain.run_until_cancelled(snapshots.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    fn keep(&self, servers: &[String]) -> Result<(), pki::PkiError> {
        let text = serde_json::to_string(&Learned { servers: servers.to_vec() }).expect("a list is plain data");
        pki::write(&self.file, text.as_bytes(), Access::Public)
    }

    fn order(&self, learned: &[String]) -> Vec<Endpoint> {
        let mut learned = learned.to_vec();
        // Each node begins elsewhere, and always at the same one.
        learned.sort_by_key(|server| sha256_hex(format!("{} {server}", self.node).as_bytes()));
        let urls = self.own.iter().chain(&learned).chain(&self.joined);
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for endpoint in urls.filter_map(|url| Endpoint::parse(url).ok()) {
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        endpoints
    }
}

/// A file that is damaged is one that is not there yet.
fn read(file: &Path) -> Vec<String> {
    let text = pki::read(file).ok().flatten().unwrap_or_default();
    serde_json::from_str::<Learned>(&text).unwrap_or_default().servers
}

fn changed(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
}

fn slices() -> Gvr {
    Gvr::new("discovery.k8s.io", "v1", "endpointslices")
}

/// The servers in the slice of the `kubernetes` Service.
fn servers(snapshot: &Snapshot) -> Vec<String> {
    let stream = snapshot.stream(&slices());
    let Some(slice) = stream.get(&Key::new("default", "kubernetes")) else { return Vec::new() };
    let tree: Tree = serde_json::from_slice(&slice.bytes).unwrap_or_default();
    let Some(port) = tree["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else {
        return Vec::new();
    };
    let endpoints = tree["endpoints"].as_array().into_iter().flatten();
    let addresses = endpoints.filter_map(|endpoint| endpoint["addresses"][0].as_str());
    addresses.take(SERVERS_MAX).map(|address| Endpoint::new(address, port).url()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use base::Clock;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use view::fake::FakeApi;
    use view::{Drain, Endpoint, Https, Transport};

    use super::KnownServers;
    use crate::layout::Layout;
    use crate::pki::{self, ServerNames, ServerPki};
    use crate::wire::SystemClock;

    fn hosts(known: &KnownServers) -> Vec<String> {
        (known.endpoints())().iter().map(|endpoint| endpoint.host.clone()).collect()
    }

    fn slice(addresses: &[&str]) -> serde_json::Value {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "endpoints": endpoints, "ports": [{"port": 6443}],
        })
    }

    #[test]
    fn its_own_server_comes_first_and_the_join_address_last() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let (own, joined) = (Endpoint::new("127.0.0.1", 6443), Endpoint::new("10.0.0.9", 6443));
        let known = KnownServers::new(&layout, "n", Some(&own), Some(&joined));
        assert_eq!(hosts(&known), ["127.0.0.1", "10.0.0.9"]);
        known.keep(&["https://10.0.0.1:6443".to_owned(), "https://10.0.0.9:6443".to_owned()]).unwrap();
        let found = hosts(&known);
        assert_eq!((found.len(), found[0].as_str()), (3, "127.0.0.1"), "no server twice: {found:?}");
        std::fs::write(layout.known_servers(), "half of it").unwrap();
        assert_eq!(hosts(&known), ["127.0.0.1", "10.0.0.9"], "a damaged file is no dead end");
    }

    #[tokio::test]
    async fn the_list_follows_the_cluster_and_is_never_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownServers::new(&Layout::new(folder.path()), "n", None, None);
        let (api, drain) = (FakeApi::new(), Drain::new());
        api.put(&super::slices(), slice(&["10.0.0.1", "10.0.0.2"]));
        let following = tokio::spawn(known.clone().follow(api.client(), drain.clone()));
        let endpoints = known.endpoints();
        let holds = async |count: usize| {
            let waiting = async {
                while endpoints().len() != count {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("the file follows");
        };
        holds(2).await;
        api.put(&super::slices(), slice(&[]));
        api.put(&super::slices(), slice(&["10.0.0.3"]));
        holds(1).await;
        api.put(&super::slices(), slice(&[]));
        drain.cancel();
        following.await.unwrap();
        assert_eq!(endpoints().len(), 1);
    }

    /// Takes TLS connections and answers each with an empty 200.
    async fn serve(listener: TcpListener, tls: TlsAcceptor) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = tls.accept(stream).await.unwrap();
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_request_goes_to_the_first_server_that_answers() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let authorities = ServerPki::load_or_make(&Layout::new(folder.path()), pki::leaf::LEAF_LIFE, now).unwrap();
        let names = ServerNames { addresses: BTreeSet::from([IpAddr::from([127, 0, 0, 1])]), ..ServerNames::default() };
        let (leaf, _) = authorities.serving(&names, now).unwrap();
        let clients = pki::certificates(&authorities.current().client.pem).unwrap();
        let tls = apiserver::tls::server_config(leaf.chain.clone(), leaf.key(), &clients).unwrap();
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (gone, silent, lives) = (bind().await, bind().await, bind().await);
        let at = |listener: &TcpListener| Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
        let all = vec![at(&gone), at(&silent), at(&lives)];
        drop(gone);
        tokio::spawn(serve(lives, TlsAcceptor::from(tls)));
        let client = pki::client_config(&authorities.current().server.pem, None, false).unwrap();
        let https = Https::among(Arc::new(move || all.clone()), Arc::new(move || client.clone()));
        let began = Instant::now();
        let answer = https.call(http::Request::get("/").body(bytes::Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(began.elapsed() < Duration::from_secs(10), "a silent one holds it up: {:?}", began.elapsed());
    }
}
