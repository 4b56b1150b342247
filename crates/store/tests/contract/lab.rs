//! Engines to test on: a SQLite file in a folder of its own, a real etcd on loopback. Shared with the unit tests.
#![allow(dead_code, reason = "each of its two users needs a part")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CommitId, Engine, Row, etcd, sqlite};
use admit::{Batch, Change, Expect, Place, Write};
use api::Key;
use base::Revision;
use bytes::Bytes;

const ETCD: &str = "/usr/bin/etcd";
/// Longest any level may take to be reached.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Lab {
    pub engine: Arc<dyn Engine>,
    pub etcd: Option<Etcd>,
    pub folder: tempfile::TempDir,
}

/// A real etcd, killed when dropped.
pub struct Etcd {
    child: Child,
    data: PathBuf,
    client_port: u16,
    peer_port: u16,
    /// `NAME=PEER-URL,...`, itself included; its name is its port for peers.
    cluster: String,
}

// === impl Lab ===

impl Lab {
    pub fn sqlite() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let engine = sqlite::open(&folder.path().join("state.db")).unwrap();
        Lab { engine, etcd: None, folder }
    }

    /// `None`, with a line that says so, where there is no etcd.
    pub async fn etcd() -> Option<Lab> {
        if !Path::new(ETCD).exists() {
            println!("SKIPPED: no {ETCD} on this machine (apt-get install etcd-server)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let process = Etcd::start(&folder.path().join("etcd"));
        let engine = process.connect();
        until("etcd answers", async || engine.read_barrier().await.is_ok()).await;
        Some(Lab { engine, etcd: Some(process), folder })
    }
}

// === impl Etcd ===

impl Etcd {
    fn start(data: &Path) -> Etcd {
        Etcd::several(data, 1).remove(0)
    }

    /// Members of one cluster.
    pub fn several(folder: &Path, count: usize) -> Vec<Etcd> {
        let peers: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let named = peers.iter().map(|port| format!("{port}=http://127.0.0.1:{port}"));
        let cluster = named.collect::<Vec<_>>().join(",");
        let start = |peer_port: u16| {
            let (data, client_port) = (folder.join(peer_port.to_string()), free_port());
            let child = spawn(&data, client_port, peer_port, &cluster);
            Etcd { child, data, client_port, peer_port, cluster: cluster.clone() }
        };
        peers.into_iter().map(start).collect()
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub fn connect(&self) -> Arc<dyn Engine> {
        // A dead endpoint first: the next one is used.
        let endpoints = vec!["http://127.0.0.1:1".to_owned(), self.endpoint()];
        etcd::connect(etcd::Config { endpoints, others: None, prefix: "/evenkeel".into(), tls: None }).unwrap()
    }

    /// As a power cut would: no chance to say anything.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = spawn(&self.data, self.client_port, self.peer_port, &self.cluster);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(data: &Path, client_port: u16, peer_port: u16, cluster: &str) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new(ETCD);
    command.arg("--data-dir").arg(data).args(["--name", &peer_port.to_string(), "--log-level", "error"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", cluster]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for a level, with a bound.
pub async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !reached().await {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn place(storage: &str, name: &str) -> Place {
    Place { storage: storage.into(), key: Key::new("default", name) }
}

pub fn put(name: &str, expect: Expect, value: &str) -> Change {
    Change { place: place("things", name), expect, write: Write::Put(Bytes::copy_from_slice(value.as_bytes())) }
}

pub fn delete(name: &str, expect: Expect) -> Change {
    Change { place: place("things", name), expect, write: Write::Delete }
}

pub fn keep(name: &str, expect: Expect) -> Change {
    Change { place: place("things", name), expect, write: Write::Keep }
}

pub fn batch(changes: Vec<Change>) -> Batch {
    Batch { changes }
}

/// Commits one change and expects it to work.
pub async fn commit(engine: &Arc<dyn Engine>, id: u128, change: Change) -> Revision {
    engine.commit(CommitId(id), batch(vec![change])).await.unwrap()
}

/// Everything alive, ordered by place.
pub async fn rows(engine: &Arc<dyn Engine>) -> Vec<Row> {
    let mut load = engine.load().await.unwrap();
    let mut all = Vec::new();
    while let Some(rows) = load.rows.recv().await {
        all.extend(rows.unwrap());
    }
    all.sort_by(|a, b| a.place.cmp(&b.place));
    all
}
