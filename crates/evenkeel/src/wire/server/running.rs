//! A server from its first listening socket to its drained end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::{Chain, Clock, SmolStr};
use jiff::SignedDuration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};
use view::{Client, Drain};

use super::{Beside, Opened, Setup};
use crate::wire::apiserver::Tls;
use crate::wire::etcd::{self, Managed};
use crate::wire::keeper::Keeping;
use crate::wire::node::NodeTls;
use crate::wire::presence::{Presence, living};
use crate::wire::restart::Restart;
use crate::wire::signals::Signals;
use crate::wire::silence::Silence;
use crate::wire::{RENEWAL_RETRY, SystemClock, backup, control_plane, join, joining, recover, renewal_pause};

/// Everything has this long to drain before the process ends anyway.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// From the moment that a server leaves the lists until it takes no connection any more: nodes have read them by then, and
/// clients that ask at all have asked.
const LEAVE_TIME: Duration = Duration::from_secs(2);
/// Another server counts while its lease is not older than this by the clocks.
const OTHERS_FRESH: SignedDuration = SignedDuration::from_secs(15);
/// Nobody is waited for to know this.
const OTHERS_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections that wait to be taken.
const BACKLOG: u32 = 1024;

const _: () = assert!(LEAVE_TIME.as_secs() < DRAIN_TIMEOUT.as_secs());

/// What runs, and how it is ended: what works first, then the API that it works through.
pub struct Running {
    setup: Arc<Setup>,
    server: ::apiserver::Server,
    client: Client,
    signals: Signals,
    /// Machines that were removed: this one may come to be among them.
    removed: watch::Receiver<BTreeSet<SmolStr>>,
    work: Drain,
    tasks: JoinSet<()>,
    api: Drain,
    serving: JoinSet<()>,
}

// === impl Running ===

impl Running {
    pub async fn start(setup: Arc<Setup>, state: etcd::Opened, restart: &Restart) -> Result<Running> {
        let beside = Beside {
            backups: backup::Wiring::new(&setup.args, &setup.layout)?,
            keeping: Keeping::new(&setup.layout, restart.clone())?,
            restart: restart.clone(),
        };
        let (work, mut tasks) = (Drain::new(), JoinSet::new());
        let managed = state.etcd.map(|running| etcd::attend(running, &mut tasks, &work)).transpose()?;
        let opened = setup.open((state.engine, state.kind), managed.as_ref(), &beside).await?;
        let port = setup.take_port()?;
        opened.server.bootstrap().await.context("write the bootstrap objects")?;
        setup.register(&opened.client).await?;
        let client = opened.client.clone();
        let signals = Signals::new().context("receive signals")?;
        let (api, mut serving) = (Drain::new(), JoinSet::new());
        // Who finds the port closed asks another server at once; only who can be answered is let in, and only then called.
        let listener = port.listen(BACKLOG).context("listen")?;
        serving.spawn(serve(opened.server.clone(), listener, opened.tls.source(), api.clone()));
        let mut presence = Presence::new(client.clone(), &setup.name, setup.advertise(), Arc::new(SystemClock));
        presence.turn().await.context("say where this server is")?;
        setup.write_kubeconfig()?;
        info!(url = %setup.kubeconfig_url(), kubeconfig = %setup.kubeconfig_path().display(), "the API is up");
        tasks.spawn(presence.run(work.clone()));
        let removed = opened.revoked.subscribe();
        let server = opened.server.clone();
        let mut running = Running { setup, server, client, signals, removed, work, tasks, api, serving };
        running.start_work(opened, beside, managed)?;
        Ok(running)
    }

