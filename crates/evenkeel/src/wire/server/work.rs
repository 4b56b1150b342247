//! What works through the API once it is there: loops, scheduler, manifests, the node of this machine, and the parts that
//! go along when keys change.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use api::Registry;
use base::Clock;
use reconcile::{Health, Leader, LeaderConfig, Recorder};
use tokio::sync::watch;
use tokio::task::JoinSet;
use view::{Drain, Endpoint};

use super::Setup;
use crate::pki::{ServerPki, hash_of_ca};
use crate::wire::endpoints::KnownServers;
use crate::wire::etcd::Managed;
use crate::wire::keeper::Keeping;
use crate::wire::manifests::{Edits, MANAGER, Manifests};
use crate::wire::node::{self, NodeTls};
use crate::wire::rotation::Rotating;
use crate::wire::rotation::encryption::Rekeying;
use crate::wire::{SystemClock, backup, controllers, inprocess, schedule, signer, vip};

/// The kinds that are served now.
type Kinds = Arc<dyn Fn() -> Arc<Registry> + Send + Sync>;

impl Setup {
    pub(super) fn start_loops(
        &self,
        server: &::apiserver::Server,
        tasks: &mut JoinSet<()>,
        health: watch::Sender<Health>,
        drain: &Drain,
    ) -> watch::Receiver<bool> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let client = inprocess::client(server, "system:kube-controller-manager", "kube-controller-manager");
        let identity = format!("{}_{}", self.name, &hash_of_ca(&self.pki.current().client.pem)[..8]);
        let config = LeaderConfig::new("kube-controller-manager", &identity);
        let (leader, leading) = Leader::new(config, client.clone(), clock.clone());
        let leadership = leader.leadership();
        tasks.spawn(leader.run(drain.clone()));
        let registry: Kinds = {
            let server = server.clone();
            Arc::new(move || server.registry())
        };
        let loops = controllers::Parts {
            client,
            clock: clock.clone(),
            config: self.controllers_config(),
            registry: registry.clone(),
            leadership: leadership.clone(),
            signer: Some(Arc::new(signer::PkiSigner(self.pki.clone()))),
        };
        let controllers = controllers::build(loops, drain);
        tasks.spawn(follow_root_ca(self.pki.clone(), controllers.root_ca(), drain.clone()));
        let client = inprocess::client(server, "system:kube-scheduler", "kube-scheduler");
        let (scheduler, scheduling) = schedule::driver(client, clock, leadership, &self.name, drain);
        health.send_replace(controllers.health.and(scheduling));
        tasks.spawn(controllers.driver.run(drain.clone()));
        tasks.spawn(controllers.kinds.run(drain.clone()));
        tasks.spawn(scheduler.run(drain.clone()));
        self.start_manifests(server, registry, tasks, drain);
        // Readers of health outlive this function.
        let drain = drain.clone();
        tasks.spawn(async move {
            drain.cancelled().await;
            drop(health);
        });
        leading
    }

    pub(super) fn start_manifests(
        &self,
        server: &::apiserver::Server,
        registry: Kinds,
        tasks: &mut JoinSet<()>,
        drain: &Drain,
    ) {
        let client = inprocess::administrator(server, MANAGER);
        let (recorder, events) = Recorder::new(client.clone(), Arc::new(SystemClock), &self.name);
        let events = events.for_component("evenkeel");
        let edits = Edits { policy: self.args.node.drift_policy, told: self.edited.clone() };
        let from = (events, self.name.as_str());
        let manifests = Manifests::new(&self.layout, &self.args.disable, client, registry, from, edits);
        tasks.spawn(recorder.run(drain.clone()));
        tasks.spawn(manifests.run(drain.clone()));
    }

    pub(super) fn controllers_config(&self) -> ::controllers::Config {
        ::controllers::Config {
            cluster_cidrs: self.args.cluster_cidr.iter().map(Into::into).collect(),
            root_ca: self.pki.current().server.pem.clone(),
            local_path: self.cluster.local_path.as_ref().map(|path| path.display().to_string().into()),
            service_load_balancer: self.args.enables("servicelb"),
            ..::controllers::Config::default()
        }
    }

    pub(super) fn start_virtual_address(
        &self,
        server: &::apiserver::Server,
        tasks: &mut JoinSet<()>,
        drain: &Drain,
    ) -> Result<()> {
        let Some(address) = self.args.virtual_address else { return Ok(()) };
        let client = inprocess::administrator(server, "evenkeel-virtual-address");
        let own = Endpoint::new(&self.own_address().to_string(), self.args.https_listen_port);
        vip::start(address, &self.name, client, own, (self.pki.clone(), &self.layout), tasks, drain)
    }

    /// Starts the node of this machine, if there is to be one.
    pub(super) fn start_node(
        &self,
        keeping: &Keeping,
        tasks: &mut JoinSet<()>,
        drain: &Drain,
    ) -> Result<Option<NodeTls>> {
        if self.args.disable_agent {
            return Ok(None);
        }
        let identity = self.node_identity()?;
        let tls = NodeTls::new(&identity)?;
        let own = Endpoint::new(&self.own_address().to_string(), self.args.https_listen_port);
        let parts = node::Parts {
            args: self.args.node.clone(),
            layout: self.layout.clone(),
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            cluster: self.cluster.clone(),
            known: KnownServers::new(&self.layout, &self.name, Some(&own), None),
            config: self.args.common.config.clone(),
            disable: self.args.disable.clone(),
            extension: Some(keeping.node.clone()),
            edited: Some(self.edited.subscribe()),
        };
        tasks.spawn(node::persist(parts, tls.clone(), drain.clone()));
        Ok(Some(tls))
    }

    /// What makes this server go along when the authorities change.
    pub(super) fn rotating(
        &self,
        server: &::apiserver::Server,
        etcd: Option<&Managed>,
        effect: watch::Receiver<String>,
    ) -> Rotating {
        Rotating {
            name: self.name.clone(),
            layout: self.layout.clone(),
            pki: self.pki.clone(),
            server: server.clone(),
            client: inprocess::administrator(server, "evenkeel-authorities"),
            etcd: etcd.cloned(),
            effect,
        }
    }

    /// The same for the key of Secrets at rest.
    pub(super) fn rekeying(&self, server: &::apiserver::Server) -> Rekeying {
        let client = inprocess::administrator(server, "evenkeel-encryption");
        Rekeying::new(&self.name, &self.layout, server.store().clone(), client)
    }

    /// Who this server is, for the copies of backups that servers fetch from each other.
    pub(super) fn me(&self) -> backup::Me {
        let port = self.args.https_listen_port;
        let own = self.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).chain([self.advertise()]).collect();
        backup::Me { name: self.name.clone(), pki: self.pki.clone(), own }
    }
}

/// Has the loops publish the authorities as they change.
async fn follow_root_ca(pki: Arc<ServerPki>, publish: impl Fn(&str) + Send, drain: Drain) {
    let mut changes = pki.changes();
    while let Some(Ok(())) = drain.run_until_cancelled(changes.changed()).await {
        publish(&pki.current().server.pem);
    }
}
