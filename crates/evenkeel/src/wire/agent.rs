//! `evenkeel agent`: a machine that joins. It trusts the server whose authority its token names, asks for certificates
//! that can only name this node, keeps them, and renews them with the key of its machine.

mod trust;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::{Chain, Clock};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use tracing::{error, info, warn};
use view::{Backoff, Client, Drain, Endpoint};

use self::trust::Trust;
use super::door::{Attempt, Door};
use super::endpoints::KnownServers;
use super::join::JOIN_PATH;
use super::join::messages::{ClusterSettings, JoinAnswer, JoinRequest};
use super::keeper::{self, Confirm};
use super::node::{self, NodeTls};
use super::restart::Restart;
use super::signals::Signals;
use super::{SystemClock, SystemRng, host, pid, renewal_pause};
use crate::cli::AgentArgs;
use crate::layout::Layout;
use crate::pki::{self, Access, Leaf, Lineage, MachineKey, NodeIdentity, TokenText};

const RETRY: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(15) };
/// How often it is looked whether the cluster has other authorities.
const TRUST_LOOK: Duration = Duration::from_secs(10);
/// How often it is asked whether this machine still belongs to the cluster.
const CHECK_IN: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What joining needs, and what it gave.
struct Member {
    layout: Layout,
    name: String,
    addresses: Vec<IpAddr>,
    machine: MachineKey,
    known: KnownServers,
    token: Option<TokenText>,
}

pub async fn run(args: AgentArgs) -> Result<()> {
    let layout = args.common.layout();
    keeper::boot::choose(&layout)?;
    let _lock = store::DataLock::acquire(&layout.agent()).context("is this agent running already?")?;
    pid::note(&layout)?;
    let restart = Restart::of_this_process().context("find this program")?;
    let name = host::node_name(&args.node)?;
    let joined = Endpoint::parse(&args.server)?;
    let addresses = host::node_addresses(&args.node)?;
    info!(node = %name, node_ip = ?addresses, cluster = joined.url(), "a node, with these addresses");
    let member = Member {
        known: KnownServers::new(&layout, &name, None, Some(&joined)),
        name,
        addresses,
        machine: MachineKey::load_or_draw(&layout.machine_key()).context("the key of this machine")?,
        token: token(&args)?,
        layout,
    };
    let (identity, cluster) = member.identity().await?;
    let (tls, due) = (NodeTls::new(&identity)?, member.due(&identity));
    let drain = Drain::new();
    let parts = node::Parts {
        args: args.node.clone(),
        layout: member.layout.clone(),
        name: member.name.clone(),
        addresses: member.addresses.clone(),
        cluster,
        known: member.known.clone(),
        config: args.common.config.clone(),
        disable: Vec::new(),
        extension: Some(keeper::node::Node::new(&member.layout, ::keeper::Role::Agent, restart.clone())?),
        edited: None,
    };
    let layout = member.layout.clone();
    let api = node::client(&parts, &tls);
    let node = Some((api.clone(), member.name.clone()));
    let confirming = Confirm { layout: layout.clone(), api: None, node }.run(drain.clone());
    let mut signals = Signals::new().context("receive signals")?;
    let mut running = tokio::spawn(node::run(parts, tls.clone(), drain.clone()));
    tokio::spawn(confirming);
    let member = Arc::new(member);
    let renewing = tokio::spawn(renew(member.clone(), due, tls, api, drain.clone()));
    tokio::select! {
        () = signals.received() => {}
        () = restart.requested() => {}
        ended = &mut running => return ended.context("the node")?,
        refusal = refused(&member) => return Err(refusal),
    }
    info!("draining; pods keep running");
    drain.cancel();
    if tokio::time::timeout(DRAIN_TIMEOUT, running).await.is_err() {
        warn!("the drain took longer than {} s", DRAIN_TIMEOUT.as_secs());
    }
    renewing.abort();
    if restart.is_requested() {
        keeper::boot::leave(&layout, &restart)?;
    }
    Ok(())
}

fn token(args: &AgentArgs) -> Result<Option<TokenText>> {
    let text = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?,
        (None, None) => return Ok(None),
    };
    Ok(Some(TokenText::parse(&text)?))
}

/// Resolves when the cluster says that this machine does not belong to it. Its pods are left as they are.
async fn refused(member: &Member) -> anyhow::Error {
    loop {
        if let Ok(door) = member.door().await
            && let Some(refusal) = door.check_in(&member.name, &member.machine).await
        {
            return refusal;
        }
        tokio::time::sleep(CHECK_IN).await;
    }
}

