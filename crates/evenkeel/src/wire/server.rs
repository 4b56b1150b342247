//! `evenkeel server`: everything on this machine, started in the order of the architecture and drained in reverse.
//!
//! Data lock -> authorities -> signing keys -> encryption keys -> engine -> bootstrap objects -> listen -> node and loops.
//! /readyz depends on no loop. SIGTERM drains and exits; pods, links and containerd stay.

mod running;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use api::Registry;
use base::{Chain, Clock, SmolStr};
use jiff::Timestamp;
use reconcile::{Health, Leader, LeaderConfig, Recorder};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;
use view::{Client, Drain, Endpoint};

use self::running::Running;
use super::agreed::ClusterFlags;
use super::apiserver::{self as parts, Tls};
use super::endpoints::KnownServers;
use super::etcd::{self, DatastorePath, EngineKind, Managed};
use super::extensions::Extensions;
use super::facts::FactsPath;
use super::join::messages::ClusterSettings;
use super::join::registrar::{Applicant, Registrar};
use super::join::server::Side;
use super::join::{self, Join};
use super::joining::{Joiner, Joining};
use super::keeper::{self, Keeping};
use super::manifests::{Edited, Edits, MANAGER, Manifests};
use super::node::{self, NodeTls};
use super::replace::FencePath;
use super::restart::Restart;
use super::rotation::encryption::{EncryptionPath, Rekeying};
use super::rotation::{self, AuthoritiesPath, Rotating};
use super::{SystemClock, backup, controllers, host, inprocess, keyring, pid, recover, schedule, signer, vip};
use crate::cli::ServerArgs;
use crate::layout::Layout;
use crate::pki::{
    self, Access, Kubeconfig, Lineage, MachineKey, NodeIdentity, Role, ServerNames, ServerPki, hash_of_ca,
};

/// The kinds that are served now.
type Kinds = Arc<dyn Fn() -> Arc<Registry> + Send + Sync>;

/// A server that is about to run: what its parts share.
struct Setup {
    args: ServerArgs,
    layout: Layout,
    name: String,
    addresses: Vec<IpAddr>,
    machine: MachineKey,
    pki: Arc<ServerPki>,
    names: ServerNames,
    cluster: ClusterSettings,
    /// Objects of the deploy folder that were changed in the cluster.
    edited: watch::Sender<Vec<Edited>>,
}

/// What works beside the API on this server, with paths of its own.
struct Beside {
    backups: backup::Wiring,
    keeping: Keeping,
    restart: Restart,
}

/// The state opened and the API server put together; nothing listens yet.
struct Opened {
    server: ::apiserver::Server,
    tls: Tls,
    health: watch::Sender<Health>,
    revoked: watch::Sender<BTreeSet<SmolStr>>,
    /// The program's own way in.
    client: Client,
}

pub async fn run(args: ServerArgs) -> Result<()> {
    etcd::check_flags(&args.datastore, args.cluster_init)?;
    let restart = Restart::of_this_process().context("find this program")?;
    let layout = args.common.layout();
    keeper::boot::choose(&layout)?;
    let _lock = store::DataLock::acquire(&layout.server()).context("is this server running already?")?;
    ensure!(!layout.restoring().exists(), "a restore into {} did not end; run it again", layout.data.display());
    layout.make().with_context(|| format!("prepare {}", layout.data.display()))?;
    pid::note(&layout)?;
    let (setup, state) = settle(args, layout.clone(), &restart).await?;
    let mut running = Running::start(Arc::new(setup), state, &restart).await?;
    let refusal = running.until_asked(&restart).await;
    running.drain().await;
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    if restart.is_requested() {
        keeper::boot::leave(&layout, &restart)?;
    }
    Ok(())
}

/// What this server is made of and where its state is; where it is to join others, after it has.
async fn settle(mut args: ServerArgs, layout: Layout, restart: &Restart) -> Result<(Setup, etcd::Opened)> {
    let joining = enter(&mut args, &layout).await?;
    let setup = Setup::prepare(args, layout)?;
    setup.settle(joining).await?;
    let state = setup.state(restart).await?;
    Ok((setup, state))
}

/// Takes what is the cluster's where this server is to join one.
async fn enter(args: &mut ServerArgs, layout: &Layout) -> Result<Option<Joining>> {
    let (name, addresses) = (host::node_name(&args.node)?, host::node_addresses(&args.node)?);
    let key = MachineKey::load_or_draw(&layout.machine_key()).context("the key of this machine")?;
    let joiner = Joiner { layout, name: &name, addresses: &addresses, key: &key };
    // Before its member starts: one that was removed would only wait for others that do not know it.
    if let Some(refusal) = joiner.refusal().await {
        return Err(refusal);
    }
    joiner.enter(args).await
}

// === impl Setup ===

