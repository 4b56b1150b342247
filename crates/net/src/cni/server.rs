//! The agent's side: it owns the addresses and makes the links.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use view::Drain;

use super::types::{CniError, Code, Command, Reply, Request, argument};
use super::{MESSAGE_BYTES_MAX, VERB_TIMEOUT};
use crate::address::{Owner, Pool, Record, gateway};
use crate::config::Names;
use crate::link::{self, Bridge, Netlink, PodLink, hardware_address, hardware_text};
use crate::sys;

/// Verbs served at once; more wait in the socket's queue.
const VERBS_MAX: usize = 64;
const READ_BYTES: usize = 16 << 10;
const RETRY: Duration = Duration::from_millis(250);

/// Serves plugins. The only writer of the pool.
pub struct Server {
    pool: Mutex<Pool>,
    netlink: Netlink,
    bridge: Bridge,
    names: Names,
    /// Told after every change of the records: host ports and local addresses live in the rules.
    records: watch::Sender<Arc<Vec<Record>>>,
}

// === impl Server ===

impl Server {
    pub fn new(pool: Pool, netlink: Netlink, bridge: Bridge, names: Names) -> Server {
        let records = watch::Sender::new(Arc::new(pool.records().cloned().collect()));
        Server { pool: Mutex::new(pool), netlink, bridge, names, records }
    }

    pub fn records(&self) -> watch::Receiver<Arc<Vec<Record>>> {
        self.records.subscribe()
    }

    /// Gives back what belongs to no sandbox any more: not listed by the runtime, and its namespace gone. A sandbox
    /// that is being made is not listed yet but has a namespace.
    pub async fn reconcile(&self, live: &BTreeSet<String>) -> Result<usize, CniError> {
        let mut pool = self.pool.lock().await;
        let gone: Vec<Owner> = pool
            .records()
            .filter(|record| !live.contains(&record.owner.sandbox) && !record.netns.exists())
            .map(|record| record.owner.clone())
            .collect();
        for owner in &gone {
            self.forget(&mut pool, owner).await?;
        }
        self.publish(&pool);
        Ok(gone.len())
    }

    /// Listens until drain. The socket file is made anew: an old one belongs to a dead agent.
    pub async fn run(self: Arc<Self>, socket: &Path, ready: impl FnOnce(), drain: Drain) -> io::Result<()> {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        ready();
        let slots = Arc::new(Semaphore::new(VERBS_MAX));
        let mut verbs = JoinSet::new();
        loop {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            tokio::select! { biased;
                () = drain.cancelled() => break,
                accepted = listener.accept() => {
                    let stream = match accepted {
                        Ok((stream, _)) => stream,
                        // Too many open files, or a plugin that went away: the next one may be luckier.
                        Err(error) => {
                            tracing::warn!(err = %error, "the CNI socket");
                            drain.run_until_cancelled(tokio::time::sleep(RETRY)).await;
                            continue;
                        }
                    };
                    let server = self.clone();
                    verbs.spawn(async move {
                        let _slot = slot;
                        if tokio::time::timeout(VERB_TIMEOUT, server.serve(stream)).await.is_err() {
                            tracing::warn!("a CNI request took too long");
                        }
                    });
                }
            }
            while verbs.try_join_next().is_some() {}
        }
        // A link that is half made would be removed and made again: let the last ones finish.
        let _ = tokio::time::timeout(VERB_TIMEOUT, async { while verbs.join_next().await.is_some() {} }).await;
        let _ = std::fs::remove_file(socket);
        Ok(())
    }

    async fn serve(&self, mut stream: UnixStream) {
        let reply = match receive(&stream).await {
            Ok((request, netns)) => match self.perform(&request, netns).await {
                Ok(result) => Reply::Done(result),
                Err(error) => {
                    tracing::warn!(command = ?request.command, sandbox = request.container_id, err = %error, "CNI");
                    Reply::Failed(error)
                }
            },
            Err(error) => Reply::Failed(CniError::new(Code::Decode, "read the request", error)),
        };
        let text = serde_json::to_vec(&reply).expect("a reply is JSON");
        // A plugin that went away asks again.
        let _ = stream.write_all(&text).await;
    }

    async fn perform(&self, request: &Request, netns: Option<OwnedFd>) -> Result<Value, CniError> {
        let owner = Owner { sandbox: request.container_id.clone(), interface: request.interface.clone() };
        match request.command {
            Command::Add => self.add(request, owner, netns).await,
            Command::Del => self.del(owner).await,
            Command::Check => self.check(owner, netns).await,
        }
    }

