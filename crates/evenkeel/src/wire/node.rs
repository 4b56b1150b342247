//! A node put together: containerd, the process of names, the network agent and the node agent, over HTTPS with the node's own certificate.
//!
//! The same on a server's machine and on an agent's: nothing here depends on being in the server's process.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use base::Chain;
use bytes::Bytes;
use container::Cri;
use container::archive::Expected;
use container::child::Supervised;
use container::containerd::Containerd;
use http::{Request, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};
use view::{Client, Drain, Https};

use super::endpoints::KnownServers;
use super::facts;
use super::join::messages::ClusterSettings;
use super::manifests::Edited;
use super::runtime::CriRuntime;
use super::{SystemClock, SystemRng, cri_socket, drift, host, names};
use crate::cli::NodeArgs;
use crate::layout::{DATA, Layout};
use crate::pki::{NodeIdentity, certificates, client_config};

/// Between tries of an agent that ended without being asked to.
const AGAIN: Duration = Duration::from_secs(2);
/// Between tries of a node that did not start, the longest of pauses that double.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// What a node is started with.
#[derive(Clone)]
pub struct Parts {
    pub args: NodeArgs,
    pub layout: Layout,
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub cluster: ClusterSettings,
    /// Where it looks for the API.
    pub known: KnownServers,
    /// The file that the program was started with.
    pub config: PathBuf,
    /// Components to leave out.
    pub disable: Vec<String>,
    /// What else this node's port serves.
    pub extension: Option<Arc<dyn node::Extension>>,
    /// Objects of this server's deploy folder that were changed in the cluster.
    pub edited: Option<watch::Receiver<Vec<Edited>>>,
}

/// Files of the container runtime, as they were written.
type RuntimeFiles = BTreeMap<PathBuf, String>;

/// TLS settings that follow the renewals of the node's certificates.
#[derive(Clone)]
pub struct NodeTls {
    client: Arc<ArcSwap<rustls::ClientConfig>>,
    serving: Arc<ArcSwap<rustls::ServerConfig>>,
}

// === impl NodeTls ===

impl NodeTls {
    pub fn new(identity: &NodeIdentity) -> Result<NodeTls> {
        Ok(NodeTls {
            client: Arc::new(ArcSwap::new(client_config(&identity.server_ca_pem, Some(&identity.client), true)?)),
            serving: Arc::new(ArcSwap::new(serving(identity)?)),
        })
    }

    /// Connections from now on use these certificates.
    pub fn renew(&self, identity: &NodeIdentity) -> Result<()> {
        self.client.store(client_config(&identity.server_ca_pem, Some(&identity.client), true)?);
        self.serving.store(serving(identity)?);
        Ok(())
    }
}

fn serving(identity: &NodeIdentity) -> Result<Arc<rustls::ServerConfig>> {
    let cas = certificates(&identity.client_ca_pem)?;
    let config = apiserver::tls::server_config(identity.serving.chain.clone(), identity.serving.key(), &cas)?;
    let mut config = Arc::unwrap_or_clone(config);
    // Streams upgrade the connection, which HTTP/2 cannot.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Runs the node until the drain, and begins anew where it did not start: the API of this machine goes on without it, and
/// what was in its way may have been a moment's.
pub async fn persist(parts: Parts, tls: NodeTls, drain: Drain) {
    let mut pause = AGAIN;
    while let Err(failure) = run(parts.clone(), tls.clone(), drain.clone()).await {
        error!(error = %Chain(failure.as_ref()), "the node of this machine did not start; it is tried again");
        if drain.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = AGAIN_MAX.min(pause * 2);
    }
}

/// Runs the node until the drain; pods, links and containerd stay.
pub async fn run(parts: Parts, tls: NodeTls, drain: Drain) -> Result<()> {
    let client = client(&parts, &tls);
    let mut tasks = JoinSet::new();
    let (runtime, files) = runtime(&parts, &mut tasks, &drain).await?;
    let network = network(&parts)?;
    names(&parts, &network, &mut tasks, &drain).await?;
    tasks.spawn(parts.known.clone().follow(client.clone(), drain.clone()));
    let agent = net::Agent::new(network, client.named(&agent_name("evenkeel-net")), Arc::new(runtime.clone()));
    tasks.spawn(watcher(&parts, &client, &agent, files).run(drain.clone()));
    tasks.spawn(agent.run(drain.clone()));
    tasks.spawn(facts::notice::run(parts.layout.clone(), drain.clone()));
    let config = node_config(&parts)?;
    let facts = facts::NodeFacts { layout: parts.layout.clone(), config: parts.config };
    let extension = Arc::new(NodePaths { keeper: parts.extension, facts });
    tasks.spawn(keep(config, client, runtime, (tls, extension), drain.clone()));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a task of the node ended badly");
        }
    }
    Ok(())
}