impl Setup {
    /// Files only: nothing listens yet.
    fn prepare(args: ServerArgs, layout: Layout) -> Result<Setup> {
        let name = host::node_name(&args.node)?;
        let addresses = host::node_addresses(&args.node)?;
        let service_address = nth_address(args.service_cidr.first().context("--service-cidr is empty")?, 1)?;
        let dns = match args.cluster_dns {
            Some(address) => address,
            None => nth_address(&args.service_cidr[0], 10)?,
        };
        let cluster = ClusterSettings {
            cluster_cidrs: args.cluster_cidr.clone(),
            service_cidrs: args.service_cidr.clone(),
            cluster_dns: vec![dns],
            cluster_domain: args.cluster_domain.clone(),
            local_path: args.enables("local-storage").then(|| args.local_storage()),
        };
        let mut own = addresses.clone();
        own.extend(args.node.node_external_ip.iter().copied().chain(args.advertise_address).chain([args.bind_address]));
        own.extend(args.virtual_address.map(|net| net.addr()));
        let names = ServerNames::new(&args.cluster_domain, service_address, &own, &name, &args.tls_san);
        let pki = Arc::new(
            ServerPki::load_or_make(&layout, args.certificate_lifetime, SystemClock.now())
                .context("prepare the authorities")?,
        );
        let machine = MachineKey::load_or_draw(&layout.machine_key()).context("the key of this machine")?;
        let edited = watch::Sender::new(Vec::new());
        Ok(Setup { args, layout, name, addresses, machine, pki, names, cluster, edited })
    }

    /// Makes this server's member what was decided that it is: its cluster's only one, or a member beside others.
    async fn settle(&self, joining: Option<Joining>) -> Result<()> {
        recover::take_up(&self.etcd()).await.context("recover the quorum")?;
        match joining {
            Some(joining) => joining.become_member(self.etcd()).await.context("join the cluster's etcd"),
            None => Ok(()),
        }
    }

    /// Where the state is, and the etcd that holds it if that is this server's own.
    async fn state(&self, restart: &Restart) -> Result<etcd::Opened> {
        tokio::select! {
            state = etcd::open(&self.args.datastore, self.args.cluster_init, self.etcd()) => state,
            // It waits for others that will not come.
            () = recover::asked(&self.layout) => Err(restart.execute()).context("execute this program again"),
        }
    }

    fn etcd(&self) -> etcd::Settings {
        etcd::Settings {
            layout: self.layout.clone(),
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            pki: self.pki.clone(),
            arguments: self.args.etcd_arg.clone(),
        }
    }

