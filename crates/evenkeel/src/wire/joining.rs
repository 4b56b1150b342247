//! A server that joins others: it takes what is the cluster's, becomes a member of its etcd, and from then on is a server
//! like any other.
//!
//! What is under way is noted before it begins and taken back when the member votes: whatever interrupts it, the same
//! command, or none, goes on from there.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::{Chain, SmolStr};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use store::etcd::{Member, Members, MembersError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use view::{Backoff, Drain, Endpoint};

use super::SystemRng;
use super::agreed::ClusterFlags;
use super::door::{Attempt, Door};
use super::endpoints::KnownServers;
use super::etcd::{self, Managed, Running, peer_url};
use super::join::JOIN_SERVER_PATH;
use super::join::messages::{ServerJoinAnswer, ServerJoinRequest};
use crate::cli::ServerArgs;
use crate::layout::Layout;
use crate::pki::{self, Access, Lineage, MachineKey, TokenText};

const RETRY: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(5) };
/// Between looks at a member that learns.
const LOOK: Duration = Duration::from_millis(200);
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How often a server asks the others whether it still belongs to them.
const CHECK_IN: Duration = Duration::from_secs(30);
/// How often a server looks which other members there are.
const MEMBERS_LOOK: Duration = Duration::from_secs(30);

/// A join under way, as it is noted on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joining {
    server: String,
    /// Client URLs of the cluster's etcd members, once everything else was taken over.
    etcd: Option<Vec<String>>,
}

/// Who joins.
pub struct Joiner<'a> {
    pub layout: &'a Layout,
    pub name: &'a str,
    pub addresses: &'a [IpAddr],
    pub key: &'a MachineKey,
}

