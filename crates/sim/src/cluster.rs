//! One run: three servers, four nodes, a person, and the order in which trouble comes, all from one seed.

use std::sync::Arc;
use std::time::Duration;

use admit::User;
use anyhow::{Context, Result, ensure};
use base::Rng;
use jiff::SignedDuration;
use rcgen::KeyPair;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use view::{Client, Drain, Transport};

use crate::check;
use crate::kubelet::Kubelet;
use crate::person::Person;
use crate::rack;
use crate::record::Record;
use crate::server::{Shared, SimServer};
use crate::transport::{AnyOf, Way};
use crate::world::{Seeds, SimClock, Weather, below, seconds};

const SERVERS: usize = 3;
const NODES: u8 = 4;
const WISHES: u32 = 40;
/// Everything is as it was promised this long after the last trouble: a node that was away is given up after five minutes
/// and 40 seconds, and every backoff has an end.
const PATIENCE: Duration = Duration::from_secs(1500);
const LOOK: Duration = Duration::from_secs(5);
/// Then nothing may be written for so long, and not before what still settles has had this long.
const SETTLE: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(120);

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub weather: Weather,
    /// Revisions written, servers killed, links cut, nodes without power.
    pub revisions: u64,
    /// Of everything that was ever written: the same for the same seed.
    pub digest: u64,
    pub kills: u32,
    pub cuts: u32,
    pub outages: u32,
    /// Virtual time from the last trouble until every promise was kept.
    pub converged_after: Duration,
}

struct Cluster {
    shared: Shared,
    servers: Vec<SimServer>,
    /// The power of each node, while it is on.
    nodes: Vec<Option<Drain>>,
    clock: Arc<SimClock>,
    seeds: Seeds,
    report: Report,
}

/// Runs one seed; an error says what did not hold.
///
/// # Errors
/// When a promise is not kept in time, or there is no rest.
pub fn run(seed: u64) -> Result<Report> {
    let runtime = runtime(seed)?;
    runtime.block_on(async { Cluster::new(seed)?.live().await }).with_context(|| format!("seed {seed}"))
}

/// Runs one seed of a rack that is changed; an error says what did not hold.
///
/// # Errors
/// When an order was given that should not have been, or the rack does not arrive.
pub fn run_rack(seed: u64) -> Result<rack::Report> {
    runtime(seed)?.block_on(rack::run(seed)).with_context(|| format!("seed {seed} of the rack"))
}

/// One thread, virtual time. The order in which a runtime wakes those who wait for the same thing is drawn; only with
/// `--cfg tokio_unstable`, as `cargo xtask sim` builds, it is drawn from the seed as well, and a seed says everything.
fn runtime(seed: u64) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    #[cfg(not(tokio_unstable))]
    let _ = seed;
    Ok(builder.enable_time().start_paused(true).build()?)
}

// === impl Cluster ===

impl Cluster {
    fn new(seed: u64) -> Result<Cluster> {
        let seeds = Seeds::new(seed);
        let signing_key = KeyPair::generate().context("draw a signing key")?.serialize_pem();
        let weather = Weather::draw(&*seeds.split());
        let server = |at| SimServer::new(&format!("s{at}"), seeds.split().next_u64(), weather);
        let servers = (0..SERVERS).map(server).collect();
        let converged_after = Duration::ZERO;
        let report = Report { seed, weather, revisions: 0, digest: 0, kills: 0, cuts: 0, outages: 0, converged_after };
        let shared = Shared { record: Record::new(weather), signing_key };
        let nodes = (0..NODES).map(|_| None).collect();
        Ok(Cluster { shared, servers, nodes, clock: SimClock::new(), seeds, report })
    }

    async fn live(mut self) -> Result<Report> {
        self.heal().await;
        let (rng, pause) = (self.seeds.split(), self.report.weather.trouble_seconds_max);
        let mut person = Person::new(self.client("admin", "system:masters", Way::Lossy), self.seeds.split());
        for _ in 0..WISHES {
            // A wish waits until it is granted, and somebody must be there to grant it: trouble goes on meanwhile.
            let wish = person.act();
            tokio::pin!(wish);
            loop {
                tokio::select! { biased;
                    () = &mut wish => break,
                    () = tokio::time::sleep(seconds(&*rng, 1, pause)) => self.trouble(&*rng).await,
                }
            }
            tokio::time::sleep(seconds(&*rng, 0, 6)).await;
            self.trouble(&*rng).await;
        }
        self.heal().await;
        self.converge(&person).await?;
        self.rest().await?;
        self.report.revisions = self.shared.record.newest().0;
        self.report.digest = digest(&self.shared.record.since(base::Revision::ZERO));
        Ok(self.report)
    }

