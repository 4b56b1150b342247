//! Which API servers there are: each holds a lease, and the `kubernetes` Service points at those whose leases are kept.
//!
//! A server that dies leaves within the lease's span and a turn; one that stops in good order leaves at once. Every server
//! writes the endpoints by the same rule, so that whoever is left keeps them true. Age is judged by when *we* saw a lease
//! change last: clocks of machines differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key, PatchType, Tree};
use base::{Chain, Clock};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};
use view::{Client, ClientError, Drain, ListOptions, PatchRequest};

const RENEW: Duration = Duration::from_secs(3);
/// A server that was silent for this long is not one to send anybody to.
const DURATION: Duration = Duration::from_secs(10);
/// A lease that was not seen before counts unless it is older than this by the clocks.
const STALE: SignedDuration = SignedDuration::from_secs(30);
/// Somebody else may change the endpoints: every so many turns they are looked at without a reason.
const LOOK_TURNS: u32 = 5;
const NAMESPACE: &str = "kube-system";
const PREFIX: &str = "apiserver-";
const LABEL: &str = "evenkeel.io/lease=apiserver";
const ADDRESS: &str = "evenkeel.io/address";

/// One server's lease, and its part in the endpoints.
pub struct Presence {
    client: Client,
    name: String,
    advertise: SocketAddr,
    clock: Arc<dyn Clock>,
    seen: Seen,
    /// What the Service points at by our last look, and the turns since then.
    pointed: (BTreeSet<SocketAddr>, u32),
}

/// The leases of others as they were last, and since when they have not changed.
#[derive(Debug, Default)]
struct Seen(BTreeMap<String, (String, Instant)>);

/// A lease as it was read.
#[derive(Clone, Debug)]
struct Held {
    name: String,
    renewed: String,
    address: Option<SocketAddr>,
}

/// The name of a server's lease.
pub fn lease_of(server: &str) -> Key {
    Key::new(NAMESPACE, &format!("{PREFIX}{server}"))
}

pub fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

/// The servers whose leases are not older than this by the clocks, in the order of their names.
pub async fn living(
    client: &Client,
    now: Timestamp,
    fresh: SignedDuration,
) -> Result<Vec<(String, SocketAddr)>, ClientError> {
    let held = held(client).await?;
    let is_fresh =
        |lease: &Held| lease.renewed.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at).abs() <= fresh);
    let named = |lease: Held| Some((lease.name.strip_prefix(PREFIX)?.to_owned(), lease.address?));
    Ok(held.into_iter().filter(is_fresh).filter_map(named).collect())
}

async fn held(client: &Client) -> Result<Vec<Held>, ClientError> {
    let options = ListOptions { namespace: Some(NAMESPACE), label_selector: Some(LABEL), ..ListOptions::default() };
    let list = client.list(&leases(), &options).await?;
    let trees = list.items.iter().map(|object| serde_json::from_slice::<Tree>(&object.bytes).unwrap_or_default());
    Ok(trees.map(|tree| Held::of(&tree)).collect())
}

// === impl Presence ===

impl Presence {
    pub fn new(client: Client, name: &str, advertise: SocketAddr, clock: Arc<dyn Clock>) -> Presence {
        Presence { client, name: name.to_owned(), advertise, clock, seen: Seen::default(), pointed: Default::default() }
    }

    /// Holds the lease until the drain, then gives it up.
    pub async fn run(mut self, drain: Drain) {
        while drain.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_some() {
            if let Err(error) = self.turn().await {
                warn!(error = %Chain(&error), "this server's lease is not renewed");
            }
        }
        if let Err(error) = self.leave().await {
            warn!(error = %Chain(&error), "this server's lease is not given up; it expires");
        }
    }

