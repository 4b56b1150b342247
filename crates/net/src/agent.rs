//! The agent: brings the node's network up, then keeps it so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Key, Snapshot};
use async_trait::async_trait;
use base::Chain;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;
use tokio::task::JoinSet;
use view::{Client, Drain, View, Watched};

use crate::address::{Pool, PoolError, Record};
use crate::cni::{LOOPBACK, NetConf, PLUGIN, Server};
use crate::config::{Config, PodNetwork};
use crate::link::{self, LinkError, Netlink};
use crate::service::{Proxy, ProxyStatus};

/// Longest path of a Unix socket: `sun_path` less its terminator.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// How often records are compared with the sandboxes that exist.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(2);
/// Changes of Node objects within this time become one pass over the routes.
const ROUTES_GATHER: Duration = Duration::from_millis(200);

/// The sandboxes that exist; asked at start and now and then.
#[async_trait]
pub trait LiveSandboxes: Send + Sync {
    /// Ids of all sandboxes the runtime knows, running or not.
    async fn ids(&self) -> Result<BTreeSet<String>, Box<dyn std::error::Error + Send + Sync>>;
}

/// How the node's network is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetStatus {
    /// Pods can be connected.
    pub ready: bool,
    /// What the agent waits for or last failed at; empty when all is well.
    pub message: String,
    pub pod_cidrs: Vec<IpNet>,
    /// Nodes that no route leads to: they are not on our segment.
    pub unreachable: Vec<String>,
    pub proxy: Option<ProxyStatus>,
}

/// The node's network agent.
pub struct Agent {
    config: Config,
    client: Client,
    sandboxes: Arc<dyn LiveSandboxes>,
    status: watch::Sender<NetStatus>,
}