    /// Reads the state and puts the API server together.
    async fn open(
        &self,
        (engine, kind): (Arc<dyn store::Engine>, EngineKind),
        managed: Option<&Managed>,
        beside: &Beside,
    ) -> Result<Opened> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store =
            store::Store::open(engine, keyring(&self.layout)?, clock.clone()).await.context("read the state")?;
        rotation::catch_up(&store, &self.pki).context("go along with the cluster's authorities")?;
        let tls = Tls::new(self.pki.clone(), self.names.clone(), &SystemClock)?;
        let authorities = Arc::new(AuthoritiesPath::new(self.pki.clone()));
        let encryption = Arc::new(EncryptionPath::new(&self.layout, &self.pki.current().cluster[..12]));
        let join = Arc::new(Join::new(&self.layout, self.pki.clone(), self.cluster.clone(), clock, store.clone()));
        let (revoked, revocations) = watch::channel(BTreeSet::new());
        let (health, healthy) = watch::channel(Health::default());
        let made = parts::Parts {
            store,
            pki: self.pki.clone(),
            extension: Arc::new(Extensions(vec![
                join.clone(),
                Arc::new(FactsPath { layout: self.layout.clone(), config: self.args.common.config.clone() }),
                Arc::new(FencePath { own: self.name.clone() }),
                authorities.clone(),
                encryption.clone(),
                Arc::new(DatastorePath { settings: self.etcd(), kind, restart: beside.restart.clone() }),
                beside.backups.paths(),
                beside.keeping.slot.clone(),
            ])),
            revoked: revocations,
            nodes: tls.proxy()?,
            advertise: self.advertise(),
            health: healthy,
            checks: managed.map(Managed::check).into_iter().collect(),
            loops: controllers::names(&self.controllers_config()),
        };
        let server = parts::build(&self.args, &self.layout, made)?;
        let client = inprocess::administrator(&server, "evenkeel");
        join.attach(client.clone(), self.side(kind, managed, &beside.restart));
        authorities.client.get_or_init(|| client.clone());
        encryption.client.get_or_init(|| client.clone());
        Ok(Opened { server, tls, health, revoked, client })
    }

    fn joiner(&self) -> Joiner<'_> {
        Joiner { layout: &self.layout, name: &self.name, addresses: &self.addresses, key: &self.machine }
    }

    /// What this server gives to others that join.
    fn side(&self, kind: EngineKind, managed: Option<&Managed>, restart: &Restart) -> Side {
        Side {
            settings: self.etcd(),
            kind,
            etcd: managed.cloned(),
            restart: restart.clone(),
            shared: ClusterFlags::of(&self.args),
        }
    }

    /// What the keeper reaches the cluster through.
    fn keeper_parts(
        &self,
        server: &::apiserver::Server,
        keeping: &Keeping,
        tls: &Tls,
        etcd: Option<Managed>,
    ) -> keeper::coordinator::Parts {
        keeper::coordinator::Parts {
            name: self.name.clone(),
            cluster: self.pki.current().cluster[..12].to_owned(),
            layout: self.layout.clone(),
            config: self.args.common.config.clone(),
            client: inprocess::administrator(server, "evenkeel-keeper"),
            agents: keeper::Agents { tls: tls.kubelets() },
            node: keeping.node.clone(),
            backup: keeping.bundles(server.store().clone(), &self.name),
            etcd,
        }
    }

    /// What the cluster is to know of this machine: its key, and the token that others join with.
    async fn register(&self, client: &Client) -> Result<()> {
        let now = SystemClock.now();
        let registrar = Registrar::new(client.clone());
        let machine = self.machine.id();
        let own = Applicant { node: &self.name, machine: &machine, role: Role::Server, addresses: &self.addresses };
        registrar.register_own(own, now).await?;
        // A server that joined keeps the token that the servers share.
        let joined = self.layout.shared_flags().exists();
        let given = if joined { (None, None) } else { (self.args.token.as_deref(), self.args.token_file.as_deref()) };
        let (ca_pem, lineage) = (self.pki.current().server.pem.clone(), Lineage::of(&self.layout.server_tls())?);
        join::own_token(&registrar.records, &self.layout.token(), given, (&ca_pem, &lineage), now).await?;
        recover::finish(&self.layout, &self.name, client, now).await.context("go on alone")
    }

    /// Nobody else can have the port from here on; who connects is refused until there is somebody to answer.
    fn take_port(&self) -> Result<TcpSocket> {
        let wanted = SocketAddr::new(self.args.bind_address, self.args.https_listen_port);
        match bound(wanted) {
            Ok(socket) => Ok(socket),
            // A machine without IPv6 has no `::`.
            Err(error) if wanted.ip().is_unspecified() && error.raw_os_error() == Some(AFNOSUPPORT) => {
                let four = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), wanted.port());
                bound(four).with_context(|| format!("listen on {four}"))
            }
            Err(error) => Err(error).with_context(|| format!("listen on {wanted}")),
        }
    }

    fn start_loops(
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

    /// Who this server is, for the copies of backups that servers fetch from each other.
    fn me(&self) -> backup::Me {
        let port = self.args.https_listen_port;
        let own = self.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).chain([self.advertise()]).collect();
        backup::Me { name: self.name.clone(), pki: self.pki.clone(), own }
    }

    fn start_manifests(&self, server: &::apiserver::Server, registry: Kinds, tasks: &mut JoinSet<()>, drain: &Drain) {
        let client = inprocess::administrator(server, MANAGER);
        let (recorder, events) = Recorder::new(client.clone(), Arc::new(SystemClock), &self.name);
        let events = events.for_component("evenkeel");
        let edits = Edits { policy: self.args.node.drift_policy, told: self.edited.clone() };
        let from = (events, self.name.as_str());
        let manifests = Manifests::new(&self.layout, &self.args.disable, client, registry, from, edits);
        tasks.spawn(recorder.run(drain.clone()));
        tasks.spawn(manifests.run(drain.clone()));
    }

    fn controllers_config(&self) -> ::controllers::Config {
        ::controllers::Config {
            cluster_cidrs: self.args.cluster_cidr.iter().map(Into::into).collect(),
            root_ca: self.pki.current().server.pem.clone(),
            local_path: self.cluster.local_path.as_ref().map(|path| path.display().to_string().into()),
            service_load_balancer: self.args.enables("servicelb"),
            ..::controllers::Config::default()
        }
    }

    fn start_virtual_address(
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

    /// Where this machine reaches its own server.
    fn own_address(&self) -> IpAddr {
        let bound = self.args.bind_address;
        if bound.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bound }
    }

    /// What makes this server go along when the authorities change.
    fn rotating(
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
    fn rekeying(&self, server: &::apiserver::Server) -> Rekeying {
        Rekeying {
            name: self.name.clone(),
            layout: self.layout.clone(),
            store: server.store().clone(),
            client: inprocess::administrator(server, "evenkeel-encryption"),
            settled: None,
        }
    }

    /// Starts the node of this machine, if there is to be one.
    fn start_node(&self, keeping: &Keeping, tasks: &mut JoinSet<()>, drain: &Drain) -> Result<Option<NodeTls>> {
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
        let running = node::run(parts, tls.clone(), drain.clone());
        tasks.spawn(async move {
            // The API goes on without the node: `status` says what is wrong with it.
            if let Err(failure) = running.await {
                error!(error = %Chain(failure.as_ref()), "the node of this machine did not start");
            }
        });
        Ok(Some(tls))
    }

    fn node_identity(&self) -> Result<NodeIdentity> {
        let addresses: BTreeSet<IpAddr> =
            self.addresses.iter().chain(&self.args.node.node_external_ip).copied().collect();
        let made = NodeIdentity::of_server(&self.layout, &self.pki, &self.name, &addresses, SystemClock.now());
        Ok(made.context("certificates of the node")?.0)
    }

    fn advertise(&self) -> SocketAddr {
        let address = self.args.advertise_address.unwrap_or(self.addresses[0]);
        SocketAddr::new(address, self.args.https_listen_port)
    }

    /// This machine's own kubeconfig names the loopback, unless the operator said which address is the right one.
    fn kubeconfig_url(&self) -> String {
        let named = self.args.advertise_address.is_some() || !self.args.node.node_ip.is_empty();
        let bound = Some(self.args.bind_address).filter(|address| !address.is_unspecified());
        let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.args.https_listen_port);
        let address =
            if named { self.advertise() } else { bound.map_or(loopback, |ip| SocketAddr::new(ip, loopback.port())) };
        format!("https://{address}")
    }

    fn kubeconfig_path(&self) -> PathBuf {
        self.args.write_kubeconfig.clone().unwrap_or_else(|| self.layout.kubeconfig())
    }

    /// Issues what is due of everything this process shows to others; answers when the first of it is due next.
    fn renew(&self, tls: &Tls, node: Option<&NodeTls>, etcd: Option<&Managed>) -> Result<Timestamp> {
        let mut due = tls.renew(&SystemClock)?.min(self.write_kubeconfig()?);
        if let Some(etcd) = etcd {
            due = due.min(etcd.renew(SystemClock.now())?);
        }
        if let Some(node) = node {
            let identity = self.node_identity()?;
            node.renew(&identity)?;
            due = due.min(identity.due());
        }
        Ok(due)
    }

    /// Answers when the certificate in it is due.
    fn write_kubeconfig(&self) -> Result<Timestamp> {
        let text = self.args.write_kubeconfig_mode.trim_start_matches("0o");
        let mode = u32::from_str_radix(text, 8).context("--write-kubeconfig-mode is octal: 0600")?;
        let (admin, _) = self.pki.admin(SystemClock.now())?;
        let config = Kubeconfig::new(&self.kubeconfig_url(), &self.pki.current().server.pem, &admin);
        let text = config.render("default");
        for path in BTreeSet::from([self.kubeconfig_path(), self.own_kubeconfig()]) {
            let has_mode = fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o7777 == mode);
            if !has_mode || pki::read(&path)?.as_deref() != Some(text.as_str()) {
                pki::write(&path, text.as_bytes(), Access::Mode(mode))?;
            }
        }
        Ok(admin.due())
    }

    /// Where this program's own commands look, whatever was asked for.
    fn own_kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }
}

