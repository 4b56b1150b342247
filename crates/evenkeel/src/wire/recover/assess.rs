//! What a recovery would do, found out without doing it: who of the members answers, and what state this one would go on
//! with, rehearsed on a copy.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::Tree;
use base::Clock;
use futures::future::join_all;
use jiff::Timestamp;
use store::etcd::Members;
use store::{ListQuery, Store};
use tokio::net::TcpStream;

use super::copy::{clear, copy, stamp};
use super::forced::Forced;
use crate::wire::etcd::{Managed, PEER_PORT, Settings};
use crate::wire::join::judge::Machine;
use crate::wire::join::records::machine_of;
use crate::wire::{SystemClock, keyring};

/// A machine that is there answers, or refuses, far sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest that a quorum may take to say that there is one.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(5);

/// What was found.
pub enum Assessment {
    /// Most members run, or one may read consistently: nothing is to be recovered.
    Alive {
        answering: Vec<IpAddr>,
        members: usize,
    },
    Lost(Found),
}

/// What the survivor would go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The first characters of the hash of the cluster's authority.
    pub cluster: String,
    pub node: String,
    pub revision: u64,
    pub objects: usize,
    /// The newest time that anything in it tells of.
    pub newest: Option<Timestamp>,
    /// Servers that would be given up, by name.
    pub given_up: Vec<String>,
    /// Those of the other members that answer, though they are too few, by address.
    pub answering: Vec<IpAddr>,
    pub members: usize,
}

/// What the rehearsal told.
struct Rehearsed {
    found: Found,
    /// Where the other servers are, by the cluster's own records.
    addresses: BTreeSet<IpAddr>,
}

/// Looks at everything; changes nothing.
pub async fn assess(settings: &Settings) -> Result<Assessment> {
    ensure!(
        !settings.layout.joining().exists(),
        "this server never ended joining: what it has may be half of the state; recover on another one, or restore a bundle"
    );
    let known = known(settings).await?;
    let answering = answering(&known).await;
    if reads(settings).await? || is_most(&answering, &known) {
        return Ok(Assessment::Alive { answering, members: known.len() + 1 });
    }
    let Rehearsed { found, addresses } =
        rehearse(settings).await.context("rehearse it on a copy; nothing was changed")?;
    // Some may have joined that this machine has not noted yet.
    let all = &known | &addresses;
    let answering = self::answering(&all).await;
    let members = all.len() + 1;
    if is_most(&answering, &all) {
        return Ok(Assessment::Alive { answering, members });
    }
    Ok(Assessment::Lost(Found { answering, members, ..found }))
}

/// The other members' addresses: as this machine noted them, and as its own member knows them, if it answers.
async fn known(settings: &Settings) -> Result<BTreeSet<IpAddr>> {
    let mut urls = Managed::others(&settings.layout)?;
    let own = Members::new(settings.reaching(vec![settings.own_url()])?)?;
    if let Ok(Ok(members)) = tokio::time::timeout(ANSWER_TIMEOUT, own.list_as_known()).await {
        urls.extend(members.into_iter().flat_map(|member| member.client_urls));
    }
    let address = |url: String| Some(url.strip_prefix("https://")?.parse::<SocketAddr>().ok()?.ip());
    Ok(urls.into_iter().filter_map(address).filter(|address| !settings.addresses.contains(address)).collect())
}

/// With this one. A member that is alone and does not answer has no majority, only no process.
fn is_most(answering: &[IpAddr], others: &BTreeSet<IpAddr>) -> bool {
    !others.is_empty() && others.len().div_ceil(2) <= answering.len()
}

/// Those whose member's process listens: it does so while it waits for a quorum as well.
async fn answering(addresses: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let asked = addresses.iter().map(|address| async move {
        let peer = SocketAddr::new(*address, PEER_PORT);
        let tried = tokio::time::timeout(ANSWER_TIMEOUT, TcpStream::connect(peer)).await;
        matches!(tried, Ok(Ok(_))).then_some(*address)
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Whether a consistent read is answered, by whomever: then there is a quorum.
async fn reads(settings: &Settings) -> Result<bool> {
    let mut endpoints = vec![settings.own_url()];
    endpoints.extend(Managed::others(&settings.layout)?);
    let config = settings.reaching(endpoints)?;
    Ok(matches!(tokio::time::timeout(QUORUM_TIMEOUT, store::etcd::reach(&config)).await, Ok(Ok(()))))
}

async fn rehearse(settings: &Settings) -> Result<Rehearsed> {
    let layout = &settings.layout;
    let folder = layout.server().join("db/recovery-rehearsal");
    clear(&folder)?;
    let data = Managed::data(layout);
    let before = stamp(&data)?;
    copy(&data, &folder.join("data"))?;
    ensure!(before == stamp(&data)?, "the state was written to meanwhile; is there a quorum after all? Ask again");
    let outcome = read(settings, &folder).await;
    clear(&folder)?;
    outcome
}

async fn read(settings: &Settings, folder: &Path) -> Result<Rehearsed> {
    let forced = Forced::start(settings, &folder.join("data"), &folder.join("etcd.log")).await?;
    let engine = store::etcd::connect(forced.config.clone())?;
    let store =
        Store::open(engine, keyring(&settings.layout)?, Arc::new(SystemClock)).await.context("read the state")?;
    let others = other_servers(&store, &settings.name)?;
    let found = Found {
        cluster: settings.pki.current().cluster[..12].to_owned(),
        node: settings.name.clone(),
        revision: store.revision().0,
        objects: store.counts().into_iter().map(|(_, count)| count).sum(),
        newest: newest(&store)?,
        given_up: others.iter().map(|machine| machine.node.clone()).collect(),
        answering: Vec::new(),
        members: 1,
    };
    let addresses = others.iter().filter_map(|machine| machine.addresses.first().copied()).collect();
    drop(store);
    forced.end().await?;
    Ok(Rehearsed { found, addresses })
}

/// Leases are renewed every few seconds wherever a cluster lives.
fn newest(store: &Store) -> Result<Option<Timestamp>> {
    let leases = store.list("coordination.k8s.io/leases", &ListQuery::default())?;
    let now = SystemClock.now();
    let time = |lease: Tree| lease["spec"]["renewTime"].as_str()?.parse::<Timestamp>().ok();
    let times = leases.objects.iter().filter_map(|lease| time(lease.tree()));
    // A clock that was ahead says nothing.
    Ok(times.filter(|at| *at <= now).max())
}

fn other_servers(store: &Store, own: &str) -> Result<Vec<Machine>> {
    let secrets = store.list("/secrets", &ListQuery::default())?;
    let records = secrets.objects.iter().filter(|secret| secret.tree()["type"] == "evenkeel.io/machine");
    let machines = records.map(|record| machine_of(record.as_ref())).collect::<Result<Vec<_>, _>>()?;
    Ok(machines.into_iter().filter(|machine| machine.is_server() && machine.node != own).collect())
}

#[cfg(test)]
mod tests {
    use super::is_most;
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    #[test]
    fn most_of_the_members_with_this_one() {
        let others = |count: u8| (0..count).map(|last| IpAddr::from([10, 0, 0, last])).collect::<BTreeSet<_>>();
        let most = |answering: u8, all: u8| is_most(&others(answering).into_iter().collect::<Vec<_>>(), &others(all));
        assert!(most(1, 2) && !most(0, 2), "two of three are most");
        assert!(most(1, 1) && !most(0, 1), "one of two is not");
        assert!(most(2, 4) && !most(1, 4));
        assert!(!most(0, 0), "it is alone, and not there");
    }
}
