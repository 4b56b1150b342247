//! This server's member of the managed etcd: begun as the first one or joined to others, found again at every start.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use apiserver::HealthCheck;
use arc_swap::ArcSwap;
use base::{Chain, Clock};
use container::child::{self, Supervised};
use jiff::Timestamp;
use store::etcd::{Config, Members, ReachError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};
use view::Drain;

use super::care::{Care, MemberCheck, Seen};
use super::member::{Files, Founding, Member, NAME, check_machine, client_url, own_url, peer_url};
use super::{PREFIX, flags};
use crate::layout::Layout;
use crate::pki::{self, ServerPki, client_config};
use crate::wire::{SystemClock, instance};

const AGAIN: Duration = Duration::from_millis(100);
/// How often it is said that the others are still waited for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What a member is made of.
#[derive(Clone)]
pub struct Settings {
    pub layout: Layout,
    /// The member's name is the node's.
    pub name: String,
    /// The node's addresses, primary first: there others reach the member.
    pub addresses: Vec<IpAddr>,
    pub pki: Arc<ServerPki>,
    /// `--etcd-arg`.
    pub arguments: Vec<String>,
}

/// The handle on this server's member. Cheap to clone; the process belongs to its [`Supervised`].
#[derive(Clone)]
pub struct Managed {
    settings: Settings,
    tls: Arc<ArcSwap<rustls::ClientConfig>>,
    /// Client URLs of the other members, best known.
    others: Arc<ArcSwap<Vec<String>>>,
    /// How the cluster was at the last look.
    pub(super) seen: Arc<watch::Sender<Seen>>,
}

/// A member that runs, and its process, to be watched with [`Supervised::run`].
pub type Running = (Managed, Supervised<Member>);

/// Stops this machine's member. True where one ran.
pub async fn stop(layout: &Layout) -> Result<bool> {
    child::stop(NAME, &Files::new(layout).record(), async { None }).await.context("stop etcd")
}

/// Watches the member's process and looks after the cluster until the drain, which leaves it running.
pub fn attend((managed, child): Running, tasks: &mut JoinSet<()>, drain: &Drain) -> Result<Managed> {
    tasks.spawn(Care::new(managed.clone())?.run(drain.clone()));
    let drain = drain.clone();
    tasks.spawn(child.run(async move { drain.cancelled().await }));
    Ok(managed)
}

// === impl Managed ===

#[allow(dead_code, reason = "what machines that join call, which are not there yet")]
impl Managed {
    pub fn layout(&self) -> &Layout {
        &self.settings.layout
    }

    /// Whether this server has a member with its state.
    pub fn found(layout: &Layout) -> bool {
        Files::new(layout).founding().exists()
    }

    /// Begins a cluster of one member, with nothing in it.
    pub async fn init(settings: Settings) -> Result<Running> {
        let (running, founding) = Managed::begin(settings).await?;
        running.0.serves().await;
        founding.write(&running.0.settings.layout)?;
        Ok(running)
    }

    /// Starts a member that others have announced ([`Members::add_learner`]), with all members and itself in
    /// `initial_cluster`. It learns in the background; [`Members::promote`] gives it its vote.
    pub async fn join(settings: Settings, initial_cluster: &[(String, String)]) -> Result<Running> {
        let layout = settings.layout.clone();
        ensure!(!Managed::found(&layout), "this server has an etcd member already, below {}", layout.etcd().display());
        discard(&layout).await?;
        let own = peer_url(settings.address());
        let text = |(name, url): &(String, String)| {
            // One that is announced has no name yet.
            let name = if *url == own { &settings.name } else { name };
            format!("{name}={url}")
        };
        let initial_cluster = initial_cluster.iter().map(text).collect::<Vec<_>>().join(",");
        let founding = Founding { name: settings.name.clone(), initial_cluster, existing: true };
        // From its first start on, its data is what the others know it by.
        founding.write(&layout)?;
        Managed::start(settings, founding).await
    }

    /// The name and address of this server's member, as it was founded; None where it has none.
    pub fn identity(layout: &Layout) -> Result<Option<(String, IpAddr)>> {
        Ok(Founding::read(layout)?.and_then(|founding| Some((founding.name.clone(), founding.address()?))))
    }