/// What keeps the pod network from coming up.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("socket path {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes; choose a shorter data folder")]
    LongSocket { path: PathBuf },
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("netlink")]
    Netlink(#[source] io::Error),
    #[error("bring up the pod network")]
    Link(#[from] LinkError),
    #[error("read the address records")]
    Pool(#[from] PoolError),
}

// === impl Agent ===

impl Agent {
    pub fn new(config: Config, client: Client, sandboxes: Arc<dyn LiveSandboxes>) -> Agent {
        let status = NetStatus { message: "starting".to_owned(), ..NetStatus::default() };
        Agent { config, client, sandboxes, status: watch::Sender::new(status) }
    }

    pub fn status(&self) -> watch::Receiver<NetStatus> {
        self.status.subscribe()
    }

    /// Runs until drain. Links, rules and addresses stay afterwards: pods go on without the agent.
    pub async fn run(self, drain: Drain) {
        let view = View::start(&self.client, watched(), &drain);
        let mut tasks = JoinSet::new();
        let records = watch::Sender::new(Arc::new(Vec::new()));
        let proxy = Proxy::new(self.config.clone(), view.clone(), records.subscribe());
        tasks.spawn(follow_proxy(proxy.status(), self.status.clone(), drain.clone()));
        tasks.spawn(proxy.run(drain.clone()));
        if self.config.pod_network == PodNetwork::Bridge {
            let pods = Pods { agent: Arc::new(self), view, records };
            tasks.spawn(pods.run(drain.clone()));
        } else {
            self.status.send_modify(|status| {
                status.ready = true;
                status.message.clear();
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(err = %error, "a task of the network agent ended badly");
            }
        }
    }

    fn say(&self, message: String) {
        self.status.send_if_modified(|status| {
            let changed = status.message != message;
            status.message = message;
            changed
        });
    }
}

/// No more than `system:node` and `system:node-proxier` may read: what is refused would never be complete.
fn watched() -> Vec<Watched> {
    vec![Watched::of::<Service>(&[]), Watched::of::<EndpointSlice>(&[]), Watched::of::<Node>(&[])]
}

async fn follow_proxy(mut proxy: watch::Receiver<ProxyStatus>, status: watch::Sender<NetStatus>, drain: Drain) {
    loop {
        let now = proxy.borrow_and_update().clone();
        status.send_modify(|status| status.proxy = Some(now));
        tokio::select! { biased;
            () = drain.cancelled() => return,
            changed = proxy.changed() => if changed.is_err() { return },
        }
    }
}

/// The part of the agent that only exists where the pod network is ours.
struct Pods {
    agent: Arc<Agent>,
    view: View,
    records: watch::Sender<Arc<Vec<Record>>>,
}

// === impl Pods ===

impl Pods {
    async fn run(self, drain: Drain) {
        self.withdraw_plugin().await;
        let server = loop {
            let Some(ranges) = drain.run_until_cancelled(self.ranges()).await else { return };
            match self.start(ranges).await {
                Ok(server) => break Arc::new(server),
                Err(error) => {
                    let error = Chain(&error).to_string();
                    tracing::error!(err = %error, "the pod network does not come up");
                    self.agent.say(error);
                }
            }
            if drain.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                return;
            }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(server.records(), self.records.clone(), drain.clone()));
        tasks.spawn(reconcile(server.clone(), self.agent.sandboxes.clone(), drain.clone()));
        tasks.spawn(routes(self.agent.clone(), self.view.clone(), drain.clone()));
        let agent = self.agent.clone();
        let socket = agent.config.socket();
        let ready = || agent.publish_plugin();
        if let Err(error) = server.run(&socket, ready, drain.clone()).await {
            tracing::error!(err = %error, socket = %socket.display(), "the CNI socket failed");
            self.agent.say(format!("CNI socket: {error}"));
        }
        while tasks.join_next().await.is_some() {}
    }

    /// A runtime must not call a plugin whose network is not there: it waits for the file instead. While the bridge is up
    /// the file stays, so that the runtime does not report a lost network whenever the agent restarts.
    async fn withdraw_plugin(&self) {
        let bridge = self.agent.config.names().bridge;
        let found = match Netlink::open() {
            Ok(netlink) => link::find(&netlink.handle, &bridge).await.ok().flatten(),
            Err(_) => None,
        };
        if found.is_none() {
            let _ = fs::remove_file(self.agent.config.conflist());
        }
    }

    /// The node's pod ranges: of the Node object, and where the API is away those of last time.
    async fn ranges(&self) -> Vec<IpNet> {
        let name = &self.agent.config.node_name;
        let file = self.agent.config.folder.join("pod-cidrs.json");
        let remembered: Vec<IpNet> =
            fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        self.agent.say("waiting for the node's pod range".to_owned());
        let found = self.view.wait_for(|snapshot| {
            !pod_cidrs(snapshot, name).is_empty() || (!remembered.is_empty() && !snapshot.of::<Node>().synced)
        });
        let ranges = pod_cidrs(&found.await, name);
        if ranges.is_empty() {
            return remembered;
        }
        let text = serde_json::to_vec(&ranges).expect("networks are JSON");
        let saved = fs::create_dir_all(&self.agent.config.folder).and_then(|()| fs::write(&file, text));
        if let Err(error) = saved {
            tracing::warn!(err = %error, "cannot remember the pod range");
        }
        ranges
    }

    async fn start(&self, ranges: Vec<IpNet>) -> Result<Server, AgentError> {
        let config = &self.agent.config;
        let socket = config.socket();
        if SOCKET_PATH_BYTES_MAX < socket.as_os_str().len() {
            return Err(AgentError::LongSocket { path: socket });
        }
        install_plugin(config)?;
        let netlink = Netlink::open().map_err(AgentError::Netlink)?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => link::uplink_mtu(&netlink.handle).await?,
        };
        let names = config.names();
        let bridge = link::raise_bridge(&netlink.handle, &names.bridge, mtu, &ranges, &config.service_cidrs).await?;
        let pool = Pool::open(&config.folder.join("addresses"), ranges.clone())?;
        self.agent.status.send_modify(|status| status.pod_cidrs = ranges);
        let server = Server::new(pool, netlink, bridge, names);
        match self.agent.sandboxes.ids().await {
            Ok(live) => match server.reconcile(&live).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "gave back addresses of sandboxes that are gone"),
                Err(error) => tracing::warn!(err = %error, "address records were not reconciled"),
            },
            Err(error) => tracing::warn!(err = %error, "the runtime does not list its sandboxes"),
        }
        Ok(server)
    }
}

impl Agent {
    /// The file appears when everything behind it works.
    fn publish_plugin(&self) {
        let (path, socket) = (self.config.conflist(), self.config.socket());
        let text = serde_json::to_vec_pretty(&NetConf::list(&self.config.instance, &socket)).expect("a list is JSON");
        let part = path.with_extension("part");
        let written = fs::write(&part, text).and_then(|()| fs::rename(&part, &path));
        let message = written.err().map(|error| format!("write {}: {error}", path.display()));
        if let Some(message) = &message {
            tracing::error!(err = %message, "pods cannot be connected");
        }
        self.status.send_modify(|status| {
            status.ready = message.is_none();
            status.message = message.unwrap_or_default();
        });
    }
}

/// Puts this program where the runtime looks for plugins, under both names it is called by.
fn install_plugin(config: &Config) -> Result<(), AgentError> {
    let fail = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| AgentError::File { action, path, source }
    };
    for folder in [&config.folder, &config.cni_networks, &config.cni_programs] {
        fs::create_dir_all(folder).map_err(fail("make", folder))?;
    }
    for name in [PLUGIN, LOOPBACK] {
        let path = config.cni_programs.join(name);
        if fs::read_link(&path).is_ok_and(|to| to == config.program) {
            continue;
        }
        let part = config.cni_programs.join(format!(".{name}.part"));
        let _ = fs::remove_file(&part);
        std::os::unix::fs::symlink(&config.program, &part).map_err(fail("link", &part))?;
        fs::rename(&part, &path).map_err(fail("place", &path))?;
    }
    Ok(())
}