/// What looks for changes by hand.
fn watcher(parts: &Parts, client: &Client, agent: &net::Agent, files: RuntimeFiles) -> drift::Watcher {
    drift::Watcher::new(drift::Parts {
        layout: parts.layout.clone(),
        node: parts.name.clone(),
        policy: parts.args.drift_policy,
        client: client.named(&agent_name("evenkeel-drift")),
        files,
        kept: agent.kept(),
        rules: agent.rules(),
        edited: parts.edited.clone(),
    })
}

/// What a node's port serves beside the kubelet's API.
struct NodePaths {
    keeper: Option<Arc<dyn node::Extension>>,
    facts: facts::NodeFacts,
}

#[async_trait]
impl node::Extension for NodePaths {
    fn subresource(&self, path: &str) -> Option<&'static str> {
        self.facts.subresource(path).or_else(|| self.keeper.as_ref()?.subresource(path))
    }

    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        match &self.keeper {
            Some(keeper) if self.facts.subresource(request.uri().path()).is_none() => keeper.answer(request).await,
            _ => self.facts.answer(request).await,
        }
    }
}

/// Runs the node agent, again when it ends without being asked to.
async fn keep(
    config: node::Config,
    client: Client,
    runtime: CriRuntime,
    (tls, extension): (NodeTls, Arc<dyn node::Extension>),
    drain: Drain,
) {
    while !drain.is_cancelled() {
        let serving = tls.serving.clone();
        let ports = node::Ports {
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
            tls: Arc::new(move || serving.load_full()),
            extension: Some(extension.clone()),
        };
        let agent = node::Agent::new(config.clone(), client.clone(), Arc::new(runtime.clone()), ports);
        // Its own token: an agent that gives up must not take the server with it.
        if let Err(failure) = agent.run(drain.child_token()).await {
            error!(error = %Chain(&failure), "the node agent ended");
        }
        drain.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
    }
}

/// The process that serves names, kept running; where there is to be none, an old one ends.
async fn names(parts: &Parts, network: &net::Config, tasks: &mut JoinSet<()>, drain: &Drain) -> Result<()> {
    let Some(dns) = network.dns.clone() else {
        return names::stop(&parts.layout).await.map(drop);
    };
    let settings = names::Settings {
        known: parts.known.clone(),
        tls: parts.layout.agent_tls(),
        dns,
        ranges: [network.cluster_cidrs.clone(), network.service_cidrs.clone()].concat(),
    };
    let child = Supervised::new(names::Names::new(&parts.layout, network, settings));
    let drain = drain.clone();
    tasks.spawn(child.run(async move { drain.cancelled().await }));
    Ok(())
}

/// The node's own way to the API.
pub fn client(parts: &Parts, tls: &NodeTls) -> Client {
    let current = tls.client.clone();
    let transport = Https::among(parts.known.endpoints(), Arc::new(move || current.load_full()));
    Client::new(Arc::new(transport), &agent_name("kubelet")).with_rng(Arc::new(SystemRng))
}

