//! The ways between machines, and what is on the coordinator's own: the ports of the keeper, where messages are slow, are
//! lost, arrive when nobody waits for them any more, and where whoever sends or gets one may be killed by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use base::Rng;
use bytes::Bytes;
use evenkeel::coordination::ports::{Address, AgentError, Agents, Backup, Machines, Piece, Programs, Replicas};
use evenkeel::coordination::records::Saved;
use evenkeel::coordination::{About, Lines, Received, RehearseRequest, Report, SwapRequest};
use keeper::preflight::Finding;
use keeper::{Copies, Digest, NodeName, Order, Release, Replica, ReplicaState, Role};
use view::ClientError;

use super::machine::{Event, Machine, Refused, about};
use crate::world::{Weather, below, seconds};

/// A small verb answers within this time, or the caller gives up.
const VERB_TIMEOUT: Duration = Duration::from_secs(5);
/// How late an order can come.
const LATE_SECONDS: (u64, u64) = (5, 20);
/// Longer than a process that was killed lives on.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
const QUOTA_BYTES: u64 = 2 << 30;

/// All machines, and which of them do not hear each other.
pub struct Net {
    pub machines: BTreeMap<String, Arc<Machine>>,
    pub weather: Weather,
    /// Of so many orders one kills who gives it before it is sent, one who gets it, and one who gave it and heard nothing.
    killed_one_in: u64,
    /// Of so many orders one comes when nobody waits for its answer any more.
    late_one_in: u64,
    calm: Mutex<bool>,
    cuts: Mutex<BTreeSet<(String, String)>>,
}

/// One server's end.
pub struct Wires {
    pub own: Arc<Machine>,
    pub net: Arc<Net>,
    pub rng: Arc<dyn Rng>,
}

// === impl Net ===

impl Net {
    pub fn new(
        machines: BTreeMap<String, Arc<Machine>>,
        weather: Weather,
        killed_one_in: u64,
        late_one_in: u64,
    ) -> Arc<Net> {
        let (calm, cuts) = (Mutex::new(true), Mutex::default());
        Arc::new(Net { machines, weather, killed_one_in, late_one_in, calm, cuts })
    }

    fn cuts(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.cuts.lock().expect("no holder of this lock panics")
    }

    /// From one machine to another; the way back is another one.
    pub fn cut(&self, from: &str, to: &str) {
        self.cuts().insert((from.to_owned(), to.to_owned()));
    }

    pub fn mend(&self) {
        self.cuts().clear();
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cuts().contains(&(from.to_owned(), to.to_owned()))
    }

    /// Nothing goes wrong by itself any more.
    pub fn calm(&self, calm: bool) {
        *self.calm.lock().expect("no holder of this lock panics") = calm;
    }

    fn goes_wrong(&self, rng: &dyn Rng, one_in: u64) -> bool {
        below(rng, one_in) == 0 && !*self.calm.lock().expect("no holder of this lock panics")
    }
}

// === impl Wires ===

impl Wires {
    async fn travel(&self) {
        let millis = 1 + below(&*self.rng, self.net.weather.latency_millis_max);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    async fn kill(&self, whom: &Machine) {
        whom.judge.count(|counts| counts.kills += 1);
        whom.tell(Event::Kill);
        if whom.name == self.own.name {
            tokio::time::sleep(FOR_EVER).await;
        }
    }

    /// Carries a call to a node and its answer back.
    async fn call<T: Send + 'static>(
        &self,
        at: &Address,
        ordered: bool,
        verb: impl FnOnce(&Machine) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, AgentError> {
        let silent = |after| AgentError::Silent { node: at.node.clone(), source: ClientError::Timeout(after) };
        let target = self.net.machines.get(&at.node).cloned().ok_or_else(|| silent(Duration::ZERO))?;
        self.travel().await;
        let kills = || ordered && self.net.goes_wrong(&*self.rng, self.net.killed_one_in);
        if kills() {
            self.kill(&self.own).await;
        }
        if self.net.is_cut(&self.own.name, &at.node) || !target.is_on() {
            tokio::time::sleep(VERB_TIMEOUT).await;
            return Err(silent(VERB_TIMEOUT));
        }
        if ordered && self.net.goes_wrong(&*self.rng, self.net.late_one_in) {
            let late = seconds(&*self.rng, LATE_SECONDS.0, LATE_SECONDS.1);
            target.judge.count(|counts| counts.late_orders += 1);
            // A task of its own: it arrives also when nobody waits for the answer any more.
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                let _ = verb(&target);
            });
            tokio::time::sleep(VERB_TIMEOUT).await;
            return Err(silent(VERB_TIMEOUT));
        }
        let answer = verb(&target);
        if kills() {
            self.kill(&target).await;
        }
        if kills() {
            self.kill(&self.own).await;
        }
        self.travel().await;
        let lost = ordered && self.net.goes_wrong(&*self.rng, self.net.weather.lost_one_in);
        if lost || self.net.is_cut(&at.node, &self.own.name) {
            tokio::time::sleep(VERB_TIMEOUT).await;
            return Err(silent(VERB_TIMEOUT));
        }
        answer.map_err(|refused| match refused {
            Refused::Silent => silent(Duration::ZERO),
            Refused::Stale(why) => AgentError::Stale(why),
            Refused::Other(why) => AgentError::Refused { node: at.node.clone(), why },
        })
    }
}