async fn forward(mut from: watch::Receiver<Arc<Vec<Record>>>, to: watch::Sender<Arc<Vec<Record>>>, drain: Drain) {
    loop {
        let records = from.borrow_and_update().clone();
        to.send_replace(records);
        tokio::select! { biased;
            () = drain.cancelled() => return,
            changed = from.changed() => if changed.is_err() { return },
        }
    }
}

async fn reconcile(server: Arc<Server>, sandboxes: Arc<dyn LiveSandboxes>, drain: Drain) {
    while drain.run_until_cancelled(tokio::time::sleep(RECONCILE_INTERVAL)).await.is_some() {
        if let Ok(live) = sandboxes.ids().await
            && let Err(error) = server.reconcile(&live).await
        {
            tracing::warn!(err = %error, "address records were not reconciled");
        }
    }
}

/// By name: pod ranges and internal addresses.
type OtherNodes = BTreeMap<String, (Vec<IpNet>, Vec<IpAddr>)>;

/// Keeps routes to the pods of other nodes.
async fn routes(agent: Arc<Agent>, view: View, drain: Drain) {
    let mut snapshots = view.subscribe();
    let mut last: Option<OtherNodes> = None;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let nodes = other_nodes(&snapshot, &agent.config.node_name);
        // Before the first list nobody else seems to exist: routes of the last run stay until it is known.
        if snapshot.of::<Node>().synced && last.as_ref() != Some(&nodes) {
            match route(&agent, &nodes).await {
                Ok(()) => last = Some(nodes),
                Err(error) => {
                    tracing::error!(err = %Chain(&error), "routes to other nodes");
                    tokio::time::sleep(RETRY).await;
                    snapshots.mark_changed();
                }
            }
        }
        tokio::select! { biased;
            () = drain.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(ROUTES_GATHER).await;
    }
}

async fn route(agent: &Agent, nodes: &OtherNodes) -> Result<(), AgentError> {
    let netlink = Netlink::open().map_err(AgentError::Netlink)?;
    let own = agent.status.borrow().pod_cidrs.clone();
    let addresses: Vec<IpAddr> = nodes.values().flat_map(|(_, addresses)| addresses.clone()).collect();
    let near = link::on_segment(&netlink.handle, &addresses, &own).await?;
    let mut wanted = BTreeMap::new();
    let mut unreachable = Vec::new();
    for (name, (ranges, addresses)) in nodes {
        for range in ranges {
            let family = |address: &&IpAddr| address.is_ipv4() == range.addr().is_ipv4();
            match addresses.iter().filter(family).find(|address| near.contains(address)) {
                Some(via) => drop(wanted.insert(range.trunc(), *via)),
                None if !unreachable.contains(name) => unreachable.push(name.clone()),
                None => {}
            }
        }
    }
    link::sync_routes(&netlink.handle, agent.config.names().route_protocol, &wanted).await?;
    if !unreachable.is_empty() {
        tracing::warn!(nodes = ?unreachable, "no route: these nodes are not on this node's segment");
    }
    agent.status.send_modify(|status| status.unreachable = unreachable);
    Ok(())
}

/// Ranges and internal addresses of every other node that has both.
fn other_nodes(snapshot: &Snapshot, own: &str) -> OtherNodes {
    let mut nodes = BTreeMap::new();
    for object in snapshot.of::<Node>().iter().filter(|object| object.key.name != own) {
        let Ok(node) = object.typed::<Node>() else { continue };
        let status = node.status.as_ref();
        let listed = status.and_then(|status| status.addresses.as_ref()).into_iter().flatten();
        let internal = listed.filter(|address| address.type_ == "InternalIP");
        let addresses: Vec<IpAddr> = internal.filter_map(|address| address.address.parse().ok()).collect();
        let ranges = pod_cidrs(snapshot, &object.key.name);
        if !ranges.is_empty() && !addresses.is_empty() {
            nodes.insert(object.key.name.to_string(), (ranges, addresses));
        }
    }
    nodes
}

fn pod_cidrs(snapshot: &Snapshot, name: &str) -> Vec<IpNet> {
    let node = snapshot.of::<Node>().typed::<Node>(&Key::cluster(name));
    let Some(spec) = node.as_ref().and_then(|node| node.spec.as_ref()) else { return Vec::new() };
    let many = spec.pod_cidrs.iter().flatten();
    let one = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty));
    many.chain(one).filter_map(|text| text.parse::<IpNet>().ok()).map(|net| net.trunc()).collect()
}