    /// Everything that works through the API.
    fn start_work(&mut self, opened: Opened, beside: Beside, managed: Option<Managed>) -> Result<()> {
        let Opened { server, tls, health, revoked, client } = opened;
        let (setup, tasks, work) = (self.setup.clone(), &mut self.tasks, &self.work);
        tasks.spawn({
            let (server, work) = (server.clone(), work.clone());
            async move { server.run(work.cancelled()).await }
        });
        let leading = setup.start_loops(&server, tasks, health, work);
        let silence = Silence { client: client.clone(), pki: setup.pki.clone(), leading: leading.clone() };
        tasks.spawn(silence.run(work.clone()));
        beside.backups.start(&server, setup.me(), leading, tasks, work);
        setup.start_virtual_address(&server, tasks, work)?;
        let identity = setup.start_node(&beside.keeping, tasks, work)?;
        let parts = setup.keeper_parts(&server, &beside.keeping, &tls, managed.clone());
        beside.keeping.start(parts, identity.is_some(), tasks, work);
        if identity.is_some() {
            tasks.spawn(control_plane::label(client.clone(), setup.name.clone(), work.clone()));
        }
        follow(client, managed.as_ref(), revoked, tasks, work);
        let (effect, in_effect) = watch::channel(String::new());
        tasks.spawn(setup.rotating(&server, managed.as_ref(), in_effect).run(work.clone()));
        tasks.spawn(setup.rekeying(&server).run(work.clone()));
        tasks.spawn(renew(setup, (tls, identity, managed), effect, work.clone()));
        Ok(())
    }

    /// Returns when somebody asks for the end, or when it has come; with the reason where this server may not go on.
    pub async fn until_asked(&mut self, restart: &Restart) -> Option<anyhow::Error> {
        let joiner = self.setup.joiner();
        tokio::select! {
            () = self.signals.received() => {}
            why = joining::refused(&joiner, self.removed.clone()) => return Some(why),
            () = restart.requested() => info!("starting again"),
            // A drain writes, and without a quorum each write only times out.
            () = recover::asked(&self.setup.layout) => {
                return Some(anyhow::Error::from(restart.execute()).context("execute this program again"));
            }
            _ = self.serving.join_next() => error!("the API server ended"),
        }
        None
    }

    /// Whether there are servers that whoever asks here could ask.
    async fn has_others(&self) -> bool {
        let living = living(&self.client, SystemClock.now(), OTHERS_FRESH);
        let found = tokio::time::timeout(OTHERS_TIMEOUT, living).await;
        found.is_ok_and(|found| found.is_ok_and(|found| found.iter().any(|(name, _)| *name != self.setup.name)))
    }

    /// What works ends first. Where there are other servers, the API goes on for a while after everybody was told to ask
    /// those, so that nobody is cut off.
    pub async fn drain(mut self) {
        info!("draining; pods keep running");
        let drained = async {
            let has_others = self.has_others().await;
            let begun = Instant::now();
            self.server.leave();
            self.work.cancel();
            while self.tasks.join_next().await.is_some() {}
            if has_others {
                tokio::time::sleep_until(begun + LEAVE_TIME).await;
            }
            self.api.cancel();
            while self.serving.join_next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            warn!("the drain took longer than {} s", DRAIN_TIMEOUT.as_secs());
        }
    }
}

/// What this server learns of the cluster as it goes: who was removed, and the other members of its etcd.
fn follow(
    client: Client,
    managed: Option<&Managed>,
    revoked: watch::Sender<BTreeSet<SmolStr>>,
    tasks: &mut JoinSet<()>,
    drain: &Drain,
) {
    tasks.spawn(join::revocations(client, revoked, drain.clone()));
    if let Some(managed) = managed {
        tasks.spawn(joining::follow_members(managed.clone(), drain.clone()));
    }
}

async fn serve(server: ::apiserver::Server, listener: TcpListener, tls: ::apiserver::TlsSource, drain: Drain) {
    server.serve(listener, tls, async move { drain.cancelled().await }).await;
}

/// Issues again what is due or of another authority, without a restart, and tells which authority is in effect.
/// Connections that are open keep what they were made with.
async fn renew(
    setup: Arc<Setup>,
    (tls, node, etcd): (Tls, Option<NodeTls>, Option<Managed>),
    effect: watch::Sender<String>,
    drain: Drain,
) {
    let mut changes = setup.pki.changes();
    loop {
        changes.mark_unchanged();
        let trust = setup.pki.current().trust();
        let pause = match setup.renew(&tls, node.as_ref(), etcd.as_ref()) {
            Ok(due) => {
                effect.send_replace(trust);
                renewal_pause(due, SystemClock.now())
            }
            Err(failure) => {
                error!(error = %Chain(failure.as_ref()), "certificates were not renewed");
                RENEWAL_RETRY
            }
        };
        // It changes as long as this server lives.
        let sooner = tokio::time::timeout(pause, changes.changed());
        if drain.run_until_cancelled(sooner).await.is_none() {
            return;
        }
    }
}
