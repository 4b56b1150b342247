//! A virtual address: one address for people and their tools, on whichever server holds a lease.
//!
//! [`core`] decides. The driver here asks and writes the lease through the API like everybody, puts the address on the
//! link that has its subnet and tells the segment. Nothing of the cluster itself depends on the address.

mod core;
mod frames;
mod segment;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key, Snapshot, Tree};
use base::{Chain, Clock};
use futures::future::{BoxFuture, FutureExt};
use ipnet::IpNet;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::sync::watch;
use view::{Client, ClientError, Drain, View, Watched};

use self::core::{Core, Effect, Input, LEASE, Lease, Probe, State};
use crate::link::hardware_text;
use segment::Segment;

/// The state machine looks at the time this often: a part of what its times differ by.
const TICK: Duration = Duration::from_millis(200);
/// An answer that takes longer is of no use to a holder.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What the holder of an address needs to know.
#[derive(Clone, Debug)]
pub struct VirtualAddress {
    /// As it is put on the link.
    pub address: IpNet,
    /// The lease that decides.
    pub lease: Key,
    /// This server, by a name that no other has.
    pub identity: String,
}

/// Where the address is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VipStatus {
    #[default]
    Starting,
    /// Another server has it, or nobody does yet.
    Elsewhere { holder: String },
    /// Here; also answered for by a machine that should not.
    Here { contested_by: Option<String> },
    /// Not taken: a machine that does not hold the lease answers for it.
    Blocked { by: String },
    /// Not taken: no link of this machine has its subnet.
    NoLink,
}

/// Takes and gives up the address, until drain.
pub struct Vip {
    config: VirtualAddress,
    client: Client,
    clock: Arc<dyn Clock>,
    /// Whether this server's API serves.
    ready: watch::Receiver<bool>,
    status: watch::Sender<VipStatus>,
    core: Core,
    segment: Segment,
    lease: Option<Tree>,
    time: Time,
}

/// What is on its way: at most one question and one write.
#[derive(Default)]
struct Work {
    probe: Option<BoxFuture<'static, Probe>>,
    write: Option<BoxFuture<'static, Result<Tree, ClientError>>>,
    /// Whom the write names as the holder.
    writes: String,
    /// Whom the next one will, when that has come back.
    next: Option<String>,
}

// === impl Vip ===

impl Vip {
    pub fn new(config: VirtualAddress, client: &Client, clock: Arc<dyn Clock>, ready: watch::Receiver<bool>) -> Vip {
        let (core, segment) = (Core::new(&config.identity), Segment::new(config.address));
        let (client, status) = (client.clone().with_timeout(REQUEST_TIMEOUT), watch::Sender::default());
        let time = Time::new(&*clock);
        Vip { config, client, clock, ready, status, core, segment, lease: None, time }
    }

    pub fn status(&self) -> watch::Receiver<VipStatus> {
        self.status.subscribe()
    }

