//! What people's clients do all day, at a fixed rate, while something else happens: every failure is kept.
//!
//! No request is repeated. A client of the API knows all servers, and sends a request over a connection that is there: it
//! asks the next server only where it gets none.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::load::{Connection, Endpoint};
use crate::wait::pause;

/// Longer than this nobody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// New connections through a Service, a second; so many clients share them.
const SERVICE_PER_SECOND: u32 = 50;
const SERVICE_CLIENTS: u32 = 10;
const API_PER_SECOND: u32 = 5;
/// Of those that failed, so many are told.
const TOLD_MAX: usize = 20;

/// Clients that ask until they are stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<(&'static str, JoinHandle<Tally>)>,
}

/// How it was for one kind of client.
#[derive(Debug, Default)]
pub struct Tally {
    pub asked: usize,
    pub failed: usize,
    pub slowest: Duration,
    /// The first failures, each with when.
    pub told: Vec<String>,
}

// === impl Traffic ===

impl Traffic {
    pub fn start() -> Traffic {
        Traffic { stop: Arc::default(), clients: Vec::new() }
    }

    /// New connections to a Service from outside, to each of these addresses in turn.
    pub fn service(mut self, addresses: &[SocketAddr]) -> Traffic {
        for client in 0..SERVICE_CLIENTS {
            let addresses = addresses.to_vec();
            let mut turn = client as usize;
            self.spawn("service", SERVICE_PER_SECOND / SERVICE_CLIENTS, move || {
                turn += 1;
                fetch(addresses[turn % addresses.len()])
            });
        }
        self
    }

    /// Reads of the API from each of these servers in turn.
    pub fn api(mut self, servers: &[Endpoint]) -> Traffic {
        let mut client = ApiClient { servers: servers.to_vec(), open: BTreeMap::new(), turn: 0 };
        self.spawn("api", API_PER_SECOND, move || client.ask());
        self
    }

    fn spawn(
        &mut self,
        kind: &'static str,
        per_second: u32,
        mut ask: impl FnMut() -> anyhow::Result<()> + Send + 'static,
    ) {
        let (stop, begin) = (self.stop.clone(), Instant::now());
        let client = move || {
            let (mut tally, mut next) = (Tally::default(), begin);
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let outcome = ask();
                tally.note(begin.elapsed(), asked.elapsed(), outcome);
                // What was late is not made up for: the rate is a rate.
                next = (next + Duration::from_secs(1) / per_second).max(Instant::now());
                pause(next.duration_since(Instant::now()));
            }
            tally
        };
        self.clients.push((kind, thread::spawn(client)));
    }

    /// Ends it; how it was, by kind of client.
    pub fn stop(self) -> anyhow::Result<BTreeMap<&'static str, Tally>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
        for (kind, client) in self.clients {
            let Ok(tally) = client.join() else { bail!("a client of {kind} panicked") };
            tallies.entry(kind).or_default().add(tally);
        }
        Ok(tallies)
    }
}

// === impl Tally ===

impl Tally {
    fn note(&mut self, when: Duration, took: Duration, outcome: anyhow::Result<()>) {
        self.asked += 1;
        self.slowest = self.slowest.max(took);
        if let Err(error) = outcome {
            self.failed += 1;
            if self.told.len() < TOLD_MAX {
                self.told.push(format!("after {:.1} s: {error:#}", when.as_secs_f64()));
            }
        }
    }

    fn add(&mut self, other: Tally) {
        self.asked += other.asked;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
        let room = TOLD_MAX - self.told.len();
        self.told.extend(other.told.into_iter().take(room));
    }
}

/// One request over a connection of its own.
fn fetch(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connect {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").with_context(|| format!("ask {address}"))?;
    let mut said = String::new();
    stream.read_to_string(&mut said).with_context(|| format!("read from {address}"))?;
    ensure!(said.starts_with("HTTP/1.0 200") || said.starts_with("HTTP/1.1 200"), "{address} said {said:?}");
    Ok(())
}

struct ApiClient {
    servers: Vec<Endpoint>,
    open: BTreeMap<usize, Connection>,
    turn: usize,
}

impl ApiClient {
    fn ask(&mut self) -> anyhow::Result<()> {
        self.turn += 1;
        let (server, mut connection) = self.connection()?;
        let answer = connection.call("GET", "/api/v1/namespaces/default", "");
        let answer = answer.with_context(|| format!("server {server}"))?;
        ensure!(answer.code == 200, "server {server} answered {}", answer.code);
        if !answer.last {
            self.open.insert(server, connection);
        }
        Ok(())
    }

    /// To the server whose turn it is, or the next one that can be reached.
    fn connection(&mut self) -> anyhow::Result<(usize, Connection)> {
        let mut why = Vec::new();
        for place in 0..self.servers.len() {
            let server = (self.turn + place) % self.servers.len();
            if let Some(mut connection) = self.open.remove(&server)
                && connection.is_open()
            {
                return Ok((server, connection));
            }
            match self.servers[server].connect_within(PATIENCE) {
                Ok(connection) => return Ok((server, connection)),
                Err(error) => why.push(format!("{error:#}")),
            }
        }
        bail!("no server can be reached: {}", why.join("; "))
    }
}