#[async_trait]
impl Agents for Wires {
    async fn report(&self, at: &Address, order: Option<Order>) -> Result<Report, AgentError> {
        self.call(at, order.is_some(), move |node| node.report(order)).await
    }

    async fn swap(&self, at: &Address, order: Order, request: &SwapRequest) -> Result<(), AgentError> {
        let request = request.clone();
        self.call(at, true, move |node| node.swap(order, &request)).await
    }

    /// No program of the simulation refuses its settings.
    async fn rehearse(&self, at: &Address, _request: &RehearseRequest) -> Result<(), AgentError> {
        self.call(at, false, |node| node.running().map(drop).ok_or(Refused::Silent)).await
    }

    async fn journal(&self, at: &Address, order: Order, lines: &Lines) -> Result<usize, AgentError> {
        let lines = lines.clone();
        self.call(at, true, move |node| node.journal(order, &lines)).await
    }

    async fn put_piece(&self, at: &Address, order: Order, piece: Piece) -> Result<Received, AgentError> {
        self.call(at, true, move |node| node.put_piece(order, &piece.program, &piece.bytes)).await
    }

    async fn piece(&self, at: &Address, program: &Digest, _offset: u64) -> Result<Bytes, AgentError> {
        let program = program.clone();
        let absent = || Refused::Other("this program does not lie here".to_owned());
        let read = move |node: &Machine| node.program(&program).map(|(_, bytes)| bytes).ok_or_else(absent);
        self.call(at, false, read).await
    }
}

#[async_trait]
impl Programs for Wires {
    fn lies_here(&self, program: &Digest) -> Option<Release> {
        self.own.program(program).map(|(release, _)| release)
    }

    fn size(&self, program: &Digest) -> Result<u64> {
        Ok(self.own.program(program).context("it does not lie here")?.1.len() as u64)
    }

    fn piece(&self, program: &Digest, _offset: u64) -> Result<Bytes> {
        Ok(self.own.program(program).context("it does not lie here")?.1)
    }

    async fn receive(&self, piece: &Piece) -> Result<Received> {
        ensure!(Digest::of_bytes(&piece.bytes) == piece.program, "it is not the program that was sent");
        self.own.receive(&piece.bytes).ok().context("this server stops")
    }

    async fn about(&self, program: &Digest) -> Result<About> {
        Ok(about(&self.own.program(program).context("it does not lie here")?.0))
    }
}

/// Each server has a copy, in a process of its own: it is there as long as the machine has power.
#[async_trait]
impl Replicas for Wires {
    async fn look(&self) -> Result<Copies> {
        self.travel().await;
        let servers = self.net.machines.values().filter(|machine| machine.role == Role::Server);
        let replica = |machine: &Arc<Machine>| {
            let heard = machine.is_on() && !self.net.is_cut(&self.own.name, &machine.name);
            let state = ReplicaState { led: true, applied: 0, used_bytes: 0 };
            Replica { node: NodeName(machine.name.as_str().into()), learner: false, state: heard.then_some(state) }
        };
        Ok(Copies { replicas: servers.map(replica).collect(), quota_bytes: QUOTA_BYTES, alarm: None })
    }
}

#[async_trait]
impl Machines for Wires {
    async fn look(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Backup for Wires {
    async fn save(&self, run: &str) -> Result<Saved> {
        let generation = run.rsplit('-').next().and_then(|number| number.parse().ok()).context("a run has a number")?;
        self.own.judge.backup(generation);
        tokio::time::sleep(seconds(&*self.rng, 1, 5)).await;
        Ok(Saved { node: self.own.name.clone(), path: format!("/{run}.bundle"), revision: 1, objects: 1 })
    }
}