    pub async fn run(mut self, drain: Drain) {
        // What an earlier process left: until the lease is ours the address is somebody else's.
        self.segment.take_off().await;
        let name = &self.config.lease;
        let watched = Watched::all(leases(), &[])
            .in_namespace(&name.namespace)
            .with_fields(&format!("metadata.name={}", name.name));
        let view = View::start(&self.client, vec![watched], &drain);
        let mut snapshots = view.subscribe();
        let mut work = Work::default();
        let ready = *self.ready.borrow_and_update();
        self.step(Input::Ready(ready), &mut work).await;
        loop {
            let input = tokio::select! { biased;
                () = drain.cancelled() => break,
                written = pending(&mut work.write) => self.concluded(written, &mut work),
                probe = pending(&mut work.probe) => Input::Probed(probe),
                Ok(()) = self.ready.changed() => Input::Ready(*self.ready.borrow_and_update()),
                Ok(()) = snapshots.changed() => {
                    let snapshot = snapshots.borrow_and_update().clone();
                    if self.shown(&snapshot) { self.seen() } else { Input::Tick }
                }
                () = tokio::time::sleep(TICK) => Input::Tick,
            };
            self.step(input, &mut work).await;
        }
        self.step(Input::Stop, &mut work).await;
        let released = async {
            while work.write.is_some() {
                let written = pending(&mut work.write).await;
                self.concluded(written, &mut work);
            }
        };
        // What is not released in time expires.
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, released).await;
    }

    async fn step(&mut self, input: Input, work: &mut Work) {
        let mut effects = Vec::new();
        let now = self.time.now(&*self.clock);
        self.core.step(input, now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Put(time) => {
                    // The process may have stood still since; the kernel is told what is left.
                    let late = self.time.now(&*self.clock).saturating_sub(now);
                    if let Err(error) = self.segment.put(time.saturating_sub(late)).await {
                        tracing::error!(err = %Chain(&error), address = %self.config.address, "the virtual address");
                    }
                }
                Effect::Drop => self.segment.take_off().await,
                Effect::Announce => self.segment.announce(),
                Effect::Probe => work.probe = Some(self.segment.clone().probe().boxed()),
                Effect::Write => self.write(self.config.identity.clone(), work),
                Effect::Release => self.write(String::new(), work),
            }
        }
        self.tell();
    }

    /// Writes the lease as it was seen last, with this holder. A write that is on its way ends first: cut short it might
    /// take effect later.
    fn write(&self, holder: String, work: &mut Work) {
        if work.write.is_some() {
            work.next = Some(holder);
            return;
        }
        let lease = written(self.lease.as_ref(), &self.config.lease, &holder, &format!("{:.6}", self.clock.now()));
        let (client, key, update) = (self.client.clone(), self.config.lease.clone(), self.lease.is_some());
        work.writes = holder;
        let writing = async move {
            match update {
                true => client.update(&leases(), &key, None, &lease).await,
                false => client.create(&leases(), &key.namespace, &lease).await,
            }
        };
        work.write = Some(writing.boxed());
    }

    fn concluded(&mut self, outcome: Result<Tree, ClientError>, work: &mut Work) -> Input {
        let granted = outcome.is_ok();
        match outcome {
            Ok(lease) => drop(self.keep(Some(lease))),
            // Two that take it at once are no trouble; whoever holds it and cannot renew it has one.
            Err(error) if matches!(self.core.state(), State::Holding(_)) => {
                tracing::warn!(err = %Chain(&error), "the virtual address' lease was not renewed");
            }
            Err(error) => tracing::debug!(err = %Chain(&error), "the virtual address' lease was not written"),
        }
        if let Some(next) = work.next.take() {
            self.write(next, work);
            return Input::Tick;
        }
        // A release is nobody's grant.
        if work.writes == self.config.identity { Input::Written(granted) } else { Input::Tick }
    }

    /// Takes what the view shows; false where nothing is new.
    fn shown(&mut self, snapshot: &Snapshot) -> bool {
        let stream = snapshot.stream(&leases());
        let found = stream.get(&self.config.lease).map(|object| object.tree());
        stream.synced && self.keep(found)
    }

    /// The newest of what was written and what was shown.
    fn keep(&mut self, lease: Option<Tree>) -> bool {
        let old = self.lease.as_ref().map(revision);
        let newer = lease.as_ref().map(revision).is_none_or(|new| old.is_none_or(|old| old < new));
        if newer {
            self.lease = lease;
        }
        newer
    }

    fn seen(&self) -> Input {
        Input::Lease(self.lease.as_ref().map(|lease| Lease {
            holder: lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned(),
            revision: revision(lease),
        }))
    }

    fn tell(&self) {
        let status = match self.core.state() {
            State::Holding(held) => VipStatus::Here { contested_by: held.contested_by.map(|by| hardware_text(&by)) },
            State::Blocked { by: Some(by), .. } => VipStatus::Blocked { by: hardware_text(by) },
            State::Blocked { by: None, .. } => VipStatus::NoLink,
            // On the way to a new state the old one is told.
            State::Probing | State::Taking { .. } => return,
            State::Waiting | State::Stopped => VipStatus::Elsewhere { holder: self.core.holder().to_owned() },
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            if changed {
                say(self.config.address.addr(), &status);
                *old = status;
            }
            changed
        });
    }
}

fn say(address: IpAddr, status: &VipStatus) {
    match status {
        VipStatus::Here { contested_by: None } => tracing::info!(%address, "this server has the virtual address"),
        VipStatus::Here { contested_by: Some(by) } => {
            tracing::warn!("the machine with hardware address {by} answers for the virtual address {address}, too");
        }
        VipStatus::Blocked { by } => tracing::warn!(
            "the virtual address {address} is not taken: the machine with hardware address {by} answers for it"
        ),
        VipStatus::NoLink => {
            tracing::warn!("the virtual address {address} is not taken: no link of this machine has its subnet");
        }
        VipStatus::Elsewhere { holder } => tracing::info!(%address, %holder, "the virtual address is not here"),
        VipStatus::Starting => {}
    }
}

/// The end of what is on its way; never, where nothing is.
async fn pending<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(work) = slot else { return std::future::pending().await };
    let end = work.await;
    *slot = None;
    end
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

fn revision(lease: &Tree) -> u64 {
    lease["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn written(seen: Option<&Tree>, key: &Key, holder: &str, now: &str) -> Tree {
    let metadata = json!({ "name": key.name, "namespace": key.namespace });
    let kind = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {} });
    let mut lease = seen.cloned().unwrap_or(kind);
    let spec = &mut lease["spec"];
    if spec["holderIdentity"] != json!(holder) && !holder.is_empty() {
        spec["leaseTransitions"] = json!(spec["leaseTransitions"].as_u64().map_or(0, |count| count + 1));
        spec["acquireTime"] = json!(now);
    }
    spec["holderIdentity"] = json!(holder);
    spec["leaseDurationSeconds"] = json!(LEASE.as_secs());
    spec["renewTime"] = json!(now);
    lease
}

/// Time that never goes back, counts while the machine sleeps, and follows the wall clock where that leaps ahead: after a
/// pause that the kernel did not notice, as of a virtual machine, nothing may count as still ours.
struct Time {
    boot: Duration,
    wall: jiff::Timestamp,
    passed: Duration,
}

// === impl Time ===

impl Time {
    fn new(clock: &dyn Clock) -> Time {
        Time { boot: since_boot(), wall: clock.now(), passed: Duration::ZERO }
    }

    fn now(&mut self, clock: &dyn Clock) -> Duration {
        let (boot, wall) = (since_boot(), clock.now());
        let by_wall = Duration::try_from(wall.duration_since(self.wall)).unwrap_or_default();
        self.passed += boot.saturating_sub(self.boot).max(by_wall);
        (self.boot, self.wall) = (boot, wall);
        self.passed
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
