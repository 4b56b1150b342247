//! The other nodes: how their pods are reached, and what the paths to them carry.
//!
//! What should be follows from the Node objects, the kernel's routing and the probes ([`plan`]); the driver here makes
//! it so, again whenever one of them changes, and now and then, since others write into the same tables.

mod burst;
mod plan;
mod search;
mod sonar;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use api::{Key, Snapshot};
use base::Chain;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use view::{Drain, View};

use crate::address::gateway;
use crate::agent::{AgentError, NetStatus};
use crate::config::Config;
use crate::link::{self, Netlink, Route, Tunnel};

pub use burst::{Echoes, burst};
pub use plan::{Hardware, Underlay};
use plan::{Peer, Plan, Way, hardware, plan};
use sonar::{Paths, Sonar};

const REPORT: &str = "paths.json";
const RETRY: Duration = Duration::from_secs(2);
/// Changes within this time become one pass.
const GATHER: Duration = Duration::from_millis(200);
/// Routes that somebody took away are back after this long.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(30);

/// A way to another node on which large packets vanish without a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NarrowPath {
    pub node: String,
    pub address: IpAddr,
    /// What our link takes.
    pub link_mtu: u32,
    /// What arrives.
    pub path_mtu: u32,
}

/// What is not well on the ways to other nodes, in a file, for whoever asks while the agent runs elsewhere or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    pub narrow_paths: Vec<NarrowPath>,
    /// Nodes that no way leads to.
    pub unreachable: Vec<String>,
}

/// Keeps routes and tunnels to the pods of other nodes.
pub struct Peers {
    pub config: Config,
    /// Of this node.
    pub ranges: Vec<IpNet>,
    pub view: View,
    pub status: watch::Sender<NetStatus>,
}

/// A node as its object tells.
struct Other {
    name: String,
    ranges: Vec<IpNet>,
    addresses: Vec<IpAddr>,
}

// === impl PathReport ===