impl Joiner<'_> {
    /// Brings what is the cluster's onto this machine, where it is to join one. Flags that all servers must agree on are
    /// the cluster's from then on.
    pub async fn enter(&self, args: &mut ServerArgs) -> Result<Option<Joining>> {
        let token = token(args)?;
        let noted = Joining::read(self.layout)?;
        let joining = match (noted, &args.server) {
            (Some(noted), _) => Some(noted),
            (None, Some(server)) if !self.is_server(token.as_ref(), server)? => {
                Some(Joining { server: Endpoint::parse(server)?.url(), etcd: None })
            }
            (None, _) => None,
        };
        let joining = match joining {
            Some(joining) if joining.etcd.is_none() => Some(self.fetch(joining, token, args).await?),
            other => other,
        };
        if let Some(text) = pki::read(&self.layout.shared_flags())? {
            let shared: ClusterFlags = serde_json::from_str(&text).context("read what the cluster agreed on")?;
            shared.adopt(args)?;
        }
        Ok(joining)
    }

    /// Why this machine does not belong to its cluster any more, by the word of the other servers. None where it does, and
    /// where none of them answers.
    pub async fn refusal(&self) -> Option<anyhow::Error> {
        let ca_pem = pki::read(&self.layout.server_tls().join("server-ca.crt")).ok().flatten()?;
        let known = KnownServers::new(self.layout, self.name, None, None).endpoints();
        let own: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let others = move || known().into_iter().filter(|server| !own.contains(&server.host)).collect::<Vec<_>>();
        if others().is_empty() {
            return None;
        }
        Door { endpoints: Arc::new(others), ca_pem }.check_in(self.name, self.key).await
    }

    /// True where this machine is a server of that cluster already; of another, it does not join.
    fn is_server(&self, token: Option<&TokenText>, server: &str) -> Result<bool> {
        let Some(ca) = pki::read(&self.layout.server_tls().join("server-ca.crt"))? else { return Ok(false) };
        let lineage = Lineage::of(&self.layout.server_tls())?;
        if token.is_none_or(|token| token.trusts(&ca) || lineage.holds(&token.ca_hash)) {
            return Ok(true);
        }
        bail!(
            "this machine is a server of another cluster than {server}; `evenkeel leave` takes it out of that one, \
             `evenkeel leave --local` makes it forget a cluster of its own"
        )
    }

    async fn fetch(&self, mut joining: Joining, token: Option<TokenText>, args: &ServerArgs) -> Result<Joining> {
        let token = token.context(
            "a server's join token is needed (--token): the first server's is in server/token of its data folder, and \
             `evenkeel token create --role server` makes others",
        )?;
        let address = self.addresses.first().copied().context("this machine has no address")?;
        let api = SocketAddr::new(args.advertise_address.unwrap_or(address), args.https_listen_port);
        info!(
            node = self.name, node_ip = %address, api = %format!("https://{api}"), etcd = peer_url(address),
            cluster = joining.server, "joining as a server, with these addresses"
        );
        joining.write(self.layout)?;
        let answer = self.ask(&joining, &token).await?;
        ensure!(
            !answer.etcd.is_empty() || args.datastore.datastore_endpoint.is_some(),
            "this cluster keeps its state in an etcd that somebody else runs: give this server the same --datastore-endpoint"
        );
        let mut checked = args.clone();
        answer.shared.adopt(&mut checked)?;
        for (path, content) in &answer.files {
            let plain = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            ensure!(plain && path.starts_with("server/"), "the server sent {path:?}, which is no file of a server");
            let content = STANDARD.decode(content).with_context(|| format!("read {path}"))?;
            pki::write(&self.layout.data.join(path), &content, Access::Secret)?;
        }
        let shared = serde_json::to_string(&answer.shared)?;
        pki::write(&self.layout.shared_flags(), shared.as_bytes(), Access::Public)?;
        joining.etcd = Some(answer.etcd);
        joining.write(self.layout)?;
        Ok(joining)
    }

    async fn ask(&self, joining: &Joining, token: &TokenText) -> Result<ServerJoinAnswer> {
        let joined = Endpoint::parse(&joining.server)?;
        let endpoints = KnownServers::new(self.layout, self.name, None, Some(&joined)).endpoints();
        let request = ServerJoinRequest { node_name: self.name.to_owned(), addresses: self.addresses.to_vec() };
        let (mut failures, mut said) = (0, String::new());
        loop {
            let asked = async {
                let door = Door::find(endpoints.clone(), token).await?;
                door.ask::<ServerJoinAnswer>(JOIN_SERVER_PATH, &request, self.key, Some(&token.secret)).await
            };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Final(refusal)) => {
                    Joining::remove(self.layout)?;
                    return Err(refusal);
                }
                Err(Attempt::Again(failure)) => {
                    let text = Chain(failure.as_ref()).to_string();
                    if text != said {
                        info!("not yet: {text}");
                        said = text;
                    }
                    failures += 1;
                    tokio::time::sleep(RETRY.pause(failures, &SystemRng)).await;
                }
            }
        }
    }
}

// === impl Joining ===

impl Joining {
    fn read(layout: &Layout) -> Result<Option<Joining>> {
        let path = layout.joining();
        let Some(text) = pki::read(&path)? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?))
    }

    fn write(&self, layout: &Layout) -> Result<()> {
        let text = serde_json::to_string(self)?;
        Ok(pki::write(&layout.joining(), text.as_bytes(), Access::Secret)?)
    }

    fn remove(layout: &Layout) -> Result<()> {
        match fs::remove_file(layout.joining()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("end the join"),
            _ => Ok(()),
        }
    }

    /// Makes this server a voting member of the cluster's etcd. Its process runs when this returns.
    pub async fn become_member(self, settings: etcd::Settings) -> Result<()> {
        let layout = settings.layout.clone();
        let others = self.etcd.unwrap_or_default();
        if others.is_empty() {
            return Joining::remove(&layout);
        }
        let own = peer_url(settings.address());
        let members = Members::new(settings.reaching(others)?)?;
        let ((managed, _child), id): (Running, u64) = if Managed::found(&layout) {
            let id = find(&members.list().await?, &own).context("the cluster does not know this member")?.id;
            (Managed::resume(settings).await?, id)
        } else {
            let (id, initial) = announce(&members, &own).await?;
            (Managed::join(settings, &initial).await?, id)
        };
        let all = promote(&members, id).await?;
        managed.note_others(all.into_iter().flat_map(|member| member.client_urls).collect())?;
        Joining::remove(&layout)
    }
}

fn find<'a>(members: &'a [Member], peer_url: &str) -> Option<&'a Member> {
    members.iter().find(|member| member.peer_urls.iter().any(|url| url == peer_url))
}

