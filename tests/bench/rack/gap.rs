//! For how long nobody can write: a client that writes all the time, and tries each server in turn when one fails it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{Connection, Endpoint, pause};

/// How long a client waits for a connection or an answer before it tries the next server.
const PATIENCE: Duration = Duration::from_secs(1);
const BETWEEN: Duration = Duration::from_millis(20);
const PATH: &str = "/api/v1/namespaces/default/configmaps";
const OBJECT: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"gap-"}}"#;

/// Writes until it is asked how it went.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

/// A client that knows all these servers.
struct Client {
    servers: Vec<Endpoint>,
    at: usize,
    open: Option<Connection>,
}

// === impl Writer ===

impl Writer {
    /// Begins with the first of these servers; returns once a write is acknowledged.
    pub fn start(servers: Vec<Endpoint>) -> anyhow::Result<Writer> {
        let mut client = Client { servers, at: 0, open: None };
        client.write()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || longest(&mut client, &stopped));
        Ok(Writer { stop, thread })
    }

    /// The longest time between two acknowledged writes, or since the last one.
    pub fn longest(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only measures")
    }
}

fn longest(client: &mut Client, stop: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        if client.write().is_ok() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        pause(BETWEEN);
    }
    longest.max(last.elapsed())
}

// === impl Client ===

impl Client {
    /// One try. After one that failed the next server is asked, over a new connection.
    fn write(&mut self) -> anyhow::Result<()> {
        let written = self.attempt();
        if written.is_err() {
            (self.open, self.at) = (None, (self.at + 1) % self.servers.len());
        }
        written
    }

    fn attempt(&mut self) -> anyhow::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.servers[self.at].connect_within(PATIENCE)?,
        };
        let answer = open.call("POST", PATH, OBJECT)?;
        self.open = Some(open);
        ensure!(answer.code == 201, "it answered {}", answer.code);
        Ok(())
    }
}
