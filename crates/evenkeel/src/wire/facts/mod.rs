//! Where the facts of `keeper::wrong` come from: this machine, the cluster's record, and the doors of the others.
//!
//! Everything runs at once and everything has a deadline: what does not answer in time is itself a fact. Nothing here
//! judges, and nothing here is needed by anything that runs.

mod cluster;
pub mod course;
mod local;
mod members;
pub mod notice;
mod paths;
mod reach;
pub mod refused;
mod serve;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::Clock;
use keeper::wrong::{Fact, Facts, Missing, Name, What};
use view::{Client, Endpoint, Https};

use self::reach::Target;
use super::SystemClock;
use crate::layout::Layout;
use crate::pki::{self, Kubeconfig, Leaf, Lineage, client_config};

pub use local::{PROBE_COMMAND, Restored, node_name, tell_disk};
pub use serve::{FactsPath, NodeFacts};

/// Longest wait for one answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(700);
/// Longest wait for what another machine says of itself: it looks twice, the second time at what the first one found.
const PEER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Longest wait for the cluster's record: without it little is known.
const RECORD_TIMEOUT: Duration = Duration::from_millis(1_200);
/// How the reason begins where an API said nothing at all.
pub const NO_ANSWER: &str = "no answer";
/// The facts of one machine, as another one reads them.
pub const FACTS_PATH: &str = "/v1-evenkeel/facts";
/// Largest answer of another machine.
const FACTS_BYTES_MAX: usize = 4 << 20;
/// Digits that name a cluster.
const CLUSTER_DIGITS: usize = 8;
/// The port of the API where nothing says otherwise.
const API_PORT: u16 = 6443;

/// Whom to ask, and as whom.
pub struct Look {
    pub layout: Layout,
    pub config: PathBuf,
    /// The way in: None on a machine that has none.
    pub access: Option<Kubeconfig>,
    /// The program that tries the disks, where this process is to end.
    pub prober: Option<PathBuf>,
}

impl Look {
    /// Everything that can be known from here.
    pub async fn whole(&self) -> Result<Facts> {
        let access = self.access.as_ref().map(Access::new).transpose()?;
        // A machine that only joined asks the servers what they say of themselves, and has no way to the record.
        let witness = if access.is_none() { Access::of_node(&self.layout) } else { None };
        let from = node_name(&self.layout);
        let seen = async {
            let record = match &access {
                Some(access) => access.record(&from).await,
                None => Record::default(),
            };
            let peers = self.peers(&record, &from);
            let asked = async {
                match access.as_ref().or(witness.as_ref()) {
                    Some(access) => access.peers(&from, &peers).await,
                    None => Vec::new(),
                }
            };
            let (around, asked) = tokio::join!(self.around(&from, &record.targets, &peers), asked);
            (record, around, asked)
        };
        let own = local::facts(&self.layout, &self.config, self.prober.as_deref());
        let (own, (record, around, asked)) = tokio::join!(own, seen);
        let mut facts = Facts { cluster: self.cluster(), from, facts: own, ..Facts::default() };
        facts.facts.extend(self.foreign_target().into_iter().chain(around));
        facts.absorb(record.facts);
        for other in asked {
            facts.absorb(other);
        }
        Ok(reach::named(facts, &record.targets))
    }

    /// What this machine says when another asks: of itself, and whom it reaches.
    pub async fn own(&self) -> Facts {
        let access = self.access.as_ref().and_then(|access| Access::new(access).ok());
        let from = node_name(&self.layout);
        let seen = async {
            let record = match &access {
                Some(access) => access.nodes().await,
                None => Record::default(),
            };
            let peers = self.peers(&record, &from);
            (self.around(&from, &record.targets, &peers).await, record.targets)
        };
        let own = local::facts(&self.layout, &self.config, self.prober.as_deref());
        let (own, (around, targets)) = tokio::join!(own, seen);
        let mut facts = Facts { cluster: self.cluster(), from, facts: own, ..Facts::default() };
        let addresses = targets.iter().filter_map(|target| reach::address(&facts.from, target));
        let addresses: Vec<Fact> = addresses.collect();
        facts.facts.extend(around.into_iter().chain(addresses));
        facts
    }