/// Has the others know of this member before it starts; answers its id and all names with their peer URLs.
async fn announce(members: &Members, own: &str) -> Result<(u64, Vec<(String, String)>)> {
    let mut said = None;
    loop {
        let outcome = match find(&members.list().await?, own) {
            // Announced by an earlier try, and never started.
            Some(member) if member.name.is_empty() => Ok((member.id, members.list().await?)),
            // It started, and its data is not here any more: it is not the same member.
            Some(member) => members.remove(member.id).await.map(drop).and(Err(MembersError::NotFound)),
            None => members.add_learner(own).await.map(|(member, all)| (member.id, all)),
        };
        match outcome {
            Ok((id, all)) => {
                let pair = |member: Member| Some((member.name, member.peer_urls.into_iter().next()?));
                return Ok((id, all.into_iter().filter_map(pair).collect()));
            }
            Err(
                failure @ (MembersError::LearnerJoins
                | MembersError::Margin(_)
                | MembersError::Unavailable(_)
                | MembersError::NotFound
                | MembersError::Exists),
            ) => {
                say(&mut said, &failure);
                tokio::time::sleep(LOOK).await;
            }
            Err(failure @ (MembersError::Config(_) | MembersError::NotCaughtUp | MembersError::Refused(_))) => {
                return Err(failure).context("announce this server's etcd member");
            }
        }
    }
}

/// Waits until the member has what the others have, and gives it its vote.
async fn promote(members: &Members, id: u64) -> Result<Vec<Member>> {
    let mut said = None;
    loop {
        let failure = match members.promote(id).await {
            Ok(all) => return Ok(all),
            Err(failure) => failure,
        };
        let all = members.list().await;
        if let Ok(all) = all
            && all.iter().any(|member| member.id == id && !member.learner)
        {
            return Ok(all);
        }
        if let MembersError::NotFound | MembersError::Config(_) = failure {
            return Err(failure).context("this server's etcd member was removed while it joined");
        }
        say(&mut said, &failure);
        tokio::time::sleep(LOOK).await;
    }
}

fn say(said: &mut Option<Instant>, failure: &MembersError) {
    if said.is_none_or(|at: Instant| SAY_EVERY <= at.elapsed()) {
        info!("not yet: {}", Chain(failure));
        *said = Some(Instant::now());
    }
}

/// Resolves when this machine does not belong to the cluster any more: by what is recorded, as this server reads it, or
/// by the word of the others.
pub async fn refused(joiner: &Joiner<'_>, mut revoked: watch::Receiver<BTreeSet<SmolStr>>) -> anyhow::Error {
    let own = SmolStr::from(joiner.key.id().uri());
    loop {
        let removed = revoked.wait_for(|revoked| revoked.contains(&own));
        match tokio::time::timeout(CHECK_IN, removed).await {
            Ok(Ok(_)) => {
                let removed = anyhow::anyhow!("this machine was removed from the cluster as {}", joiner.name);
                return joiner.refusal().await.unwrap_or(removed);
            }
            // The records are not followed any more: the server ends.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => {}
        }
        if let Some(refusal) = joiner.refusal().await {
            return refusal;
        }
    }
}

/// Keeps the list of the other members, for the store's connections and for the next start.
pub async fn follow_members(managed: Managed, drain: Drain) {
    loop {
        let listed = async {
            let all = managed.members()?.list().await?;
            managed.note_others(all.into_iter().filter(|one| !one.learner).flat_map(|one| one.client_urls).collect())
        };
        match drain.run_until_cancelled(listed).await {
            Some(Ok(())) => {}
            Some(Err(failure)) => warn!(error = %Chain(failure.as_ref()), "the members of etcd"),
            None => return,
        }
        if drain.run_until_cancelled(tokio::time::sleep(MEMBERS_LOOK)).await.is_none() {
            return;
        }
    }
}

/// A server's token as it was given. A plain secret is one for a cluster of its own.
fn token(args: &ServerArgs) -> Result<Option<TokenText>> {
    if args.server.is_none() {
        return Ok(None);
    }
    let text = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?,
        (None, None) => return Ok(None),
    };
    Ok(Some(TokenText::parse(&text)?))
}
