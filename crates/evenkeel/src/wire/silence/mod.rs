//! Nodes that are lost: the servers say so in a condition of the node once its lease stands still and none of them hears
//! anything of its machine; what follows is the loops' (`controllers`, docs/adr/0022).
//!
//! Every server watches the leases, so that whoever comes to lead knows since when each stands still. Only the leader asks
//! the others what they hear, and only it writes.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::controllers::LOST;
use anyhow::Result;
use api::{Gvr, Key, PatchType, Snapshot, Tree};
use base::{Chain, Clock};
use futures::future::join_all;
use jiff::SignedDuration;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use view::{Client, ClientError, Drain, PatchRequest, View, Watched};

use super::replace::{self, Sighting};
use super::{SystemClock, presence};
use crate::pki::{Kubeconfig, ServerPki};
use judge::{LOOKS_MIN, Leases, is_plausible, is_unheard, sentence};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// A server that takes longer to say what it hears did not look.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// A server whose lease is older is not asked.
const FRESH: SignedDuration = SignedDuration::from_secs(20);
const LEASES: &str = "kube-node-lease";

/// Watches over the nodes' leases.
pub struct Silence {
    pub client: Client,
    pub pki: Arc<ServerPki>,
    /// Whether the loops run here.
    pub leading: watch::Receiver<bool>,
}

/// What one server has seen so far.
struct Looks {
    silence: Silence,
    view: View,
    begin: Instant,
    leases: Leases,
    /// Looks in a row that heard nothing of a node.
    unheard: BTreeMap<String, u32>,
}

// === impl Silence ===

impl Silence {
    pub async fn run(self, drain: Drain) {
        let watched = vec![Watched::all(nodes(), &[]), Watched::all(leases(), &[]).in_namespace(LEASES)];
        let view = View::start(&self.client, watched, &drain);
        if drain.run_until_cancelled(view.synced()).await.is_none() {
            return;
        }
        let (begin, leases) = (Instant::now(), Leases::default());
        let mut looks = Looks { silence: self, view, begin, leases, unheard: BTreeMap::new() };
        while drain.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let look = looks.look();
            if let Some(Err(failure)) = drain.run_until_cancelled(look).await {
                warn!(error = %Chain(failure.as_ref()), "nodes that are silent were not looked at");
            }
        }
    }
}

// === impl Looks ===

impl Looks {
    async fn look(&mut self) -> Result<()> {
        let (snapshot, now) = (self.view.snapshot(), self.begin.elapsed());
        let renewals = renewals(&snapshot);
        self.leases.see(renewals.iter().map(|(node, at)| (node.as_str(), at.as_str())), now);
        if !*self.silence.leading.borrow() {
            self.unheard.clear();
            return Ok(());
        }
        let known = known(&snapshot);
        for (node, _) in known.iter().filter(|(_, one)| one.lost) {
            if self.leases.lives(node, now) {
                self.say(node, false, "It renews its lease again.").await?;
            }
        }
        let mut silent = self.leases.silent(now);
        silent.retain(|node| known.contains_key(node));
        self.unheard.retain(|node, _| silent.contains(node));
        if !is_plausible(silent.len(), known.len()) {
            return Ok(());
        }
        let asked: Vec<(String, IpAddr)> = silent
            .iter()
            .filter(|node| !known[*node].lost)
            .filter_map(|node| Some((node.clone(), known[node].address?)))
            .collect();
        if asked.is_empty() { Ok(()) } else { self.knock(&asked, &silent).await }
    }

    /// Has every server that is there knock at the machines of these nodes.
    async fn knock(&mut self, asked: &[(String, IpAddr)], silent: &BTreeSet<String>) -> Result<()> {
        let living = presence::living(&self.silence.client, SystemClock.now(), FRESH).await?;
        let servers: Vec<SocketAddr> =
            living.into_iter().filter(|(name, _)| !silent.contains(name)).map(|(_, address)| address).collect();
        let (admin, _) = self.silence.pki.admin(SystemClock.now())?;
        let config = Kubeconfig::new("", &self.silence.pki.current().server.pem, &admin);
        let heard = asked.iter().map(|(_, address)| sightings(&config, &servers, *address));
        for ((node, _), heard) in asked.iter().zip(join_all(heard).await) {
            let looks = self.unheard.entry(node.clone()).or_default();
            *looks = if is_unheard(&heard) { *looks + 1 } else { 0 };
            if *looks == LOOKS_MIN {
                self.unheard.remove(node);
                self.say(node, true, &sentence(&heard)).await?;
            }
        }
        Ok(())
    }

    async fn say(&self, node: &str, lost: bool, message: &str) -> Result<(), ClientError> {
        info!(node, lost, message, "a node's condition");
        let now = format!("{:.0}", SystemClock.now());
        let (status, reason) = if lost { ("True", "NobodyHearsIt") } else { ("False", "ItIsHeard") };
        let condition = json!({
            "type": LOST, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now, "lastHeartbeatTime": now,
        });
        let body = json!({"status": {"conditions": [condition]}});
        let (gvr, key) = (nodes(), Key::cluster(node));
        let (subresource, patch) = (Some("status"), PatchType::Strategic);
        let request = PatchRequest { gvr: &gvr, key: &key, subresource, patch, body: &body };
        self.silence.client.patch(&request).await.map(drop)
    }
}

/// What the servers hear of a machine, each asked for itself.
async fn sightings(config: &Kubeconfig, servers: &[SocketAddr], address: IpAddr) -> Vec<Sighting> {
    let asked = servers.iter().map(|server| async move {
        let heard = replace::sightings(config, std::slice::from_ref(server), address);
        tokio::time::timeout(ASK_TIMEOUT, heard).await.unwrap_or_default()
    });
    join_all(asked).await.concat()
}

/// A node as its object shows it.
struct Known {
    address: Option<IpAddr>,
    lost: bool,
}

fn known(snapshot: &Snapshot) -> BTreeMap<String, Known> {
    let of = |tree: &Tree| {
        let list = |path: &str| tree.pointer(path).and_then(Tree::as_array).cloned().unwrap_or_default();
        let internal = list("/status/addresses").into_iter().find(|one| one["type"] == "InternalIP");
        let lost = list("/status/conditions").iter().any(|one| one["type"] == LOST && one["status"] == "True");
        Known { address: internal.and_then(|one| one["address"].as_str()?.parse().ok()), lost }
    };
    snapshot.stream(&nodes()).iter().map(|node| (node.key.name.to_string(), of(&node.tree()))).collect()
}

/// When each node says that it renewed its lease last.
fn renewals(snapshot: &Snapshot) -> Vec<(String, String)> {
    let at = |lease: &Tree| lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
    snapshot.stream(&leases()).iter().map(|lease| (lease.key.name.to_string(), at(&lease.tree()))).collect()
}

fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}