    /// Whom this machine reaches and how well, and what the copies of the state say to it.
    async fn around(&self, from: &str, targets: &[Target], peers: &[Target]) -> Vec<Fact> {
        let members = members::facts(&self.layout, from, targets);
        let (reached, lost) = (reach::all(from, peers), paths::facts(from, peers));
        let (reached, lost, members) = tokio::join!(reached, lost, members);
        let unrouted = as_recorded(&self.layout, from, targets);
        reached.into_iter().chain(lost).chain(members).chain(unrouted).collect()
    }

    /// The cluster this machine belongs to, else the one that is asked.
    fn cluster(&self) -> Name {
        let own = self.own_authority();
        let asked = self.access.as_ref().map(|access| access.ca_pem.clone());
        let lineage = self.lineage();
        own.or(asked).map_or_else(|| "unknown".into(), |pem| short(&lineage, &pem))
    }

    /// Of a server, else what a machine that joined was given.
    fn own_authority(&self) -> Option<String> {
        let folders = [self.layout.server_tls(), self.layout.agent_tls()];
        folders.iter().find_map(|folder| pki::read(&folder.join("server-ca.crt")).ok().flatten())
    }

    /// Authorities that this cluster had before.
    fn lineage(&self) -> Lineage {
        let folders = [self.layout.server_tls(), self.layout.agent_tls()];
        let found = folders.iter().find(|folder| folder.join("server-ca.crt").exists());
        found.and_then(|folder| Lineage::of(folder).ok()).unwrap_or_default()
    }

    /// A kubeconfig of another cluster than this machine's.
    fn foreign_target(&self) -> Option<Fact> {
        let (own, lineage, asked) = (self.own_authority()?, self.lineage(), &self.access.as_ref()?.ca_pem);
        let (node, wanted) = (node_name(&self.layout), short(&Lineage::default(), asked).to_string());
        (!lineage.is_one(&own, asked)).then(|| fact(&node, "cluster", What::OtherTarget { wanted }))
    }

    /// Every other machine: from the record, else from what was known last.
    fn peers(&self, record: &Record, own: &str) -> Vec<Target> {
        let known = if record.targets.is_empty() { reach::remembered(&self.layout) } else { record.targets.clone() };
        known.into_iter().filter(|target| target.node != own && !reach::is_own(target)).collect()
    }
}

/// The cluster's record as far as it answered, and where the machines are.
#[derive(Default)]
struct Record {
    facts: Facts,
    targets: Vec<Target>,
}

/// The way in, ready to use.
struct Access {
    client: Client,
    endpoint: Endpoint,
    tls: Arc<rustls::ClientConfig>,
}

// === impl Access ===

impl Access {
    fn new(config: &Kubeconfig) -> Result<Access> {
        let leaf = Leaf::of_pem(&config.user.certificate_pem, &config.user.key_pem)?;
        let tls = client_config(&config.ca_pem, Some(&leaf), true)?;
        let endpoint = Endpoint::parse(&config.server)?;
        let client = client(endpoint.clone(), tls.clone());
        Ok(Access { client, endpoint, tls })
    }

    /// As the node that this machine is. None where it is none.
    fn of_node(layout: &Layout) -> Option<Access> {
        let folder = layout.agent_tls();
        let ca = pki::read(&folder.join("server-ca.crt")).ok()??;
        let leaf = Leaf::load(&folder, "node-client").ok()??;
        let tls = client_config(&ca, Some(&leaf), true).ok()?;
        let server = reach::remembered(layout).into_iter().find_map(|target| target.api)?;
        let endpoint = Endpoint::new(&server.ip().to_string(), server.port());
        Some(Access { client: client(endpoint.clone(), tls.clone()), endpoint, tls })
    }