    /// Renews, and writes the endpoints where they are not what they should be.
    pub async fn turn(&mut self) -> Result<(), ClientError> {
        self.renew().await?;
        let held = held(&self.client).await?;
        let mut live = self.seen.live(&held, Instant::now(), self.clock.now());
        live.insert(self.advertise);
        let (pointed, turns) = &mut self.pointed;
        *turns += 1;
        if *pointed == live && *turns < LOOK_TURNS {
            return Ok(());
        }
        self.point(&live).await?;
        self.pointed = (live, 0);
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), ClientError> {
        self.client.delete(&leases(), &lease_of(&self.name), &json!({})).await?;
        let held = held(&self.client).await?;
        let mut live = self.seen.live(&held, Instant::now(), self.clock.now());
        live.remove(&self.advertise);
        // The last one leaves the address behind: it is where the cluster will be again.
        if live.is_empty() { Ok(()) } else { self.point(&live).await }
    }

    async fn renew(&self) -> Result<(), ClientError> {
        let key = lease_of(&self.name);
        let (kind, value) = LABEL.split_once('=').expect("it is an equation");
        let now = format!("{:.6}", self.clock.now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": key.name, "namespace": NAMESPACE, "labels": {kind: value},
                "annotations": {ADDRESS: self.advertise.to_string()},
            },
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": DURATION.as_secs(), "renewTime": now},
        });
        let gvr = leases();
        let patch = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &lease };
        match self.client.patch(&patch).await {
            Err(error) if error.is_not_found() => self.client.create(&gvr, NAMESPACE, &lease).await.map(drop),
            outcome => outcome.map(drop),
        }
    }

    async fn point(&self, live: &BTreeSet<SocketAddr>) -> Result<(), ClientError> {
        for (gvr, object) in [(Gvr::new("", "v1", "endpoints"), endpoints(live)), (slices(), slice(live))] {
            let key = Key::new("default", "kubernetes");
            match self.client.get(&gvr, &key).await {
                Ok(found) if says(&found, &object) => continue,
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    match self.client.create(&gvr, "default", &object).await {
                        Err(error) if !error.is_already_exists() => return Err(error),
                        _ => continue,
                    };
                }
                Err(error) => return Err(error),
            }
            info!(resource = %gvr.resource, servers = ?live, "the kubernetes Service points elsewhere");
            let patch =
                PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &object };
            self.client.patch(&patch).await?;
        }
        Ok(())
    }
}

// === impl Seen ===

impl Seen {
    /// The servers whose leases are kept.
    fn live(&mut self, held: &[Held], now: Instant, clock: Timestamp) -> BTreeSet<SocketAddr> {
        self.0.retain(|name, _| held.iter().any(|lease| lease.name == *name));
        let mut live = BTreeSet::new();
        for lease in held {
            let since = match self.0.get(&lease.name) {
                Some((renewed, since)) if *renewed == lease.renewed => *since,
                Some(_) => now,
                None if lease.is_stale(clock) => now.checked_sub(DURATION).unwrap_or(now),
                None => now,
            };
            self.0.insert(lease.name.clone(), (lease.renewed.clone(), since));
            if now.duration_since(since) < DURATION {
                live.extend(lease.address);
            }
        }
        live
    }
}

// === impl Held ===

impl Held {
    fn of(lease: &Tree) -> Held {
        let text = |tree: &Tree| tree.as_str().unwrap_or_default().to_owned();
        Held {
            name: text(&lease["metadata"]["name"]),
            renewed: text(&lease["spec"]["renewTime"]),
            address: text(&lease["metadata"]["annotations"][ADDRESS]).parse().ok(),
        }
    }

    fn is_stale(&self, clock: Timestamp) -> bool {
        self.renewed.parse::<Timestamp>().is_ok_and(|at| clock.duration_since(at).abs() > STALE)
    }
}

/// Whether an object holds everything that another says; lists are whole.
fn says(object: &Tree, wanted: &Tree) -> bool {
    match (object, wanted) {
        (Tree::Object(have), Tree::Object(want)) => {
            want.iter().all(|(key, value)| have.get(key).is_some_and(|have| says(have, value)))
        }
        (Tree::Array(have), Tree::Array(want)) => {
            have.len() == want.len() && have.iter().zip(want).all(|(have, want)| says(have, want))
        }
        (have, want) => have == want,
    }
}