/// Has the loops publish the authorities as they change.
async fn follow_root_ca(pki: Arc<ServerPki>, publish: impl Fn(&str) + Send, drain: Drain) {
    let mut changes = pki.changes();
    while let Some(Ok(())) = drain.run_until_cancelled(changes.changed()).await {
        publish(&pki.current().server.pem);
    }
}

/// `EAFNOSUPPORT`.
const AFNOSUPPORT: i32 = 97;

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The address number `n` of a range.
fn nth_address(range: &str, n: u8) -> Result<IpAddr> {
    let (base, _) = range.split_once('/').with_context(|| format!("{range:?} is not a range of addresses"))?;
    let base: IpAddr = base.parse().with_context(|| format!("{range:?} is not a range of addresses"))?;
    Ok(match base {
        IpAddr::V4(four) => IpAddr::V4((u32::from(four) + u32::from(n)).into()),
        IpAddr::V6(six) => IpAddr::V6((u128::from(six) + u128::from(n)).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::nth_address;

    #[test]
    fn well_known_addresses_follow_from_the_range() {
        assert_eq!(nth_address("10.43.0.0/16", 1).unwrap().to_string(), "10.43.0.1");
        assert_eq!(nth_address("fd00:43::/112", 10).unwrap().to_string(), "fd00:43::a");
        assert!(nth_address("10.43.0.0", 1).is_err());
    }
}
