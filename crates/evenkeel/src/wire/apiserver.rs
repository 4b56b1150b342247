//! The API server put together: store, keys, trust, and how it finds nodes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::builtin::git_version;
use apiserver::tls::Serving;
use apiserver::{Audit, AuditConfig, Config, Deps, Extension, HealthCheck, NoTokens, Server, TlsSource, TokenKeys};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use base::{Chain, Clock, SmolStr};
use jiff::Timestamp;
use reconcile::Health;
use tokio::sync::watch;

use super::nodeproxy::Proxy;
use super::{SystemClock, SystemRng};
use crate::cli::{DatastoreArgs, ServerArgs};
use crate::layout::Layout;
use crate::pki::{Leaf, ServerNames, ServerPki, certificates, client_config};

/// The audit log is kept in files of this size, this many of them.
const AUDIT_BYTES_MAX: u64 = 32 << 20;
const AUDIT_FILES_MAX: u32 = 4;
/// A store that takes longer to answer a read is of no use to clients.
const STORE_READ_TIMEOUT: Duration = Duration::from_secs(3);

/// TLS settings that follow the renewals of their leaves.
pub struct Tls {
    pki: Arc<ServerPki>,
    names: ServerNames,
    serving: Arc<ArcSwap<Serving>>,
    kubelets: Arc<ArcSwap<rustls::ClientConfig>>,
}

// === impl Tls ===

impl Tls {
    pub fn new(pki: Arc<ServerPki>, names: ServerNames, clock: &dyn Clock) -> Result<Tls> {
        let now = clock.now();
        let (serving, _) = pki.serving(&names, now).context("serving certificate")?;
        let (kubelet, _) = pki.kubelet_client(now).context("kubelet client certificate")?;
        let serving = Arc::new(ArcSwap::new(self::serving(&pki, &serving)?));
        let kubelets = Arc::new(ArcSwap::new(client_config(&pki.current().server.pem, Some(&kubelet), false)?));
        Ok(Tls { pki, names, serving, kubelets })
    }

    pub fn source(&self) -> TlsSource {
        let serving = self.serving.clone();
        Arc::new(move || serving.load_full())
    }

    /// What this server shows to kubelets, as it is renewed.
    pub fn kubelets(&self) -> Arc<ArcSwap<rustls::ClientConfig>> {
        self.kubelets.clone()
    }

    pub fn proxy(&self) -> Result<Proxy> {
        Ok(Proxy::new(self.kubelets.clone())?)
    }

    /// Issues again what is due; connections from then on use it. Answers when the first of them is due next.
    pub fn renew(&self, clock: &dyn Clock) -> Result<Timestamp> {
        let now = clock.now();
        let (leaf, _) = self.pki.serving(&self.names, now)?;
        self.serving.store(serving(&self.pki, &leaf)?);
        let (kubelet, _) = self.pki.kubelet_client(now)?;
        self.kubelets.store(client_config(&self.pki.current().server.pem, Some(&kubelet), false)?);
        Ok(leaf.due().min(kubelet.due()))
    }
}

fn serving(pki: &ServerPki, leaf: &Leaf) -> Result<Arc<Serving>> {
    let cas = certificates(&pki.current().client.pem)?;
    Ok(apiserver::tls::serving(leaf.chain.clone(), leaf.key(), &cas)?)
}

/// Opens the engine: the file in the data folder, or the etcd that was named.
pub async fn engine(args: &DatastoreArgs, layout: &Layout) -> Result<Arc<dyn store::Engine>> {
    match &args.datastore_endpoint {
        None => {
            let path = layout.database();
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
            store::sqlite::open(&path).with_context(|| format!("open {}", path.display()))
        }
        Some(endpoints) => super::etcd::connect(args, endpoints).await,
    }
}

/// What the server is made of.
pub struct Parts {
    pub store: store::Store,
    pub pki: Arc<ServerPki>,
    pub extension: Arc<dyn Extension>,
    /// Machines that were removed.
    pub revoked: watch::Receiver<BTreeSet<SmolStr>>,
    pub nodes: Proxy,
    pub advertise: SocketAddr,
    /// The loops' health, once they run, and their names.
    pub health: watch::Receiver<Health>,
    pub loops: Vec<&'static str>,
    /// Further checks of `/readyz`.
    pub checks: Vec<Arc<dyn HealthCheck>>,
}

