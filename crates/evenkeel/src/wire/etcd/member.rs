//! The process of this server's etcd member, as a supervised child: what it is started as and when it is well.

use std::error::Error;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use container::child::{self, Kind, Known, Spec};
use serde::{Deserialize, Serialize};
use store::etcd::Members;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::flags;
use crate::layout::Layout;
use crate::pki::{self, Lineage};

pub(super) const NAME: &str = "etcd";
pub const CLIENT_PORT: u16 = 2379;
pub const PEER_PORT: u16 = 2380;
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// A member that waits for its peers answers clients nothing, and is well all the same: after this time its open peer
/// port is enough.
const PEERS_PATIENCE: Duration = Duration::from_secs(10);
/// What a member was first started as; etcd reads it until its data is there, and a change would start it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Founding {
    pub name: String,
    /// `NAME=PEER-URL,...`, itself included.
    pub initial_cluster: String,
    /// It joined others, who know of it.
    pub existing: bool,
}

/// The child.
pub struct Member {
    pub(super) layout: Layout,
    pub(super) founding: Founding,
    pub(super) address: IpAddr,
    /// `KEY=VALUE` of the operator.
    pub(super) arguments: Vec<String>,
    pub(super) cgroup: String,
    /// Of this member alone.
    pub(super) own: Members,
}

/// Where a member's files are.
pub(super) struct Files(PathBuf);

// === impl Files ===

impl Files {
    pub fn new(layout: &Layout) -> Files {
        Files(layout.etcd())
    }

    /// What the member was founded as; where it is, this server's state is in it.
    pub fn founding(&self) -> PathBuf {
        self.0.join("founding.json")
    }

    pub fn record(&self) -> PathBuf {
        self.0.join("process.json")
    }

    /// The client URLs of the other members, best known.
    pub fn others(&self) -> PathBuf {
        self.0.join("others.json")
    }

    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn log(&self) -> PathBuf {
        self.0.join("etcd.log")
    }
}

// === impl Founding ===

impl Founding {
    pub fn read(layout: &Layout) -> Result<Option<Founding>> {
        let path = Files::new(layout).founding();
        let Some(text) = pki::read(&path)? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?))
    }

    /// The member's own, of its peer URL.
    pub fn address(&self) -> Option<IpAddr> {
        let own = self.initial_cluster.split(',').find_map(|pair| pair.strip_prefix(&format!("{}=", self.name)))?;
        Some(own.strip_prefix("https://")?.parse::<SocketAddr>().ok()?.ip())
    }

    /// Durable when it returns.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        pki::write(&Files::new(layout).founding(), text.as_bytes(), pki::Access::Secret)?;
        Ok(())
    }
}

/// The URL at which other members reach the one on this address.
pub fn peer_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PEER_PORT))
}

/// The URL at which others reach the member on this address as clients.
pub fn client_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, CLIENT_PORT))
}

/// The URL at which this machine's own processes reach the member: one that stays when the node's address changes.
pub(super) fn own_url(address: IpAddr) -> String {
    client_url(if address.is_loopback() { address } else { loopback(address) })
}

fn loopback(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    }
}

/// etcd's program on this machine.
pub fn program() -> Result<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&own).chain(usual).map(|folder| folder.join(NAME)).find(|path| path.is_file());
    found.context(
        "there is no `etcd` program on this machine; on Debian: apt-get install etcd-server && systemctl disable --now etcd",
    )
}

/// What a member needs of the machine: the program, and its ports. Where something else has those, etcd would say so in
/// its log only.
pub(super) fn check_machine(address: IpAddr) -> Result<()> {
    program()?;
    let local = if address.is_loopback() { address } else { loopback(address) };
    for (address, port) in [(local, CLIENT_PORT), (address, CLIENT_PORT), (address, PEER_PORT)] {
        let wanted = SocketAddr::new(address, port);
        TcpListener::bind(wanted).with_context(|| {
            format!(
                "{wanted}, which etcd needs, is not free; Debian's etcd-server starts an etcd of its own: \
                 systemctl disable --now etcd"
            )
        })?;
    }
    Ok(())
}

// === impl Member ===

impl Member {
    /// What a running process must have been started with: the flags, and an authority to trust that has not ended since,
    /// for etcd reads that at its start.
    fn edition(&self, arguments: &[String]) -> Result<String> {
        let (mut text, folder) = (arguments.join("\n"), self.layout.server_tls());
        let trusted = pki::read(&folder.join("server-ca.crt"))?.unwrap_or_default();
        if let Some(ended) = Lineage::of(&folder)?.ended(&trusted) {
            text = format!("{text}\n{ended}");
        }
        Ok(pki::sha256_hex(text.as_bytes())[..12].to_owned())
    }

    /// True where the process runs as it is wanted now.
    pub(super) fn is_current(&self) -> Result<bool> {
        let wanted = self.edition(&flags::of(self))?;
        Ok(child::edition(&Files::new(&self.layout).record()).is_some_and(|edition| edition == wanted))
    }

    fn spec(&self) -> Result<Spec> {
        let arguments = flags::of(self);
        let edition = self.edition(&arguments)?;
        let files = Files::new(&self.layout);
        Ok(Spec {
            program: program()?,
            arguments: arguments.into_iter().map(OsString::from).collect(),
            folders: vec![self.layout.etcd()],
            files: Vec::new(),
            edition,
            log: files.log(),
            cgroup: self.cgroup.clone(),
        })
    }
}

impl Kind for Member {
    fn name(&self) -> &'static str {
        NAME
    }

    fn record(&self) -> PathBuf {
        Files::new(&self.layout).record()
    }

    async fn wanted(&self) -> Result<Spec, Box<dyn Error + Send + Sync>> {
        Ok(self.spec()?)
    }

    /// Whether the cluster takes writes is another question: a member without a quorum must not be started again.
    async fn ready(&self, _: &Known, _: Option<&Known>) {
        let (since, own) = (Instant::now(), own_url(self.address));
        loop {
            if self.own.status(&own).await.is_ok() {
                return;
            }
            let peer = SocketAddr::new(self.address, PEER_PORT);
            if PEERS_PATIENCE <= since.elapsed() && TcpStream::connect(peer).await.is_ok() {
                return;
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }
}
