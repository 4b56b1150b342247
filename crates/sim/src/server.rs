//! A server of the simulated cluster: the real store, API server, controllers and scheduler, on a record that fails and
//! behind a transport that loses answers. It can be killed between any two of their steps.

use std::collections::BTreeSet;
use std::sync::Arc;

use admit::User;
use anyhow::{Context, Result};
use apiserver::{Audit, Config, Deps, Extension, NoNodes, NoTokens, Server, TokenKeys};
use base::{Clock, Rng};
use evenkeel::coordination::Parts;
use evenkeel::coordination::api::{Keeper, Slot};
use evenkeel::coordination::coordinator::Coordinator;
use reconcile::{Leader, LeaderConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;
use view::{Client, Drain};

use crate::rack::Wires;
use crate::record::{Link, Record};
use crate::transport::{Door, Way};
use crate::world::{Seeds, SimClock, Weather};

/// What all servers of a cluster have in common.
pub struct Shared {
    pub record: Arc<Record>,
    /// PEM of the key that signs service-account tokens.
    pub signing_key: String,
}

/// One server, on or off.
pub struct SimServer {
    pub name: String,
    pub clock: Arc<SimClock>,
    /// What the keeper reaches from here, where this server keeps its cluster.
    pub keeping: Option<Arc<Wires>>,
    seeds: Seeds,
    link: watch::Sender<Link>,
    door: Arc<Door>,
    alive: Option<Alive>,
}

/// What ends with the process.
struct Alive {
    drain: Drain,
    tasks: JoinSet<()>,
}

// === impl SimServer ===

impl SimServer {
    pub fn new(name: &str, seed: u64, weather: Weather) -> SimServer {
        SimServer {
            name: name.to_owned(),
            clock: SimClock::new(),
            keeping: None,
            seeds: Seeds::new(seed),
            link: watch::Sender::new(Link::Closed),
            door: Door::closed(weather),
            alive: None,
        }
    }

    /// Where its clients knock; the same over all its lives.
    pub fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    pub fn is_on(&self) -> bool {
        self.alive.is_some()
    }

    /// Starts it as `evenkeel server` does: state, bootstrap objects, then the loops.
    pub async fn start(&mut self, shared: &Shared) -> Result<()> {
        let link = watch::Sender::new(Link::Up);
        let engine = shared.record.member(&self.name, link.subscribe(), self.seeds.split());
        self.link = link;
        let clock: Arc<dyn Clock> = self.clock.clone();
        let store =
            store::Store::open(engine, store::Keyring::plain(), clock.clone()).await.context("open the store")?;
        let slot = Arc::<Slot>::default();
        let server = Server::new(self.deps(store, shared, slot.clone())?);
        server.bootstrap().await.context("bootstrap")?;
        self.door.open(server.clone());
        let drain = Drain::new();
        let mut tasks = JoinSet::new();
        let running = (server.clone(), drain.clone());
        tasks.spawn(async move { running.0.run(running.1.cancelled()).await });
        self.start_loops(&server, &mut tasks, &drain);
        if let Some(parts) = self.keeper_parts() {
            slot.fill(Keeper::new(parts.clone()));
            tasks.spawn(Coordinator::run(parts, drain.clone()));
        }
        self.alive = Some(Alive { drain, tasks });
        Ok(())
    }

    fn start_loops(&self, server: &Server, tasks: &mut JoinSet<()>, drain: &Drain) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let client = self.client("system:kube-controller-manager", Way::Late);
        let config = LeaderConfig::new("kube-controller-manager", &self.name);
        let (leader, _) = Leader::new(config, client.clone(), clock.clone());
        let leadership = leader.leadership();
        tasks.spawn(leader.run(drain.clone()));
        let registry = {
            let server = server.clone();
            Arc::new(move || server.registry())
        };
        let loops = evenkeel::controllers::Parts {
            client,
            clock: clock.clone(),
            config: controllers::Config {
                cluster_cidrs: vec!["10.42.0.0/16".into()],
                root_ca: "none".to_owned(),
                ..controllers::Config::default()
            },
            registry,
            leadership: leadership.clone(),
            signer: None,
        };
        let controllers = evenkeel::controllers::build(loops, drain);
        tasks.spawn(controllers.driver.run(drain.clone()));
        tasks.spawn(controllers.kinds.run(drain.clone()));
        let client = self.client("system:kube-scheduler", Way::Late);
        let (scheduler, _) = evenkeel::schedule::driver(client, clock, leadership, &self.name, drain);
        tasks.spawn(scheduler.run(drain.clone()));
    }

    fn keeper_parts(&self) -> Option<Parts> {
        let wires = self.keeping.clone()?;
        Some(Parts {
            name: self.name.clone(),
            cluster: "rack".to_owned(),
            clock: self.clock.clone(),
            client: self.client_of("system:admin", &["system:masters"], Way::Late),
            agents: wires.clone(),
            programs: wires.clone(),
            replicas: wires.clone(),
            machines: wires.clone(),
            backup: wires,
        })
    }

    /// A client of this server's own.
    fn client(&self, user: &str, way: Way) -> Client {
        self.client_of(user, &[], way)
    }

    fn client_of(&self, user: &str, groups: &[&str], way: Way) -> Client {
        let groups = groups.iter().copied().chain(["system:authenticated"]).map(Into::into).collect();
        let user = User { name: user.into(), groups, ..User::default() };
        let transport = self.door.transport(user, way, self.seeds.split());
        Client::new(transport, &format!("{}/0", self.name)).with_rng(self.seeds.split())
    }

    fn deps(&self, store: store::Store, shared: &Shared, extension: Arc<dyn Extension>) -> Result<Deps> {
        let rng: Arc<dyn Rng> = self.seeds.split();
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        Ok(Deps {
            store,
            clock: self.clock.clone(),
            rng,
            hooks: Arc::new(admit::NoWebhooks),
            keys: TokenKeys::from_pems(&[&shared.signing_key]).context("the signing key")?,
            tokens: Arc::new(NoTokens),
            nodes: Arc::new(NoNodes),
            extension,
            checks: Vec::new(),
            revoked: watch::channel(BTreeSet::new()).1,
            audit: Audit::none(),
            config: Config {
                admit: admit::Config::default(),
                issuers: vec![issuer.clone()],
                audiences: vec![issuer],
                advertise: ([192, 0, 2, 1], 6443).into(),
                server_ca_pem: String::new(),
                client_ca_pem: String::new(),
                front_proxy_ca_pem: String::new(),
                version: "v1.36.0+sim".to_owned(),
            },
        })
    }

    /// The link to the record, cut or mended. A server that is off has none.
    pub fn cut(&self, cut: bool) {
        let wanted = if cut { Link::Down } else { Link::Up };
        self.link.send_if_modified(|link| {
            let changes = *link != Link::Closed && *link != wanted;
            if changes {
                *link = wanted;
            }
            changes
        });
    }

    /// As `kill -9`: from this moment on nothing of it has any effect.
    pub fn kill(&mut self) {
        let Some(mut alive) = self.alive.take() else { return };
        self.door.close();
        self.link.send_replace(Link::Closed);
        alive.tasks.abort_all();
        alive.drain.cancel();
    }
}