pub fn build(args: &ServerArgs, layout: &Layout, parts: Parts) -> Result<Server> {
    let audit = AuditConfig { path: layout.audit_log(), file_bytes_max: AUDIT_BYTES_MAX, files_max: AUDIT_FILES_MAX };
    let issuer = format!("https://kubernetes.default.svc.{}", args.cluster_domain);
    let config = Config {
        admit: admit_config(args)?,
        issuers: vec![issuer.clone()],
        audiences: vec![issuer],
        advertise: parts.advertise,
        server_ca_pem: parts.pki.current().server.pem.clone(),
        client_ca_pem: parts.pki.current().client.pem.clone(),
        front_proxy_ca_pem: parts.pki.current().request_header.pem.clone(),
        version: git_version(),
    };
    let mut checks = loop_checks(&parts.health, &parts.loops);
    checks.extend(parts.checks);
    checks.push(Arc::new(StoreCheck { store: parts.store.clone() }));
    Ok(Server::new(Deps {
        store: parts.store,
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
        hooks: Arc::new(admit::NoWebhooks),
        keys: TokenKeys::from_pems(&parts.pki.current().signing_keys).context("service-account keys")?,
        tokens: Arc::new(NoTokens),
        nodes: Arc::new(parts.nodes),
        extension: parts.extension,
        checks,
        audit: Audit::start(audit).context("open the audit log")?,
        revoked: parts.revoked,
        config,
    }))
}

fn admit_config(args: &ServerArgs) -> Result<admit::Config> {
    let networks = |list: &[String]| {
        let parsed: Result<Vec<_>, _> =
            list.iter().map(|text| text.parse().with_context(|| format!("{text:?}"))).collect();
        parsed.context("a range reads 10.42.0.0/16")
    };
    Ok(admit::Config {
        service_cidrs: networks(&args.service_cidr)?,
        node_ports: port_range(&args.service_node_port_range)?,
        pod_cidrs: networks(&args.cluster_cidr)?,
        ..admit::Config::default()
    })
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>> {
    let Some((from, to)) = text.split_once('-') else { bail!("{text:?}: a port range reads 30000-32767") };
    let (from, to) = (from.trim().parse()?, to.trim().parse()?);
    anyhow::ensure!(from <= to && from > 0, "{text:?} is an empty port range");
    Ok(from..=to)
}

/// One check per loop, shown by `/readyz?verbose` and never counted by it; `/readyz/loop/NAME` says what is wrong.
fn loop_checks(health: &watch::Receiver<Health>, names: &[&'static str]) -> Vec<Arc<dyn HealthCheck>> {
    let check = |name: &&'static str| -> Arc<dyn HealthCheck> {
        Arc::new(LoopCheck { title: format!("loop/{name}"), name, health: health.clone() })
    };
    names.iter().map(check).collect()
}

/// Whether the store answers a consistent read: an etcd may be gone while everything in memory is still there.
struct StoreCheck {
    store: store::Store,
}

#[async_trait]
impl HealthCheck for StoreCheck {
    fn name(&self) -> &str {
        "store-read"
    }

    async fn check(&self) -> Result<(), String> {
        match tokio::time::timeout(STORE_READ_TIMEOUT, self.store.read_barrier()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Chain(&error).to_string()),
            Err(_) => Err(format!("no answer within {} s", STORE_READ_TIMEOUT.as_secs())),
        }
    }
}

struct LoopCheck {
    title: String,
    name: &'static str,
    health: watch::Receiver<Health>,
}

#[async_trait]
impl HealthCheck for LoopCheck {
    fn name(&self) -> &str {
        &self.title
    }

    fn is_informative(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<(), String> {
        let status = self.health.borrow().of(self.name).map(|status| status.borrow().clone());
        let status = status.ok_or("it has not started")?;
        if !status.synced {
            return Err("its first lists are not complete".to_owned());
        }
        match status.last_error {
            Some(error) if status.failing > 0 => Err(format!("{} keys fail, the last: {error}", status.failing)),
            _ => Ok(()),
        }
    }
}