fn agent_name(name: &str) -> String {
    format!("{name}/{}", env!("CARGO_PKG_VERSION"))
}

/// The container runtime: the given one, or our own containerd, adopted or started and kept running.
async fn runtime(parts: &Parts, tasks: &mut JoinSet<()>, drain: &Drain) -> Result<(CriRuntime, RuntimeFiles)> {
    if let Some(endpoint) = &parts.args.container_runtime_endpoint {
        let cri = Cri::connect(cri_socket(&parts.layout, Some(endpoint)));
        let (expected, sandbox_image, brought) = (Expected::default(), String::new(), Arc::default());
        return Ok((CriRuntime { cri, expected, sandbox_image, brought }, RuntimeFiles::new()));
    }
    let mut config = super::containerd_config(&parts.layout);
    let registries = container::registries::apply(&parts.args.private_registry, &mut config.settings);
    let registries = registries.with_context(|| format!("read {}", parts.args.private_registry.display()))?;
    for warning in registries.warnings {
        warn!("{}: {warning}", parts.args.private_registry.display());
    }
    let sandbox_image = config.settings.sandbox_image.clone();
    let containerd = Containerd::start(config).await.context("start containerd")?;
    let cri = containerd.cri();
    let files = containerd.files().await.context("the settings of containerd")?;
    let files = files.into_iter().chain(registries.files).collect();
    let expected = import(&parts.layout, &containerd, tasks, drain);
    let drain = drain.clone();
    tasks.spawn(containerd.run(async move { drain.cancelled().await }));
    let brought = Arc::new(host::brought_images(&parts.layout));
    Ok((CriRuntime { cri, expected, sandbox_image, brought }, files))
}

/// Imports image tarballs while the node starts; answers which images are to come, for those who need them.
fn import(layout: &Layout, containerd: &Containerd, tasks: &mut JoinSet<()>, drain: &Drain) -> Expected {
    let folder = layout.images();
    let files = container::images::image_files(&folder).unwrap_or_default();
    if files.is_empty() {
        return Expected::default();
    }
    let Some(importer) = containerd.importer() else {
        warn!("{} is not imported: there is no ctr on this machine", folder.display());
        return Expected::default();
    };
    let expected = Expected::of(&files);
    let (cri, stamps, pending, drain) =
        (containerd.cri(), layout.containerd().join("imported"), expected.clone(), drain.clone());
    tasks.spawn(async move {
        let importing = importer.import_folder(&folder, &stamps, &cri, &pending);
        match drain.run_until_cancelled(importing).await {
            Some(Ok(outcome)) => {
                for (file, failure) in &outcome.failed {
                    warn!(file = %file.display(), error = %Chain(failure), "image not imported");
                }
                info!(imported = outcome.imported.len(), unchanged = outcome.unchanged, "image tarballs");
            }
            Some(Err(failure)) => warn!(error = %Chain(&failure), "image tarballs are not imported"),
            None => {}
        }
        pending.close();
    });
    expected
}

fn network(parts: &Parts) -> Result<net::Config> {
    let parse = |list: &[String]| {
        let parsed: Result<Vec<_>, _> = list.iter().map(|text| text.parse()).collect();
        parsed.context("a range of addresses")
    };
    let off = |name: &str| parts.disable.iter().any(|disabled| disabled == name);
    let mut config = host::network(&parts.layout, &parts.name);
    config.cluster_cidrs = parse(&parts.cluster.cluster_cidrs)?;
    config.service_cidrs = parse(&parts.cluster.service_cidrs)?;
    config.service_proxy = !off("proxy");
    if off("network") {
        config.pod_network = net::PodNetwork::External;
    }
    config.dns = (!off("dns")).then(|| net::DnsConfig {
        addresses: parts.cluster.cluster_dns.clone(),
        port: 53,
        domain: parts.cluster.cluster_domain.clone(),
        resolv_conf: resolv_conf(&parts.args),
        upstreams: Vec::new(),
    });
    if parts.args.container_runtime_endpoint.is_some() {
        config.cni_networks = PathBuf::from("/etc/cni/net.d");
        config.cni_programs = PathBuf::from("/opt/cni/bin");
    }
    Ok(config)
}