    async fn add(&self, request: &Request, owner: Owner, netns: Option<OwnedFd>) -> Result<Value, CniError> {
        let netns = netns.ok_or_else(|| {
            CniError::new(Code::UnknownContainer, "open the network namespace", request.netns.display())
        })?;
        let arguments = request.arguments.as_str();
        let pod = ["K8S_POD_NAMESPACE", "K8S_POD_NAME"].map(|key| argument(arguments, key).unwrap_or_default());
        let ports = request.config.runtime_config.port_mappings.iter().filter(|port| port.host_port != 0);
        let record = Record {
            owner: owner.clone(),
            addresses: Vec::new(),
            netns: request.netns.clone(),
            pod: pod.join("/"),
            ports: ports.cloned().collect(),
        };
        let record = {
            let mut pool = self.pool.lock().await;
            let taken = pool.take(record);
            taken.map_err(|error| CniError::new(Code::Addresses, "take an address", base::Chain(&error)))?
        };
        let link = self.link(&record);
        if let Err(error) = link::connect_pod(&self.netlink.handle, &self.bridge, netns, &link).await {
            let mut pool = self.pool.lock().await;
            let _ = pool.release(&owner);
            return Err(CniError::new(Code::Network, "connect the pod", base::Chain(&error)));
        }
        let pool = self.pool.lock().await;
        self.publish(&pool);
        Ok(self.result(request, &record, &link))
    }

    async fn del(&self, owner: Owner) -> Result<Value, CniError> {
        let mut pool = self.pool.lock().await;
        self.forget(&mut pool, &owner).await?;
        self.publish(&pool);
        Ok(Value::Null)
    }

    async fn check(&self, owner: Owner, netns: Option<OwnedFd>) -> Result<Value, CniError> {
        let record = self.pool.lock().await.get(&owner).cloned();
        let (Some(record), Some(netns)) = (record, netns) else {
            return Err(CniError::new(Code::UnknownContainer, "nothing is known of this sandbox", &owner.sandbox));
        };
        let probed = link::probe_pod(netns, self.link(&record)).await;
        probed.map_err(|error| CniError::new(Code::Network, "the pod's link", base::Chain(&error)))?;
        Ok(Value::Null)
    }

    /// The link first: an address must not be given out while packets for it still find the old pod.
    async fn forget(&self, pool: &mut Pool, owner: &Owner) -> Result<(), CniError> {
        let name = self.names.link(&owner.sandbox, &owner.interface);
        let removed = link::remove(&self.netlink.handle, &name).await;
        removed.map_err(|error| CniError::new(Code::Network, "remove the link", base::Chain(&error)))?;
        let released = pool.release(owner);
        released.map_err(|error| CniError::new(Code::Addresses, "give the address back", base::Chain(&error)))?;
        Ok(())
    }

    fn publish(&self, pool: &Pool) {
        let records: Vec<Record> = pool.records().cloned().collect();
        self.records.send_if_modified(|old| {
            let changed = **old != records;
            *old = Arc::new(records);
            changed
        });
    }

    fn link(&self, record: &Record) -> PodLink {
        PodLink {
            host: self.names.link(&record.owner.sandbox, &record.owner.interface),
            interface: record.owner.interface.clone(),
            addresses: record.addresses.clone(),
        }
    }

    fn result(&self, request: &Request, record: &Record, link: &PodLink) -> Value {
        let gateways: Vec<IpAddr> = self.bridge.ranges.iter().map(gateway).collect();
        let ips = record.addresses.iter().map(|address| {
            let gateway = gateways.iter().find(|gateway| gateway.is_ipv4() == address.is_ipv4());
            json!({ "interface": 2, "address": IpNet::from(*address), "gateway": gateway })
        });
        let routes = gateways
            .iter()
            .map(|gateway| json!({ "dst": if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": gateway }));
        let hardware = link.addresses.first().map(|address| hardware_text(&hardware_address(*address)));
        json!({
            "cniVersion": request.config.version(),
            "interfaces": [
                { "name": self.bridge.name },
                { "name": link.host },
                { "name": link.interface, "mac": hardware, "sandbox": record.netns },
            ],
            "ips": ips.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
            "dns": {},
        })
    }
}

/// One line, with the descriptor that came along.
async fn receive(stream: &UnixStream) -> io::Result<(Request, Option<OwnedFd>)> {
    let mut line = Vec::new();
    let mut netns = None;
    let mut buffer = vec![0; READ_BYTES];
    while !line.ends_with(b"\n") {
        stream.readable().await?;
        let received = stream.try_io(tokio::io::Interest::READABLE, || sys::receive_with(stream.as_fd(), &mut buffer));
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, passed)) => {
                line.extend_from_slice(&buffer[..count]);
                netns = passed.or(netns);
            }
        }
        if MESSAGE_BYTES_MAX < line.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is too large"));
        }
    }
    Ok((serde_json::from_slice(&line)?, netns))
}