    async fn record(&self, own: &str) -> Record {
        // An API that is only slow is not one that is down.
        let patient = self.client.clone().with_timeout(RECORD_TIMEOUT);
        let (api, lists) = tokio::join!(cluster::api(&patient), cluster::Lists::read(&patient));
        let now = SystemClock.now();
        let mut record = Record { targets: cluster::targets(&lists, self.endpoint.port), ..Record::default() };
        let asked = cluster::asked(&lists, &self.endpoint.host, own);
        record.facts.facts.extend(api.map(|what| fact(&asked, &asked, what)));
        record.facts.facts.extend(cluster::facts(&lists, now));
        record.facts.missing = lists.missing();
        record
    }

    /// Only where the machines are: what a machine that is asked needs.
    async fn nodes(&self) -> Record {
        let lists = cluster::Lists::nodes_only(&self.client).await;
        Record { targets: cluster::targets(&lists, self.endpoint.port), ..Record::default() }
    }

    /// The own facts of all other machines: a server's at its own API, an agent's at its port, through the API.
    async fn peers(&self, own: &str, peers: &[Target]) -> Vec<Facts> {
        let ask = peers.iter().map(|peer| async move {
            match peer.api {
                Some(address) => {
                    let endpoint = Endpoint::new(&address.ip().to_string(), address.port());
                    self.peer(own, peer, client(endpoint, self.tls.clone()).with_timeout(PEER_TIMEOUT), FACTS_PATH)
                        .await
                }
                None => {
                    let path = format!("/api/v1/nodes/{}/proxy{FACTS_PATH}", peer.node);
                    self.peer(own, peer, self.client.clone().with_timeout(PEER_TIMEOUT), &path).await
                }
            }
        });
        futures::future::join_all(ask).await
    }

    async fn peer(&self, own: &str, peer: &Target, client: Client, path: &str) -> Facts {
        let (asked, clock) = (std::time::Instant::now(), SystemClock.now());
        let answer = client.raw(path).await.context("ask");
        let answer = answer.and_then(|body| {
            anyhow::ensure!(body.len() <= FACTS_BYTES_MAX, "the answer is too large");
            Ok(serde_json::from_slice::<Facts>(&body)?)
        });
        match answer {
            Ok(mut facts) => {
                let offset = reach::clock_offset(&facts, &peer.node, clock, asked.elapsed());
                // Who asked is the witness of the other's clock.
                facts.facts.extend(offset.map(|millis| fact(own, &peer.node, What::ClockOffset { millis })));
                facts
            }
            Err(error) => {
                let what = format!("what {} says of itself", peer.node);
                Facts { missing: vec![Missing { what, why: error.root_cause().to_string() }], ..Facts::default() }
            }
        }
    }
}

fn client(endpoint: Endpoint, tls: Arc<rustls::ClientConfig>) -> Client {
    let transport = Https::new(endpoint, Arc::new(move || tls.clone()));
    let client = Client::new(Arc::new(transport), concat!("evenkeel-cli/", env!("CARGO_PKG_VERSION")));
    client.with_timeout(ANSWER_TIMEOUT)
}

fn short(lineage: &Lineage, ca_pem: &str) -> Name {
    lineage.cluster(ca_pem).chars().take(CLUSTER_DIGITS).collect::<String>().into()
}

/// How the routes of this machine are, compared with what the cluster's record says of others.
fn as_recorded(layout: &Layout, own: &str, targets: &[Target]) -> Option<Fact> {
    let unrouted = local::unrouted(layout, targets.iter().filter(|target| target.node != own))?;
    Some(fact(own, own, unrouted))
}

/// A fact of now.
fn fact(by: &str, about: &str, what: What) -> Fact {
    Fact { by: by.into(), about: about.into(), at: SystemClock.now(), what }
}
