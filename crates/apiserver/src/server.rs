//! The server as a value: what it is made of, and the state all its requests share.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use base::{Clock, Rng, SmolStr};
use store::Store;
use tokio::sync::watch;

use admit::Webhooks;
use api::Registry;

use crate::audit::Audit;
use crate::authn::{TokenAuthenticator, TokenKeys, TokenReviewer};
use crate::connect::NodeProxy;
use crate::discovery::Discovery;
use crate::health::HealthCheck;
use crate::inflight::Seats;
use crate::metrics::Metrics;
use crate::paths::Extension;
use crate::reader::StoreReader;

/// What the server needs. Making it has no effects.
pub struct Deps {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub hooks: Arc<dyn Webhooks>,
    pub keys: TokenKeys,
    /// Bearer tokens beside service accounts': join tokens.
    pub tokens: Arc<dyn TokenAuthenticator>,
    /// How to reach kubelets and proxied addresses.
    pub nodes: Arc<dyn NodeProxy>,
    /// Paths of the distribution's own beside the Kubernetes API.
    pub extension: Arc<dyn Extension>,
    /// Further checks of `/livez` and `/readyz`.
    pub checks: Vec<Arc<dyn HealthCheck>>,
    pub audit: Audit,
    /// Users and URIs whose client certificates hold no longer: at once, and on open connections too.
    pub revoked: watch::Receiver<BTreeSet<SmolStr>>,
    pub config: Config,
}

/// What the operator chose, and what the PKI made.
#[derive(Clone, Debug)]
pub struct Config {
    pub admit: admit::Config,
    /// `iss` of service-account tokens; the first is written, all are accepted.
    pub issuers: Vec<String>,
    /// Audiences that the API server answers to; the first is the default of a token request.
    pub audiences: Vec<String>,
    /// Where clients reach this server: written into the endpoints of the `kubernetes` Service.
    pub advertise: SocketAddr,
    /// The CA of the serving certificate, for `kube-root-ca.crt`. PEM.
    pub server_ca_pem: String,
    /// The CA of client certificates, for `extension-apiserver-authentication`. PEM.
    pub client_ca_pem: String,
    /// The CA of front proxies. PEM; empty where there is none.
    pub front_proxy_ca_pem: String,
    /// `gitVersion` of `/version`: `v1.36.0+evenkeel.0.1.0`.
    pub version: String,
}

/// The API server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub deps: Deps,
    pub reader: StoreReader,
    /// Built-in kinds and those of established CRDs. A request keeps the one it started with.
    pub registry: ArcSwap<Registry>,
    pub discovery: Discovery,
    pub metrics: Metrics,
    pub seats: Seats,
    draining: watch::Sender<bool>,
    leaving: AtomicBool,
}

// === impl Server ===

impl Server {
    /// Wires the server; nothing runs yet. Kinds of CRDs that the store already holds are served from the start.
    pub fn new(deps: Deps) -> Server {
        let reader = StoreReader(deps.store.clone());
        let builtin = api::builtin::registry();
        let (registry, _) = crate::crds::with_custom_kinds(&builtin, &reader, 1);
        let discovery = Discovery::default();
        let shared = Shared {
            reader,
            registry: ArcSwap::from_pointee(registry),
            discovery,
            metrics: Metrics::new(),
            seats: Seats::new(),
            draining: watch::Sender::new(false),
            leaving: AtomicBool::new(false),
            deps,
        };
        Server { shared: Arc::new(shared) }
    }

    /// The kinds served at this moment.
    pub fn registry(&self) -> Arc<Registry> {
        self.shared.registry.load_full()
    }

    pub fn store(&self) -> &Store {
        &self.shared.deps.store
    }

    /// The keys of service-account tokens, which may change.
    pub fn token_keys(&self) -> &TokenKeys {
        &self.shared.deps.keys
    }

    /// Says that it is better to ask another server from now on, and goes on answering: `/readyz` fails, and connections
    /// of HTTP/1.1, whose clients cannot be told in between, are closed behind the next answer. Those of HTTP/2 are told
    /// when the drain begins.
    pub fn leave(&self) {
        self.shared.leaving.store(true, Ordering::Relaxed);
    }

    /// Watches end, `/readyz` fails.
    pub(crate) fn begin_drain(&self) {
        self.shared.draining.send_replace(true);
    }
}

// === impl Shared ===

impl Shared {
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) || *self.draining.borrow()
    }

    /// Becomes true once, when the server drains.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// A random (version 4) uid.
    pub fn new_uid(&self) -> String {
        let mut bytes = [0; 16];
        self.deps.rng.fill(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    pub fn tokens(&self) -> TokenReviewer<'_> {
        TokenReviewer {
            keys: &self.deps.keys,
            issuers: &self.deps.config.issuers,
            audiences: &self.deps.config.audiences,
            reader: &self.reader,
            clock: self.deps.clock.as_ref(),
        }
    }
}