    /// The client URLs of the other members, best known.
    pub fn others(layout: &Layout) -> Result<Vec<String>> {
        let noted = pki::read(&Files::new(layout).others())?;
        Ok(noted.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// The folder that etcd itself writes to.
    pub fn data(layout: &Layout) -> PathBuf {
        Files::new(layout).data()
    }

    /// Notes that this server's member is its cluster's only one.
    pub fn found_alone(settings: &Settings) -> Result<()> {
        let initial_cluster = format!("{}={}", settings.name, peer_url(settings.address()));
        Founding { name: settings.name.clone(), initial_cluster, existing: false }.write(&settings.layout)?;
        pki::write(&Files::new(&settings.layout).others(), b"[]", pki::Access::Secret)?;
        Ok(())
    }

    /// Starts or adopts the member that this server has.
    pub async fn resume(settings: Settings) -> Result<Running> {
        let founding = Founding::read(&settings.layout)?.context("this server has no etcd member")?;
        Managed::start(settings, founding).await
    }

    /// A member alone, whose founding is not noted yet: what runs or lies there of an earlier try goes first.
    pub(super) async fn begin(settings: Settings) -> Result<(Running, Founding)> {
        let layout = settings.layout.clone();
        ensure!(!Managed::found(&layout), "this server has an etcd member already, below {}", layout.etcd().display());
        discard(&layout).await?;
        let initial_cluster = format!("{}={}", settings.name, peer_url(settings.address()));
        let founding = Founding { name: settings.name.clone(), initial_cluster, existing: false };
        Ok((Managed::start(settings, founding.clone()).await?, founding))
    }

    async fn start(settings: Settings, founding: Founding) -> Result<Running> {
        flags::check(&settings.arguments)?;
        let files = Files::new(&settings.layout);
        let others = Arc::new(ArcSwap::from_pointee(Managed::others(&settings.layout)?));
        let tls = Arc::new(ArcSwap::new(settings.client_tls(SystemClock.now())?.0));
        let managed = Managed { settings, tls, others, seen: Arc::new(watch::Sender::new(Seen::default())) };
        let member = managed.member(founding)?;
        if child::running(&files.record()).is_none() {
            // One that a killed server started, and did not live to note, has the ports.
            child::end_unrecorded(NAME, &files.record()).await?;
            check_machine(managed.settings.address())?;
        }
        let mut child = Supervised::new(member);
        match child.start().await {
            Ok(()) => {}
            // The others may have a quorum without this one.
            Err(failure) if !managed.others.load().is_empty() => {
                warn!(error = %Chain(&failure), "this server's etcd does not start; going on with the others");
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok((managed, child))
    }

    fn member(&self, founding: Founding) -> Result<Member> {
        let settings = &self.settings;
        Ok(Member {
            layout: settings.layout.clone(),
            founding,
            address: settings.address(),
            arguments: settings.arguments.clone(),
            cgroup: format!("{}-etcd", instance(&settings.layout)),
            own: Members::new(self.own())?,
        })
    }

    /// How the store reaches etcd: this server's own member first, then the others, as they come and go.
    pub fn config(&self) -> Config {
        let others = self.others.clone();
        Config { others: Some(Arc::new(move || others.load().to_vec())), ..self.own() }
    }

    /// This server's member alone.
    pub fn own(&self) -> Config {
        self.reaching(vec![self.own_url()])
    }

    /// Members elsewhere alone: for what one's own cannot be asked yet, being a learner.
    pub fn reaching(&self, endpoints: Vec<String>) -> Config {
        let tls = self.tls.clone();
        Config { endpoints, others: None, prefix: PREFIX.to_owned(), tls: Some(Arc::new(move || tls.load_full())) }
    }

    /// The members of the cluster, asked through whoever answers.
    pub fn members(&self) -> Result<Members> {
        Ok(Members::new(self.config())?)
    }

    /// True where the member's process trusts what it should, and has the flags that it should.
    pub fn is_current(&self) -> Result<bool> {
        let founding = Founding::read(&self.settings.layout)?.context("this server has no etcd member")?;
        self.member(founding)?.is_current()
    }

    /// True where this server's member answers, and knows who leads.
    pub async fn answers(&self) -> bool {
        let Ok(members) = Members::new(self.own()) else { return false };
        members.status(&self.own_url()).await.is_ok_and(|status| status.leader != 0)
    }

    /// How many other members there are, and the ids of those that answer.
    pub async fn others_that_answer(&self) -> Result<(usize, Vec<u64>)> {
        let (members, own) = (self.members()?, self.client_url());
        let mut others = members.list().await?;
        others.retain(|member| !member.client_urls.contains(&own));
        let looks = others.iter().map(async |member| {
            let status = members.status(member.client_urls.first()?).await.ok()?;
            (status.leader != 0 && !status.learner).then_some(status.id)
        });
        let answering = futures::future::join_all(looks).await.into_iter().flatten().collect();
        Ok((others.len(), answering))
    }

    /// Has the member's process start again, as it is wanted now, when another leads.
    pub async fn start_again(&self, others: &[u64]) -> Result<()> {
        let (members, own) = (self.members()?, self.own_url());
        let leads = members.status(&own).await.is_ok_and(|status| status.leader == status.id);
        if let Some(other) = others.first().filter(|_| leads)
            && let Err(failure) = members.move_leader(&own, *other).await
        {
            warn!(error = %Chain(&failure), "no other member leads etcd; its clients wait for a moment");
        }
        child::end_for_another(&Files::new(&self.settings.layout).record()).context("have etcd start again")
    }

    /// Where this machine's own processes reach the member.
    pub fn own_url(&self) -> String {
        self.settings.own_url()
    }

    /// Where other machines reach it as clients.
    pub fn client_url(&self) -> String {
        client_url(self.settings.address())
    }

    /// The size of the database at which writes stop.
    pub fn quota(&self) -> u64 {
        flags::quota(&self.settings.arguments)
    }

    /// Notes the other members, for connections from now on and for the next start.
    pub fn note_others(&self, client_urls: Vec<String>) -> Result<()> {
        let own = self.client_url();
        let mut others: Vec<String> = client_urls.into_iter().filter(|url| *url != own).collect();
        others.sort_unstable();
        others.dedup();
        if **self.others.load() != others {
            let path = Files::new(&self.settings.layout).others();
            pki::write(&path, serde_json::to_string(&others)?.as_bytes(), pki::Access::Secret)?;
            self.others.store(Arc::new(others));
        }
        Ok(())
    }

    /// How the cluster is, as of the last look.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// What `/readyz?verbose` says of it.
    pub fn check(&self) -> Arc<dyn HealthCheck> {
        Arc::new(MemberCheck(self.seen()))
    }

    /// Returns once a consistent read is answered. After a power cut in the rack that takes as long as a quorum takes.
    pub async fn serves(&self) {
        let mut said = Instant::now();
        loop {
            match store::etcd::reach(&self.config()).await {
                Ok(()) => return,
                Err(failure) if SAY_EVERY <= said.elapsed() => {
                    said = Instant::now();
                    let alone = self.others.load().is_empty();
                    let whom = if alone { "etcd" } else { "etcd; do most servers run?" };
                    warn!(error = %Chain(&failure), "waiting for {whom}");
                }
                Err(ReachError::Absent(_) | ReachError::Foreign(_)) => {}
                Err(failure) => info!(error = %Chain(&failure), "etcd does not serve yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Issues the member's certificate again where it is due; etcd and new connections use it from then on. Answers when
    /// it is due next.
    pub fn renew(&self, now: Timestamp) -> Result<Timestamp> {
        let (tls, due) = self.settings.client_tls(now)?;
        self.tls.store(tls);
        Ok(due)
    }
}

// === impl Settings ===

impl Settings {
    /// Members elsewhere, for a server that has none of its own yet.
    pub fn reaching(&self, endpoints: Vec<String>) -> Result<Config> {
        let (tls, _) = self.client_tls(SystemClock.now())?;
        Ok(Config { endpoints, others: None, prefix: PREFIX.to_owned(), tls: Some(Arc::new(move || tls.clone())) })
    }

    /// Where this machine's own processes reach the member.
    pub fn own_url(&self) -> String {
        own_url(self.address())
    }

    pub fn address(&self) -> IpAddr {
        self.addresses.first().copied().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
    }

    fn client_tls(&self, now: Timestamp) -> Result<(Arc<rustls::ClientConfig>, Timestamp)> {
        let (leaf, _) = self.pki.etcd_member(&self.name, &self.addresses, now).context("certificate of etcd")?;
        Ok((client_config(&self.pki.current().etcd.pem, Some(&leaf), true)?, leaf.due()))
    }
}

/// Ends what runs of a member and removes all of it: of one that never was, or that the cluster has removed.
pub async fn discard(layout: &Layout) -> Result<()> {
    stop(layout).await?;
    let folder = layout.etcd();
    // Without its founding, what is left is nobody's state.
    match std::fs::remove_file(Files::new(layout).founding()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove what is below {}", folder.display()));
        }
        _ => {}
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}