/// Asks for certificates again when they are due, or when the cluster has other authorities, and says whom this machine
/// trusts. Connections that are open keep what they were made with.
async fn renew(member: Arc<Member>, mut due: Timestamp, tls: NodeTls, api: Client, drain: Drain) {
    let mut trust = Trust::new(api, &member.name, &member.layout);
    loop {
        let renewed = async {
            let other = trust.is_other().await;
            if other || due <= SystemClock.now() {
                let (identity, _) = if other { member.join().await? } else { member.identity().await? };
                tls.renew(&identity)?;
                due = member.due(&identity);
            }
            trust.tell().await
        };
        if let Err(failure) = renewed.await {
            error!(error = %Chain(failure.as_ref()), "certificates were not renewed");
        }
        let pause = tokio::time::sleep(renewal_pause(due, SystemClock.now()).min(TRUST_LOOK));
        if drain.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

// === impl Member ===

impl Member {
    /// The certificates on disk until they are due; else new ones from the server, for which the first time takes a
    /// token. Those that are due serve while the server does not answer: a node starts without it.
    async fn identity(&self) -> Result<(NodeIdentity, ClusterSettings)> {
        let mut kept = self.kept()?;
        let now = SystemClock.now();
        let fresh = |kept: &NodeIdentity| !kept.client.is_due(now) && !kept.serving.is_due(now);
        if let Some(kept) = kept.take_if(|(kept, _)| fresh(kept) && now < self.due(kept)) {
            return Ok(kept);
        }
        let mut failures = 0;
        loop {
            match self.join().await {
                Ok(joined) => return Ok(joined),
                Err(Attempt::Final(failure)) => return Err(failure),
                Err(Attempt::Again(failure)) => {
                    if let Some(kept) = kept {
                        warn!(error = %Chain(failure.as_ref()), "certificates are due, but the server does not answer");
                        return Ok(kept);
                    }
                    failures += 1;
                    let pause = RETRY.pause(failures, &SystemRng);
                    warn!(error = %Chain(failure.as_ref()), "the server does not let us join yet");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// When new certificates are asked for: at once where this machine has other addresses than those say.
    fn due(&self, identity: &NodeIdentity) -> Timestamp {
        let same = identity.serving.addresses().iter().eq(&self.addresses.iter().copied().collect::<BTreeSet<_>>());
        if same { identity.due() } else { Timestamp::UNIX_EPOCH }
    }

    /// What an earlier join left, where it still serves this cluster.
    fn kept(&self) -> Result<Option<(NodeIdentity, ClusterSettings)>> {
        let folder = self.layout.agent_tls();
        let now = SystemClock.now();
        let leaf = |name: &str| Leaf::load(&folder, name);
        let (client, serving) = (leaf("node-client")?, leaf("kubelet-serving")?);
        let texts = (
            pki::read(&folder.join("server-ca.crt"))?,
            pki::read(&folder.join("client-ca.crt"))?,
            pki::read(&self.layout.agent().join("cluster.json"))?,
        );
        let (Some(client), Some(serving), (Some(server_ca_pem), Some(client_ca_pem), Some(cluster))) =
            (client, serving, texts)
        else {
            return Ok(None);
        };
        // A token for another cluster means that this machine is to move.
        let lineage = Lineage::of(&folder)?;
        let moved = self.token.as_ref().is_some_and(|token| !is_of(token, &server_ca_pem, &lineage));
        if moved || !client.serves(now) || !serving.serves(now) {
            return Ok(None);
        }
        let Ok(cluster) = serde_json::from_str(&cluster) else { return Ok(None) };
        Ok(Some((NodeIdentity { client, serving, server_ca_pem, client_ca_pem }, cluster)))
    }

    async fn join(&self) -> Result<(NodeIdentity, ClusterSettings), Attempt> {
        let door = self.door().await?;
        let (client_key, serving_key) = (key()?, key()?);
        let request = JoinRequest {
            node_name: self.name.clone(),
            addresses: self.addresses.clone(),
            client_request: csr(&client_key)?,
            serving_request: csr(&serving_key)?,
        };
        let secret = self.token.as_ref().map(|token| token.secret.as_str());
        let answer: JoinAnswer = door.ask(JOIN_PATH, &request, &self.machine, secret).await?;
        // A server of before says nothing of authorities that change.
        let server_ca = if answer.server_ca.is_empty() { door.ca_pem } else { answer.server_ca.clone() };
        self.store(server_ca, &answer, &client_key, &serving_key).map_err(Attempt::Final)
    }

    fn store(
        &self,
        server_ca_pem: String,
        answer: &JoinAnswer,
        client_key: &KeyPair,
        serving_key: &KeyPair,
    ) -> Result<(NodeIdentity, ClusterSettings)> {
        let folder = self.layout.agent_tls();
        let serving = &answer.serving_certificate;
        let serving = Leaf::store(&folder, "kubelet-serving", serving, &serving_key.serialize_pem())?;
        let client = &answer.client_certificate;
        let client = Leaf::store(&folder, "node-client", client, &client_key.serialize_pem())?;
        let file = folder.join("server-ca.crt");
        if let Some(before) = pki::read(&file)? {
            Lineage::note(&folder, &before, &server_ca_pem)?;
        }
        pki::write(&file, server_ca_pem.as_bytes(), Access::Public)?;
        pki::write(&folder.join("client-ca.crt"), answer.client_ca.as_bytes(), Access::Public)?;
        let cluster = serde_json::to_string(&answer.cluster)?;
        pki::write(&self.layout.agent().join("cluster.json"), cluster.as_bytes(), Access::Public)?;
        info!(node = %self.name, "joined");
        let client_ca_pem = answer.client_ca.clone();
        Ok((NodeIdentity { client, serving, server_ca_pem, client_ca_pem }, answer.cluster.clone()))
    }

    /// The cluster: the one we know, or the one whose authority is in the token.
    async fn door(&self) -> Result<Door, Attempt> {
        let folder = self.layout.agent_tls();
        let kept = pki::read(&folder.join("server-ca.crt")).map_err(Attempt::fatal)?;
        let lineage = Lineage::of(&folder).map_err(Attempt::fatal)?;
        let endpoints = self.known.endpoints();
        let Some(token) = &self.token else {
            let missing = "a join token is needed: `evenkeel token create` on the server prints one";
            let ca_pem = kept.ok_or_else(|| Attempt::Final(anyhow::anyhow!(missing)))?;
            return Ok(Door { endpoints, ca_pem });
        };
        match kept.filter(|kept| is_of(token, kept, &lineage)) {
            Some(ca_pem) => Ok(Door { endpoints, ca_pem }),
            None => Door::find(endpoints, token).await,
        }
    }
}

/// True where a token is for this cluster, whatever authorities it had when it was made.
fn is_of(token: &TokenText, ca_pem: &str, lineage: &Lineage) -> bool {
    token.trusts(ca_pem) || lineage.holds(&token.ca_hash)
}

fn key() -> Result<KeyPair, Attempt> {
    KeyPair::generate().map_err(Attempt::fatal)
}

/// A request without any name: the server decides what the certificate says.
fn csr(key: &KeyPair) -> Result<String, Attempt> {
    CertificateParams::default().serialize_request(key).and_then(|request| request.pem()).map_err(Attempt::fatal)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use base::Clock;
    use jiff::SignedDuration;
    use view::Endpoint;

    use super::{KnownServers, Member};
    use crate::layout::Layout;
    use crate::pki::{self, Access, MachineKey, NodeIdentity, ServerPki};
    use crate::wire::SystemClock;
    use crate::wire::join::messages::ClusterSettings;

    #[tokio::test]
    async fn certificates_that_are_due_serve_while_the_server_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let then = SystemClock.now() - SignedDuration::from_hours(24 * 300);
        let authorities = ServerPki::load_or_make(&layout, pki::leaf::LEAF_LIFE, then).unwrap();
        let (issued, _) = NodeIdentity::of_server(&layout, &authorities, "n", &BTreeSet::new(), then).unwrap();
        assert!(issued.client.is_due(SystemClock.now()));
        let write = |path: std::path::PathBuf, text: &str| pki::write(&path, text.as_bytes(), Access::Public).unwrap();
        write(layout.agent_tls().join("server-ca.crt"), &issued.server_ca_pem);
        write(layout.agent_tls().join("client-ca.crt"), &issued.client_ca_pem);
        let cluster = ClusterSettings {
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            local_path: None,
        };
        write(layout.agent().join("cluster.json"), &serde_json::to_string(&cluster).unwrap());
        // Nobody listens there.
        let known = KnownServers::new(&layout, "n", None, Some(&Endpoint::new("127.0.0.1", 1)));
        let machine = MachineKey::load_or_draw(&layout.machine_key()).unwrap();
        let member = Member { layout, name: "n".to_owned(), addresses: Vec::new(), machine, known, token: None };
        let (identity, _) = member.identity().await.unwrap();
        assert_eq!(identity.client.pem, issued.client.pem);
    }
}