impl PathReport {
    /// As the agent with this folder left it; nothing where it left nothing.
    pub fn load(folder: &Path) -> PathReport {
        let bytes = fs::read(folder.join(REPORT)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn save(&self, folder: &Path) {
        let text = serde_json::to_vec(self).expect("a report is JSON");
        let part = folder.join(format!("{REPORT}.part"));
        let written = fs::write(&part, text).and_then(|()| fs::rename(&part, folder.join(REPORT)));
        if let Err(error) = written {
            tracing::warn!(err = %error, "cannot note how the ways to other nodes are");
        }
    }
}

// === impl Peers ===

impl Peers {
    /// Routes and tunnels stay afterwards.
    pub async fn run(self, drain: Drain) {
        let (targets, probed) = watch::channel(Vec::new());
        let sonar = Sonar::new(&self.config.node_name, probed);
        let mut paths = sonar.paths();
        let mut tasks = JoinSet::new();
        tasks.spawn(sonar.run(drain.clone()));
        let mut snapshots = self.view.subscribe();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            let known = paths.borrow_and_update().clone();
            let mut pause = RECONCILE_INTERVAL;
            // Before the first list nobody else seems to exist: routes of the last run stay until it is known.
            if snapshot.of::<Node>().synced
                && let Err(error) = self.pass(&snapshot, &known, &targets).await
            {
                tracing::error!(err = %Chain(&error), "routes to other nodes");
                pause = RETRY;
            }
            tokio::select! { biased;
                () = drain.cancelled() => return,
                changed = snapshots.changed() => if changed.is_err() { return },
                Ok(()) = paths.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn pass(
        &self,
        snapshot: &Snapshot,
        paths: &Paths,
        targets: &watch::Sender<Vec<Way>>,
    ) -> Result<(), AgentError> {
        let netlink = Netlink::open().map_err(AgentError::Netlink)?;
        let mut peers = Vec::new();
        for node in others(snapshot, &self.config.node_name) {
            peers.push(peer(&netlink, node, paths).await?);
        }
        let mut ways: Vec<Way> = peers.iter().flat_map(|peer| peer.ways.clone()).collect();
        for way in &mut ways {
            way.path_mtu = None;
        }
        targets.send_if_modified(|old| {
            let changed = *old != ways;
            *old = ways;
            changed
        });
        let wanted = plan(&peers);
        self.act(&netlink, &wanted).await?;
        self.tell(narrow(&peers), wanted.unreachable);
        Ok(())
    }

    async fn act(&self, netlink: &Netlink, plan: &Plan) -> Result<(), AgentError> {
        let names = self.config.names();
        let own: Vec<IpAddr> = self.ranges.iter().map(gateway).collect();
        let mut links = BTreeMap::new();
        for (underlay, ends) in &plan.tunnels {
            let tunnel = Tunnel {
                underlay: *underlay,
                hardware: hardware(&self.config.node_name),
                mtu: ends.mtu,
                addresses: own.clone(),
                neighbours: ends.neighbours.clone(),
                ends: ends.ends.clone(),
            };
            links.insert(*underlay, link::sync_tunnel(&netlink.handle, &names.tunnel(*underlay), &tunnel).await?);
        }
        let routes = plan.routes.iter().map(|(to, hop)| {
            let same = |address: &&IpAddr| address.is_ipv4() == to.addr().is_ipv4();
            // Answers to what this node sends must come back the same way: by an address inside the tunnel.
            let source = hop.tunnel.and_then(|_| own.iter().find(same).copied());
            let link = hop.tunnel.map(|underlay| links[&underlay]);
            (*to, Route { via: hop.via, link, source, mtu: hop.mtu })
        });
        link::sync_routes(&netlink.handle, names.route_protocol, &routes.collect()).await?;
        for underlay in Underlay::ALL.into_iter().filter(|underlay| !plan.tunnels.contains_key(underlay)) {
            link::remove(&netlink.handle, &names.tunnel(underlay)).await?;
        }
        Ok(())
    }

    fn tell(&self, narrow: Vec<NarrowPath>, unreachable: Vec<String>) {
        let report = PathReport { narrow_paths: narrow.clone(), unreachable: unreachable.clone() };
        if PathReport::load(&self.config.folder) != report {
            report.save(&self.config.folder);
        }
        self.status.send_if_modified(|status| {
            let changed = (&status.narrow_paths, &status.unreachable) != (&narrow, &unreachable);
            if changed {
                for path in narrow.iter().filter(|path| !status.narrow_paths.contains(path)) {
                    tracing::warn!(
                        "large packets to {} ({}) disappear: {} bytes arrive, the link takes {}; smaller ones are sent",
                        path.node,
                        path.address,
                        path.path_mtu,
                        path.link_mtu
                    );
                }
                if !unreachable.is_empty() {
                    tracing::warn!(nodes = ?unreachable, "no way leads to these nodes");
                }
            }
            (status.narrow_paths, status.unreachable) = (narrow, unreachable);
            changed
        });
    }
}

fn narrow(peers: &[Peer]) -> Vec<NarrowPath> {
    let mut found = Vec::new();
    for peer in peers {
        let ways = peer.ways.iter().filter_map(|way| Some((way, way.path_mtu?)));
        found.extend(ways.map(|(way, path_mtu)| NarrowPath {
            node: peer.name.clone(),
            address: way.address,
            link_mtu: way.link_mtu,
            path_mtu,
        }));
    }
    found
}

/// The ways to a node, as the kernel sees them now: IPv4 first.
async fn peer(netlink: &Netlink, node: Other, paths: &Paths) -> Result<Peer, AgentError> {
    let mut ways = Vec::new();
    for address in node.addresses {
        let Some(found) = link::lookup(&netlink.handle, address).await? else { continue };
        let Some(link_mtu) = link::mtu_of(&netlink.handle, found.link).await? else { continue };
        let path_mtu = paths.get(&address).copied().filter(|mtu| *mtu < link_mtu);
        ways.push(Way { address, direct: found.direct, link_mtu, path_mtu });
    }
    ways.sort_by_key(|way| way.address);
    Ok(Peer { name: node.name, ranges: node.ranges, ways })
}

/// Every other node that has ranges and internal addresses, by name.
fn others(snapshot: &Snapshot, own: &str) -> Vec<Other> {
    let mut found = Vec::new();
    for object in snapshot.of::<Node>().iter().filter(|object| object.key.name != own) {
        let Ok(node) = object.typed::<Node>() else { continue };
        let status = node.status.as_ref();
        let listed = status.and_then(|status| status.addresses.as_ref()).into_iter().flatten();
        let internal = listed.filter(|address| address.type_ == "InternalIP");
        let addresses: Vec<IpAddr> = internal.filter_map(|address| address.address.parse().ok()).collect();
        let ranges = pod_cidrs(snapshot, &object.key.name);
        if !ranges.is_empty() && !addresses.is_empty() {
            found.push(Other { name: object.key.name.to_string(), ranges, addresses });
        }
    }
    found
}

/// The ranges that a node's pods come from.
pub fn pod_cidrs(snapshot: &Snapshot, name: &str) -> Vec<IpNet> {
    let node = snapshot.of::<Node>().typed::<Node>(&Key::cluster(name));
    let Some(spec) = node.as_ref().and_then(|node| node.spec.as_ref()) else { return Vec::new() };
    let many = spec.pod_cidrs.iter().flatten();
    let one = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty));
    many.chain(one).filter_map(|text| text.parse::<IpNet>().ok()).map(|net| net.trunc()).collect()
}