/// The machine's resolvers; systemd-resolved's stub is no use to pods.
fn resolv_conf(args: &NodeArgs) -> PathBuf {
    if let Some(path) = &args.resolv_conf {
        return path.clone();
    }
    let plain = Path::new("/etc/resolv.conf");
    let real = Path::new("/run/systemd/resolve/resolv.conf");
    let stub = std::fs::read_to_string(plain).is_ok_and(|text| text.contains("127.0.0.53"));
    if stub && real.exists() { real.to_owned() } else { plain.to_owned() }
}

fn node_config(parts: &Parts) -> Result<node::Config> {
    let default = parts.layout.data == Path::new(DATA);
    let mut config = node::Config::new(&parts.name, parts.addresses.clone(), parts.layout.agent());
    if !default {
        config.log_dir = parts.layout.agent().join("pod-logs");
    }
    let root = &parts.args.cgroup_root;
    config.cgroup_root = if root.is_empty() { host::cgroup_root(&parts.layout) } else { root.clone() };
    config.cluster_dns = parts.cluster.cluster_dns.clone();
    config.cluster_domain = parts.cluster.cluster_domain.clone();
    config.allowed_unsafe_sysctls.clone_from(&parts.args.allowed_unsafe_sysctls);
    if !parts.args.eviction_hard.is_empty() {
        config.eviction_hard = node::pressure::parse(&parts.args.eviction_hard).context("--eviction-hard")?;
    }
    (config.image_gc_high, config.image_gc_low) =
        (parts.args.image_gc_high_threshold, parts.args.image_gc_low_threshold);
    if config.image_gc_high <= config.image_gc_low {
        bail!("--image-gc-low-threshold must be below --image-gc-high-threshold");
    }
    config.local_path.clone_from(&parts.cluster.local_path);
    config.listen = SocketAddr::new(parts.args.kubelet_address, parts.args.kubelet_port);
    config.resolv_conf = resolv_conf(&parts.args);
    config.provider_id = format!("evenkeel://{}", parts.name);
    for label in &parts.args.node_label {
        let Some((key, value)) = label.split_once('=') else { bail!("--node-label {label:?}: KEY=VALUE") };
        if !admit::node_may_set_label(key) {
            bail!("--node-label {label:?}: a node may not give itself this label; use `kubectl label node`");
        }
        config.labels.insert(key.to_owned(), value.to_owned());
    }
    for taint in &parts.args.node_taint {
        config.taints.push(parse_taint(taint)?);
    }
    Ok(config)
}

fn parse_taint(text: &str) -> Result<(String, String, String)> {
    let Some((what, effect)) = text.rsplit_once(':') else { bail!("--node-taint {text:?}: KEY=VALUE:EFFECT") };
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        bail!("--node-taint {text:?}: the effect is NoSchedule, PreferNoSchedule or NoExecute");
    }
    let (key, value) = what.split_once('=').unwrap_or((what, ""));
    Ok((key.to_owned(), value.to_owned(), effect.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::parse_taint;

    #[test]
    fn taints_parse_as_kubectl_writes_them() {
        let taint = |key: &str, value: &str, effect: &str| (key.to_owned(), value.to_owned(), effect.to_owned());
        assert_eq!(parse_taint("a=b:NoSchedule").unwrap(), taint("a", "b", "NoSchedule"));
        assert_eq!(parse_taint("a:NoExecute").unwrap(), taint("a", "", "NoExecute"));
        assert!(parse_taint("a=b").is_err() && parse_taint("a=b:Never").is_err());
    }
}
