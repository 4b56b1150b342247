//! Which other nodes have fallen silent, seen from here: long before the API's node lifecycle can know.
//!
//! Each second every other node is asked for an echo; one that sends none back is knocked at as well. What follows from
//! the answers decides [`suspicion`]. Nothing of it leaves this node: the question is what *this* node reaches.

mod suspicion;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::Snapshot;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use view::{Drain, View};

use crate::config::fnv;
use crate::echo::Ears;
use suspicion::{Answer, Suspicion};

/// From one round to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// More nodes than this are asked less often, so that a round costs each of them the same.
const NODES_A_SECOND_MAX: usize = 200;
/// An agent's door that is not answered within this counts as closed.
const KNOCK: Duration = Duration::from_millis(600);
/// Doors knocked at at once.
const KNOCKS_MAX: usize = 64;
/// The port of an agent that does not say another (core/v1 `daemonEndpoints`).
const AGENT_PORT: u16 = 10_250;

/// What to send nothing to while there is somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silent {
    pub nodes: BTreeSet<String>,
    pub addresses: BTreeSet<IpAddr>,
}

/// Asks the other nodes, and publishes who is silent.
pub struct Detector {
    node: String,
    view: View,
    suspicion: Suspicion,
    silent: watch::Sender<Silent>,
}

/// Another node as its object tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    name: String,
    addresses: Vec<IpAddr>,
    agent: u16,
}

// === impl Detector ===

impl Detector {
    pub fn new(node: &str, view: View) -> Detector {
        Detector {
            node: node.to_owned(),
            view,
            suspicion: Suspicion::default(),
            silent: watch::Sender::new(Silent::default()),
        }
    }

    pub fn silent(&self) -> watch::Receiver<Silent> {
        self.silent.subscribe()
    }

    pub async fn run(mut self, drain: Drain) {
        let mut snapshots = self.view.subscribe();
        loop {
            let peers = peers(&snapshots.borrow_and_update(), &self.node);
            let next = Instant::now() + INTERVAL * u32::try_from(1 + peers.len() / NODES_A_SECOND_MAX).unwrap_or(1);
            let Some(answers) = drain.run_until_cancelled(self.round(&peers)).await else { return };
            self.suspicion.round(&answers);
            self.publish(&peers);
            let pause = async {
                match peers.is_empty() {
                    // Alone: nothing to ask until somebody joins.
                    true => snapshots.changed().await.is_ok(),
                    false => {
                        tokio::time::sleep_until(next).await;
                        true
                    }
                }
            };
            if drain.run_until_cancelled(pause).await != Some(true) {
                return;
            }
        }
    }

    async fn round(&self, peers: &[Peer]) -> BTreeMap<String, Answer> {
        let addresses = peers.iter().flat_map(|peer| peer.addresses.clone()).collect();
        let id = u16::try_from(fnv(format!("{} {} silence", self.node, std::process::id()).as_bytes()) & 0xffff);
        let id = id.expect("16 bits");
        let heard = tokio::task::spawn_blocking(move || echoes(id, addresses)).await.unwrap_or_default();
        let mut answers = Vec::new();
        for peer in peers {
            let echo = peer.addresses.iter().any(|address| heard.contains(address));
            let knock = !echo || self.suspicion.asks_agent(&peer.name);
            answers.push(answer(peer.clone(), echo, knock));
        }
        futures::stream::iter(answers).buffer_unordered(KNOCKS_MAX).collect().await
    }

    fn publish(&self, peers: &[Peer]) {
        let nodes = self.suspicion.avoided().clone();
        let addresses = peers.iter().filter(|peer| nodes.contains(&peer.name));
        let addresses = addresses.flat_map(|peer| peer.addresses.clone()).collect();
        let now = Silent { nodes, addresses };
        self.silent.send_if_modified(|old| {
            let changed = *old != now;
            for node in now.nodes.difference(&old.nodes) {
                tracing::warn!(node, "is silent; Services leave it out while there is somebody else");
            }
            for node in old.nodes.difference(&now.nodes) {
                tracing::info!(node, "Services do not leave it out any more");
            }
            *old = now;
            changed
        });
    }
}

/// Who of these sends an echo back.
fn echoes(id: u16, addresses: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let mut heard = BTreeSet::new();
    for v4 in [true, false] {
        let of_family = addresses.iter().filter(|address| address.is_ipv4() == v4);
        let asked: BTreeMap<IpAddr, u32> = of_family.map(|address| (*address, 0)).collect();
        if asked.is_empty() {
            continue;
        }
        let mut silent = asked.clone();
        // Opened for each round: a socket that is kept fills with the echoes of others.
        match Ears::open(id, v4).and_then(|mut ears| ears.ask(&mut silent)) {
            Ok(()) => heard.extend(asked.into_keys().filter(|address| !silent.contains_key(address))),
            Err(error) => tracing::debug!(err = %error, v4, "no echo requests"),
        }
    }
    heard
}

async fn answer(peer: Peer, echo: bool, knock: bool) -> (String, Answer) {
    let knocked = if knock { self::knock(&peer).await } else { Answer::Nobody };
    let answer = if echo && knocked == Answer::Nobody { Answer::Machine } else { knocked };
    (peer.name, answer)
}

/// Whether the agent's door opens, or the kernel says that nobody is behind it.
async fn knock(peer: &Peer) -> Answer {
    let mut answer = Answer::Nobody;
    for address in &peer.addresses {
        let connect = TcpStream::connect(SocketAddr::new(*address, peer.agent));
        match tokio::time::timeout(KNOCK, connect).await {
            Ok(Ok(_)) => return Answer::Agent,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => answer = Answer::Machine,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    answer
}

/// Every other node that has an address inside; nobody while the list is not complete.
fn peers(snapshot: &Snapshot, own: &str) -> Vec<Peer> {
    let nodes = snapshot.of::<Node>();
    if !nodes.synced {
        return Vec::new();
    }
    let others = nodes.iter().filter(|object| object.key.name != own);
    let found = others.filter_map(|object| Some(peer(&object.key.name, &*object.typed::<Node>().ok()?)));
    found.filter(|peer| !peer.addresses.is_empty()).collect()
}

fn peer(name: &str, node: &Node) -> Peer {
    let status = node.status.as_ref();
    let listed = status.and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    let internal = listed.filter(|address| address.type_ == "InternalIP");
    let agent = status.and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref());
    let agent = agent.and_then(|endpoint| u16::try_from(endpoint.port).ok()).filter(|port| *port != 0);
    Peer {
        name: name.to_owned(),
        addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
        agent: agent.unwrap_or(AGENT_PORT),
    }
}
