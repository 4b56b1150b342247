//! The way in to the cluster: its record, and what other machines say of themselves.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base::{Chain, Clock};
use keeper::wrong::{Facts, What};
use view::{Client, Endpoint, Https};

use super::reach::{self, Target};
use super::{ANSWER_TIMEOUT, FACTS_PATH, cluster, fact};
use crate::layout::Layout;
use crate::pki::{self, Kubeconfig, Leaf, client_config};
use crate::wire::SystemClock;

/// Longest wait for what another machine says of itself: it looks at others first, and they may be silent.
const PEER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Longest wait for the cluster's record: without it little is known.
const RECORD_TIMEOUT: Duration = Duration::from_millis(1_200);
/// Largest answer of another machine.
const FACTS_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(ANSWER_TIMEOUT.as_millis() * 2 < PEER_TIMEOUT.as_millis());

/// The cluster's record as far as it answered, and where the machines are.
#[derive(Default)]
pub struct Record {
    pub facts: Facts,
    pub targets: Vec<Target>,
}

/// The way in, ready to use.
pub struct Access {
    client: Client,
    endpoint: Endpoint,
    tls: Arc<rustls::ClientConfig>,
}

// === impl Access ===

impl Access {
    pub fn new(config: &Kubeconfig) -> Result<Access> {
        let leaf = Leaf::of_pem(&config.user.certificate_pem, &config.user.key_pem)?;
        let tls = client_config(&config.ca_pem, Some(&leaf), true)?;
        let endpoint = Endpoint::parse(&config.server)?;
        let client = client(endpoint.clone(), tls.clone());
        Ok(Access { client, endpoint, tls })
    }

    /// As the node that this machine is. None where it is none.
    pub fn of_node(layout: &Layout) -> Option<Access> {
        let folder = layout.agent_tls();
        let ca = pki::read(&folder.join("server-ca.crt")).ok()??;
        let leaf = Leaf::load(&folder, "node-client").ok()??;
        let tls = client_config(&ca, Some(&leaf), true).ok()?;
        let server = reach::remembered(layout).into_iter().find_map(|target| target.api)?;
        let endpoint = Endpoint::new(&server.ip().to_string(), server.port());
        Some(Access { client: client(endpoint.clone(), tls.clone()), endpoint, tls })
    }

    pub async fn record(&self, own: &str) -> Record {
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
    pub async fn nodes(&self) -> Record {
        let lists = cluster::Lists::nodes_only(&self.client).await;
        Record { targets: cluster::targets(&lists, self.endpoint.port), ..Record::default() }
    }

    /// Whether others are asked over the way that this machine knocks on: an API elsewhere may reach an agent that this
    /// machine does not.
    pub fn goes_straight_to(&self, peer: &Target) -> bool {
        let is_here = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
        peer.api.is_some() || self.endpoint.host.parse().is_ok_and(is_here)
    }

    /// The own facts of another machine, or why there are none: a server's at its own API, an agent's at its port, through
    /// the API.
    pub async fn ask(&self, own: &str, peer: &Target) -> Result<Facts, String> {
        let (client, path) = match peer.api {
            Some(address) => {
                let endpoint = Endpoint::new(&address.ip().to_string(), address.port());
                (client(endpoint, self.tls.clone()), FACTS_PATH.to_owned())
            }
            None => (self.client.clone(), format!("/api/v1/nodes/{}/proxy{FACTS_PATH}", peer.node)),
        };
        let (asked, clock) = (Instant::now(), SystemClock.now());
        let body = client.with_timeout(PEER_TIMEOUT).raw(&path).await;
        let body = body.map_err(|error| Chain(&error).to_string())?;
        let mut facts = read(&body).map_err(|error| error.root_cause().to_string())?;
        let offset = reach::clock_offset(&facts, clock, asked.elapsed());
        // Who asked is the witness of the other's clock.
        let offset = offset.map(|millis| fact(own, &facts.from, What::ClockOffset { millis }));
        facts.facts.extend(offset);
        Ok(facts)
    }
}

fn read(body: &[u8]) -> Result<Facts> {
    ensure!(body.len() <= FACTS_BYTES_MAX, "the answer is too large");
    Ok(serde_json::from_slice(body)?)
}

fn client(endpoint: Endpoint, tls: Arc<rustls::ClientConfig>) -> Client {
    let transport = Https::new(endpoint, Arc::new(move || tls.clone()));
    let client = Client::new(Arc::new(transport), concat!("evenkeel-cli/", env!("CARGO_PKG_VERSION")));
    client.with_timeout(ANSWER_TIMEOUT)
}
