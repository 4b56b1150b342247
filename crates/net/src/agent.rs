//! The agent: brings the node's network up, then keeps it so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
use crate::detector::Detector;
use crate::kept::Kept;
use crate::link::{self, LinkError, Netlink};
use crate::peers::{NarrowPath, Peers, pod_cidrs};
use crate::service::{Proxy, ProxyStatus, Rules};

/// Longest path of a Unix socket: `sun_path` less its terminator.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// How often records are compared with the sandboxes that exist.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(2);

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
    /// Nodes that no way leads to.
    pub unreachable: Vec<String>,
    /// Ways on which large packets vanish; routes take it into account.
    pub narrow_paths: Vec<NarrowPath>,
    pub proxy: Option<ProxyStatus>,
}

/// The node's network agent.
pub struct Agent {
    config: Config,
    client: Client,
    sandboxes: Arc<dyn LiveSandboxes>,
    status: watch::Sender<NetStatus>,
    kept: watch::Sender<Kept>,
    rules: Rules,
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
        let (status, kept) = (watch::Sender::new(status), watch::Sender::new(Kept::default()));
        Agent { config, client, sandboxes, status, kept, rules: Rules::new() }
    }

    pub fn status(&self) -> watch::Receiver<NetStatus> {
        self.status.subscribe()
    }

    /// What it keeps on the machine, from when it is there.
    pub fn kept(&self) -> watch::Receiver<Kept> {
        self.kept.subscribe()
    }

    /// The rules it keeps in the kernel.
    pub fn rules(&self) -> Rules {
        self.rules.clone()
    }

    /// Runs until drain. Links, rules and addresses stay afterwards: pods go on without the agent.
    pub async fn run(self, drain: Drain) {
        let view = View::start(&self.client, watched(), &drain);
        let mut tasks = JoinSet::new();
        let records = watch::Sender::new(Arc::new(Vec::new()));
        let detector = Detector::new(&self.config.node_name, view.clone());
        let (records_of, silent) = (records.subscribe(), detector.silent());
        let proxy = Proxy::new(self.config.clone(), view.clone(), records_of, silent, self.rules.clone());
        if self.config.service_proxy {
            tasks.spawn(detector.run(drain.clone()));
        }
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
        let agent = self.agent.clone();
        let peers = Peers {
            config: agent.config.clone(),
            ranges: agent.status.borrow().pod_cidrs.clone(),
            view: self.view.clone(),
            status: agent.status.clone(),
        };
        tasks.spawn(peers.run(drain.clone()));
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
        let links = install_plugin(config)?;
        let netlink = Netlink::open().map_err(AgentError::Netlink)?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => link::uplink_mtu(&netlink.handle).await?,
        };
        let names = config.names();
        let bridge = link::raise_bridge(&netlink.handle, &names.bridge, mtu, &ranges, &config.service_cidrs).await?;
        self.agent.kept.send_modify(|kept| {
            kept.links = links;
            kept.settings.clone_from(&bridge.settings);
        });
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
        let text =
            serde_json::to_string_pretty(&NetConf::list(&self.config.instance, &socket)).expect("a list is JSON");
        let part = path.with_extension("part");
        let written = fs::write(&part, &text).and_then(|()| fs::rename(&part, &path));
        if written.is_ok() {
            self.kept.send_modify(|kept| drop(kept.files.insert(path.clone(), text)));
        }
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

/// Puts this program where the runtime looks for plugins, under both names it is called by; answers these links.
fn install_plugin(config: &Config) -> Result<BTreeMap<PathBuf, PathBuf>, AgentError> {
    let fail = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| AgentError::File { action, path, source }
    };
    for folder in [&config.folder, &config.cni_networks, &config.cni_programs] {
        fs::create_dir_all(folder).map_err(fail("make", folder))?;
    }
    let mut links = BTreeMap::new();
    for name in [PLUGIN, LOOPBACK] {
        let path = config.cni_programs.join(name);
        links.insert(path.clone(), config.program.clone());
        if fs::read_link(&path).is_ok_and(|to| to == config.program) {
            continue;
        }
        let part = config.cni_programs.join(format!(".{name}.part"));
        let _ = fs::remove_file(&part);
        std::os::unix::fs::symlink(&config.program, &part).map_err(fail("link", &part))?;
        fs::rename(&part, &path).map_err(fail("place", &path))?;
    }
    Ok(links)
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