fn slices() -> Gvr {
    Gvr::new("discovery.k8s.io", "v1", "endpointslices")
}

/// All servers of one cluster listen on one port, as everywhere.
fn port(servers: &BTreeSet<SocketAddr>) -> u16 {
    servers.first().map(SocketAddr::port).unwrap_or_default()
}

fn endpoints(servers: &BTreeSet<SocketAddr>) -> Tree {
    let addresses: Vec<Tree> = servers.iter().map(|server| json!({"ip": server.ip().to_string()})).collect();
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": addresses, "ports": [{"name": "https", "port": port(servers), "protocol": "TCP"}]}],
    })
}

fn slice(servers: &BTreeSet<SocketAddr>) -> Tree {
    let family = if servers.first().is_none_or(SocketAddr::is_ipv4) { "IPv4" } else { "IPv6" };
    let endpoints: Vec<Tree> = servers
        .iter()
        .map(|server| json!({"addresses": [server.ip().to_string()], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "endpoints": endpoints, "ports": [{"name": "https", "port": port(servers), "protocol": "TCP"}],
    })
}

#[cfg(test)]
mod tests {
    use super::{DURATION, Held, Presence, Seen, slices};
    use crate::wire::SystemClock;
    use api::{Gvr, Key};
    use base::Clock;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::Instant;
    use view::fake::FakeApi;

    fn held(name: &str, renewed: &str) -> Held {
        Held { name: name.to_owned(), renewed: renewed.to_owned(), address: Some("10.0.0.1:6443".parse().unwrap()) }
    }

    #[test]
    fn a_lease_lives_while_it_changes_whatever_the_clocks_say() {
        let (mut seen, begin) = (Seen::default(), Instant::now());
        let clock = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut live =
            |renewed: &str, after: Duration| !seen.live(&[held("a", renewed)], begin + after, clock).is_empty();
        let ahead = "2027-01-01T00:00:00Z";
        assert!(!live(ahead, Duration::ZERO), "an old lease, or a clock far off: not yet");
        assert!(live("2027-01-01T00:00:03Z", Duration::from_secs(3)), "it is kept");
        assert!(live("2027-01-01T00:00:03Z", Duration::from_secs(12)));
        assert!(!live("2027-01-01T00:00:03Z", Duration::from_secs(3) + DURATION));
        assert!(live("2027-01-01T00:00:20Z", Duration::from_secs(20)), "it is back");
    }

    #[tokio::test]
    async fn the_service_points_at_those_who_are_there() {
        let api = FakeApi::new();
        let server = |name: &str, address: &str| {
            Presence::new(api.client(), name, address.parse().unwrap(), Arc::new(SystemClock) as Arc<dyn Clock>)
        };
        let servers = || {
            let key = Key::new("default", "kubernetes");
            let slice = api.get(&slices(), &key).unwrap();
            let endpoints = api.get(&Gvr::new("", "v1", "endpoints"), &key).unwrap();
            let addresses = endpoints["subsets"][0]["addresses"].as_array().unwrap().len();
            assert_eq!(slice["endpoints"].as_array().unwrap().len(), addresses);
            addresses
        };
        let (mut one, mut two) = (server("a", "10.0.0.1:6443"), server("b", "10.0.0.2:6443"));
        one.turn().await.unwrap();
        assert_eq!(servers(), 1);
        two.turn().await.unwrap();
        assert_eq!(servers(), 2);
        let writes = api.writes().len();
        one.turn().await.unwrap();
        assert_eq!(api.writes().len(), writes + 1, "only the lease");
        two.leave().await.unwrap();
        assert_eq!(servers(), 1);
        one.leave().await.unwrap();
        assert_eq!(servers(), 1, "the last one stays named");
    }
}