    /// One thing goes wrong, or right again.
    async fn trouble(&mut self, rng: &dyn Rng) {
        let server = usize::try_from(below(rng, SERVERS as u64)).expect("a small number");
        let node = usize::try_from(below(rng, u64::from(NODES))).expect("a small number");
        match below(rng, 14) {
            0 | 1 if self.servers[server].is_on() => {
                self.servers[server].kill();
                self.report.kills += 1;
            }
            0..=4 => self.start(server).await,
            5 => {
                self.servers[server].cut(true);
                self.report.cuts += 1;
            }
            6 | 7 => self.servers[server].cut(false),
            8 => self.power(node, !self.powered(node)),
            9 => self.power(node, true),
            10 => {
                let off = i64::try_from(below(rng, 60)).expect("a small number") - 30;
                self.servers[server].clock.skew(SignedDuration::from_secs(off));
            }
            11 => {
                let newest = self.shared.record.newest();
                self.shared.record.forget(newest);
            }
            _ => {}
        }
    }

    /// A start may fail for all that fails here; whoever supervises the process starts it again.
    async fn start(&mut self, at: usize) {
        if self.servers[at].is_on() {
            return;
        }
        if let Err(error) = self.servers[at].start(&self.shared).await {
            tracing::debug!(error = %format!("{error:#}"), server = at, "did not start");
        }
    }

    fn powered(&self, node: usize) -> bool {
        self.nodes[node].is_some()
    }

    fn power(&mut self, node: usize, on: bool) {
        match (self.nodes[node].take(), on) {
            (Some(drain), true) => self.nodes[node] = Some(drain),
            (Some(drain), false) => {
                drain.cancel();
                self.report.outages += 1;
            }
            (None, false) => {}
            (None, true) => {
                let drain = Drain::new();
                let name = format!("n{node}");
                let number = u8::try_from(node + 1).expect("a small number");
                let client = self.client(&format!("system:node:{name}"), "system:nodes", Way::Lossy);
                let kubelet = Kubelet { name, number, client, clock: self.clock.clone(), rng: self.seeds.split() };
                tokio::spawn(kubelet.run(drain.clone()));
                self.nodes[node] = Some(drain);
            }
        }
    }

    /// Everything on, every link up, every clock right.
    async fn heal(&mut self) {
        for at in 0..SERVERS {
            self.servers[at].cut(false);
            self.servers[at].clock.skew(SignedDuration::ZERO);
            while !self.servers[at].is_on() {
                self.start(at).await;
            }
        }
        for node in 0..usize::from(NODES) {
            self.power(node, true);
        }
    }

    /// A client of all servers.
    fn client(&self, user: &str, group: &str, way: Way) -> Client {
        let groups = vec![group.into(), "system:authenticated".into()];
        let user = User { name: user.into(), groups, ..User::default() };
        let one = |server: &SimServer| server.door().transport(user.clone(), way, self.seeds.split());
        let servers: Vec<Arc<dyn Transport>> = self.servers.iter().map(one).collect();
        let transport = Arc::new(AnyOf { servers, rng: self.seeds.split() });
        Client::new(transport, &format!("{}/0", user.name)).with_rng(self.seeds.split())
    }

    async fn converge(&mut self, person: &Person) -> Result<()> {
        let since = Instant::now();
        let client = self.client("admin", "system:masters", Way::Good);
        while let Err(broken) = check::promises(&client, &person.book).await {
            if PATIENCE < since.elapsed() {
                return Err(broken.context(format!("not so after {} s", PATIENCE.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
        self.report.converged_after = since.elapsed();
        Ok(())
    }

    /// Nothing to do means that nothing is done.
    async fn rest(&self) -> Result<()> {
        tokio::time::sleep(SETTLE).await;
        let from = self.shared.record.newest();
        tokio::time::sleep(REST).await;
        let written = self.shared.record.since(from);
        let unrest = check::unrest(&written);
        ensure!(unrest.is_none(), "it does not come to rest: {} is written", unrest.unwrap_or_default());
        Ok(())
    }
}

/// FNV-1a over places and values, in their order.
fn digest(entries: &[store::Entry]) -> u64 {
    let changes = entries.iter().flat_map(|entry| &entry.changes);
    let bytes = changes.flat_map(|change| {
        let place = format!("{}{}", change.place.storage, change.place.key).into_bytes();
        place.into_iter().chain(change.value.iter().flat_map(|value| value.to_vec()))
    });
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
