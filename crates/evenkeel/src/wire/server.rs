//! `evenkeel server`: everything on this machine, started in the order of the architecture and drained in reverse.
//!
//! Data lock -> authorities -> signing keys -> encryption keys -> engine -> bootstrap objects -> listen -> node and loops.
//! /readyz depends on no loop. SIGTERM drains and exits; pods, links and containerd stay.

mod open;
mod running;
mod shown;
mod work;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base::{Clock, SmolStr};
use reconcile::Health;
use tokio::sync::watch;
use view::Client;

use self::running::Running;
use super::apiserver::Tls;
use super::etcd;
use super::join::messages::ClusterSettings;
use super::join::registrar::{Applicant, Registrar};
use super::joining::{Joiner, Joining};
use super::keeper::{self, Keeping};
use super::manifests::Edited;
use super::restart::Restart;
use super::{SystemClock, backup, host, join, pid, recover};
use crate::cli::ServerArgs;
use crate::layout::Layout;
use crate::pki::{Lineage, MachineKey, Role, ServerNames, ServerPki};

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

    fn joiner(&self) -> Joiner<'_> {
        Joiner { layout: &self.layout, name: &self.name, addresses: &self.addresses, key: &self.machine }
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
