//! The distribution's own paths beside the API: trust, joining, and the snapshot of a backup.
//!
//! - `/cacerts` (open): the server authority; a joining machine compares its hash with the one in its token.
//! - `/v1-evenkeel/join` (open, authenticates itself): two certificate requests, signed by a machine that is recorded or
//!   that brings a token; answers with certificates that can only name that node.
//! - `/v1-evenkeel/join-server` (open, likewise, with a server's token): everything that is the cluster's.
//! - `/v1-evenkeel/machine` (open, likewise): whether a machine still belongs to the cluster.
//! - `/v1-evenkeel/leave` (open, likewise): one step of a machine's way out; `/v1-evenkeel/remove?node=NAME` (authorised by
//!   path) the same for any other node.
//! - `/v1-evenkeel/snapshot` (authorised by path): a consistent export of the store, for `evenkeel backup`.

mod gate;
pub mod judge;
mod limit;
pub mod messages;
mod own;
pub mod records;
pub mod registrar;
mod removal;
pub mod server;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use admit::User;
use apiserver::{Body, Extension, RemoteAddress, full};
use async_trait::async_trait;
use base::{Chain, Clock};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{info, warn};
use view::Client;

pub use gate::Refused;
pub use own::{own_token, retarget, revocations};

use super::facts::refused;
use crate::layout::Layout;
use crate::pki::{MachineId, PkiError, Profile, ProofError, Role, ServerPki};
use gate::Gate;
use judge::Refusal;
use messages::{
    ClusterSettings, JoinAnswer, JoinRequest, Leaving, MachineRequest, ServerJoinAnswer, ServerJoinRequest, Signed,
};
use registrar::{Applicant, Only, RegisterError, Registrar};
pub use removal::is_ready;
use removal::{Removal, RemoveError};
use server::{GiveError, Side};

pub const CA_PATH: &str = "/cacerts";
pub const JOIN_PATH: &str = "/v1-evenkeel/join";
pub const JOIN_SERVER_PATH: &str = "/v1-evenkeel/join-server";
pub const MACHINE_PATH: &str = "/v1-evenkeel/machine";
pub const LEAVE_PATH: &str = "/v1-evenkeel/leave";
pub const REMOVE_PATH: &str = "/v1-evenkeel/remove";
pub const SNAPSHOT_PATH: &str = "/v1-evenkeel/snapshot";
/// Two certificate requests and a few names.
pub const JOIN_BYTES_MAX: usize = 64 << 10;
/// Addresses that a node may have in its serving certificate.
const ADDRESSES_MAX: usize = 16;

/// The server's side.
pub struct Join {
    pub pki: Arc<ServerPki>,
    pub settings: ClusterSettings,
    pub clock: Arc<dyn Clock>,
    pub store: store::Store,
    gate: Gate,
    /// Made once the API server is there that it asks.
    inside: OnceLock<Inside>,
}

/// The way to what the cluster knows, and what this server gives to others.
struct Inside {
    removal: Removal,
    side: Side,
}

#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("{0}")]
    Bad(String),
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error("this server has just been started; ask again")]
    Starting,
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Remove(#[from] RemoveError),
    #[error(transparent)]
    Give(#[from] GiveError),
    #[error("no certificate could be issued for this request")]
    Pki(#[from] PkiError),
}

// === impl Join ===

impl Join {
    pub fn new(
        layout: &Layout,
        pki: Arc<ServerPki>,
        settings: ClusterSettings,
        clock: Arc<dyn Clock>,
        store: store::Store,
    ) -> Join {
        let gate = Gate::new(layout, clock.now());
        Join { pki, settings, clock, store, gate, inside: OnceLock::new() }
    }

    /// Gives it the way to what the cluster knows of its machines, and to what this server gives to others.
    pub fn attach(&self, client: Client, side: Side) {
        let (registrar, own) = (Registrar::new(client.clone()), side.settings.name.clone());
        let removal = Removal { client, registrar, own, etcd: side.etcd.clone() };
        self.inside.get_or_init(|| Inside { removal, side });
    }

    fn inside(&self) -> Result<&Inside, JoinError> {
        self.inside.get().ok_or(JoinError::Starting)
    }

    fn registrar(&self) -> Result<&Registrar, JoinError> {
        Ok(&self.inside()?.removal.registrar)
    }

    /// The machine that signed a request for a path, under any authority that it may know this cluster by.
    fn sender(&self, signed: &Signed, path: &str, now: Timestamp) -> Result<MachineId, ProofError> {
        let known_as = &self.pki.current().known_as;
        let mut verdicts = known_as.iter().map(|cluster| signed.sender((cluster, path), now));
        let foreign = Err(ProofError::Signature);
        verdicts.find(|verdict| *verdict != foreign).unwrap_or(foreign)
    }

    async fn join_server(&self, request: Request<Body>) -> Result<ServerJoinAnswer, JoinError> {
        let secret = bearer(&request).map(str::to_owned);
        let (signed, wanted): (Signed, ServerJoinRequest) = read(request).await?;
        let now = self.clock.now();
        let machine = self.sender(&signed, JOIN_SERVER_PATH, now)?;
        let addresses = &wanted.addresses[..wanted.addresses.len().min(ADDRESSES_MAX)];
        let who = Applicant { node: &wanted.node_name, machine: &machine, role: Role::Server, addresses };
        self.heard(&wanted.node_name, self.registrar()?.admit(who, secret.as_deref(), now).await)?;
        Ok(self.inside()?.side.give().await?)
    }

    async fn join(&self, request: Request<Body>) -> Result<JoinAnswer, JoinError> {
        let secret = bearer(&request).map(str::to_owned);
        let (signed, wanted): (Signed, JoinRequest) = read(request).await?;
        let addresses: BTreeSet<IpAddr> = wanted.addresses.iter().copied().take(ADDRESSES_MAX).collect();
        let machine = self.admit(&signed, &wanted, secret.as_deref()).await?;
        let (node, now, authorities) = (&wanted.node_name, self.clock.now(), self.pki.current());
        let profile = Profile::node_client(node).of_machine(&machine).lasting(self.pki.leaf_life);
        let client_certificate = authorities.client.issue_for_request(&profile, &wanted.client_request, now)?;
        let profile = Profile::kubelet_serving(node, addresses).lasting(self.pki.leaf_life);
        let serving_certificate = authorities.server.issue_for_request(&profile, &wanted.serving_request, now)?;
        info!(%node, "certificates issued");
        let (server_ca, client_ca) = (authorities.server.pem.clone(), authorities.client.pem.clone());
        let cluster = self.settings.clone();
        Ok(JoinAnswer { client_certificate, serving_certificate, server_ca, client_ca, cluster })
    }

    async fn admit(&self, signed: &Signed, wanted: &JoinRequest, secret: Option<&str>) -> Result<MachineId, JoinError> {
        let now = self.clock.now();
        let machine = self.sender(signed, JOIN_PATH, now)?;
        let registrar = self.registrar()?;
        let addresses = &wanted.addresses[..wanted.addresses.len().min(ADDRESSES_MAX)];
        let applicant = Applicant { node: &wanted.node_name, machine: &machine, role: Role::Agent, addresses };
        self.heard(&wanted.node_name, registrar.admit(applicant, secret, now).await)?;
        Ok(machine)
    }

    /// Who is refused for what it is, people are to hear of; who was let in, no longer.
    fn heard(&self, node: &str, outcome: Result<(), RegisterError>) -> Result<(), JoinError> {
        let (layout, now) = (&self.inside()?.side.settings.layout, self.clock.now());
        match &outcome {
            Ok(()) => refused::forget(layout, node, now),
            Err(RegisterError::Refused(Refusal::Removed { node, .. })) => {
                refused::note(layout, node, keeper::wrong::Refusal::OtherCluster, now);
            }
            Err(RegisterError::Refused(Refusal::Impostor { node })) => {
                refused::note(layout, node, keeper::wrong::Refusal::Impostor, now);
            }
            Err(_) => {}
        }
        Ok(outcome?)
    }

    /// The name of a machine that belongs to the cluster and asks on its own behalf.
    async fn member(&self, request: Request<Body>, path: &str) -> Result<String, JoinError> {
        let (signed, asked): (Signed, MachineRequest) = read(request).await?;
        let now = self.clock.now();
        let machine = self.sender(&signed, path, now)?;
        let who = Applicant { node: &asked.node_name, machine: &machine, role: Role::Agent, addresses: &[] };
        self.registrar()?.knows(who, now).await?;
        Ok(asked.node_name)
    }

    /// A machine asks whether it still belongs here.
    async fn checks_in(&self, request: Request<Body>) -> Result<String, JoinError> {
        match self.member(request, MACHINE_PATH).await {
            Err(JoinError::Register(error)) => self.heard("", Err(error)).map(|()| String::new()),
            other => other,
        }
    }

    async fn leave(&self, request: Request<Body>) -> Result<Leaving, JoinError> {
        match self.member(request, LEAVE_PATH).await {
            Ok(node) => Ok(self.inside()?.removal.step(&node, Only::Whoever, false, self.clock.now()).await?),
            // The answer to the last step was lost.
            Err(JoinError::Register(RegisterError::Refused(Refusal::Removed { .. }))) => {
                Ok(Leaving { gone: true, waiting: Vec::new() })
            }
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, user: &User, query: Option<&str>) -> Result<Leaving, JoinError> {
        let words: Vec<&str> = query.unwrap_or_default().split('&').collect();
        let node = words.iter().find_map(|word| word.strip_prefix("node="));
        let node = node.ok_or_else(|| JoinError::Bad("which node: ?node=NAME".to_owned()))?;
        let recorded = words.iter().find_map(|word| word.strip_prefix("machine="));
        let machine = recorded.filter(|digits| !digits.is_empty()).map(MachineId::of_digits);
        let only = if recorded.is_some() { Only::Recorded(machine.as_ref()) } else { Only::Whoever };
        info!(node, user = %user.name, "asked to remove a node");
        let hurry = words.contains(&"now=true");
        Ok(self.inside()?.removal.step(node, only, hurry, self.clock.now()).await?)
    }

    async fn snapshot(&self) -> Response<Body> {
        let store = self.store.clone();
        let exported = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            store.export(&mut bytes).map(|summary| (summary, bytes))
        });
        match exported.await {
            Ok(Ok((summary, bytes))) => {
                let mut response = Response::new(full(bytes));
                let headers = response.headers_mut();
                headers.insert("x-evenkeel-revision", HeaderValue::from(summary.revision.0));
                headers.insert("x-evenkeel-objects", HeaderValue::from(summary.records));
                response
            }
            Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, Chain(&error).to_string()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

#[async_trait]
impl Extension for Join {
    fn is_open(&self, path: &str) -> bool {
        matches!(path, CA_PATH | JOIN_PATH | JOIN_SERVER_PATH | MACHINE_PATH | LEAVE_PATH)
    }

    fn serves(&self, path: &str) -> bool {
        matches!(path, SNAPSHOT_PATH | REMOVE_PATH)
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        let from = request.extensions().get().map(|RemoteAddress(address)| address.ip());
        // Nobody knows yet who knocks.
        if request.method() == Method::POST
            && user.is_none()
            && let Err(later) = self.gate.ask(from, self.clock.now())
        {
            return *later;
        }
        let answered = match (request.method().as_str(), request.uri().path()) {
            ("GET", CA_PATH) => Ok(text(StatusCode::OK, self.pki.current().server.pem.clone())),
            ("GET", SNAPSHOT_PATH) if user.is_some() => Ok(self.snapshot().await),
            ("POST", JOIN_PATH) => self.join(request).await.map(|answer| json(&answer)),
            ("POST", JOIN_SERVER_PATH) => self.join_server(request).await.map(|answer| json(&answer)),
            ("POST", MACHINE_PATH) => self.checks_in(request).await.map(|node| json(&node)),
            ("POST", LEAVE_PATH) => self.leave(request).await.map(|leaving| json(&leaving)),
            ("POST", REMOVE_PATH) => match &user {
                Some(user) => self.remove(user, request.uri().query()).await.map(|leaving| json(&leaving)),
                None => Ok(text(StatusCode::UNAUTHORIZED, "who asks?".to_owned())),
            },
            _ => Ok(text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned())),
        };
        answered.unwrap_or_else(|error| {
            if error.is_refusal() {
                self.gate.refused(from, &Chain(&error).to_string(), self.clock.now());
            }
            error.answer()
        })
    }
}

// === impl JoinError ===

impl JoinError {
    /// True where it is the fault of who asks.
    fn is_refusal(&self) -> bool {
        match self {
            JoinError::Bad(_) | JoinError::Proof(_) | JoinError::Pki(_) => true,
            JoinError::Register(error) => !matches!(error, RegisterError::Records(_)),
            JoinError::Starting | JoinError::Remove(_) | JoinError::Give(_) => false,
        }
    }

    /// What a refused machine shows to whoever started it: one sentence.
    fn answer(self) -> Response<Body> {
        warn!(error = %Chain(&self), "refused");
        let code = match &self {
            JoinError::Bad(_) | JoinError::Pki(_) | JoinError::Register(RegisterError::Name(_)) => {
                StatusCode::BAD_REQUEST
            }
            JoinError::Proof(_) | JoinError::Register(RegisterError::Refused(_)) => StatusCode::UNAUTHORIZED,
            JoinError::Remove(RemoveError::Unknown(_)) => StatusCode::NOT_FOUND,
            JoinError::Remove(RemoveError::Own(_)) => StatusCode::MISDIRECTED_REQUEST,
            JoinError::Remove(
                RemoveError::Last(_) | RemoveError::Quorum { .. } | RemoveError::Register(RegisterError::Another(_)),
            )
            | JoinError::Register(RegisterError::Another(_)) => StatusCode::CONFLICT,
            JoinError::Give(GiveError::Stuck(_)) => StatusCode::PRECONDITION_FAILED,
            JoinError::Starting
            | JoinError::Give(GiveError::Converting | GiveError::Failed(_))
            | JoinError::Remove(RemoveError::Etcd(_))
            | JoinError::Register(RegisterError::Records(_))
            | JoinError::Remove(RemoveError::Api(_) | RemoveError::Register(_)) => StatusCode::SERVICE_UNAVAILABLE,
        };
        text(code, Chain(&self).to_string())
    }
}

/// A signed request, and what is in it.
async fn read<T: DeserializeOwned>(request: Request<Body>) -> Result<(Signed, T), JoinError> {
    let body = view::read_body(request.into_body(), JOIN_BYTES_MAX).await;
    let body = body.map_err(|_| JoinError::Bad("the request is too large or broke off".to_owned()))?;
    let bad = |error: serde_json::Error| JoinError::Bad(error.to_string());
    let signed: Signed = serde_json::from_slice(&body).map_err(bad)?;
    let wanted = serde_json::from_str(&signed.request).map_err(bad)?;
    Ok((signed, wanted))
}

fn json(answer: &impl Serialize) -> Response<Body> {
    let mut response = text(StatusCode::OK, serde_json::to_string(answer).expect("an answer is plain data"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn bearer(request: &Request<Body>) -> Option<&str> {
    request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::messages::{ClusterSettings, JoinAnswer, JoinRequest, Signed};
    use super::{JOIN_PATH, Join, Side};
    use crate::layout::Layout;
    use crate::pki::{Leaf, MachineKey, Role, ServerPki, hash_of_ca};
    use crate::wire::SystemClock;
    use crate::wire::etcd::EngineKind;
    use apiserver::Extension;
    use base::Clock;
    use http::Request;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use std::sync::Arc;
    use view::fake::FakeApi;

    async fn join(folder: &std::path::Path) -> Join {
        let layout = Layout::new(folder);
        layout.make().unwrap();
        let clock = Arc::new(SystemClock);
        let pki = Arc::new(ServerPki::load_or_make(&layout, jiff::SignedDuration::from_hours(1), clock.now()).unwrap());
        let engine = store::sqlite::open(&layout.database()).unwrap();
        let store = store::Store::open(engine, store::Keyring::plain(), clock.clone()).await.unwrap();
        let settings = ClusterSettings {
            cluster_cidrs: vec!["10.42.0.0/16".into()],
            service_cidrs: vec!["10.43.0.0/16".into()],
            cluster_dns: vec!["10.43.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            local_path: None,
        };
        Join::new(&layout, pki, settings, clock, store)
    }

    fn side(folder: &std::path::Path, join: &Join) -> Side {
        let settings = crate::wire::etcd::Settings {
            layout: Layout::new(folder),
            name: "server".to_owned(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pki: join.pki.clone(),
            arguments: Vec::new(),
        };
        let restart = crate::wire::restart::Restart::of_this_process().unwrap();
        let shared = super::super::agreed::ClusterFlags::default();
        Side { settings, kind: EngineKind::ExternalEtcd, etcd: None, restart, shared }
    }

    fn machine(folder: &std::path::Path, name: &str) -> MachineKey {
        MachineKey::load_or_draw(&folder.join(name)).unwrap()
    }

    /// Asks as `node`, with a request that names somebody greater; answers the code and, where granted, the answer.
    async fn ask(
        join: &Join,
        node: &str,
        machine: &MachineKey,
        secret: Option<&str>,
    ) -> (u16, Option<(JoinAnswer, String)>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let body = JoinRequest {
            node_name: node.to_owned(),
            addresses: vec!["192.0.2.9".parse().unwrap()],
            client_request: request.clone(),
            serving_request: request,
        };
        let cluster = hash_of_ca(&join.pki.current().server.pem);
        let body = Signed::new(&body, (&cluster, JOIN_PATH), machine, SystemClock.now()).unwrap();
        let mut head = Request::post(JOIN_PATH);
        if let Some(secret) = secret {
            head = head.header("authorization", format!("Bearer {secret}"));
        }
        let response = join.answer(None, head.body(apiserver::full(serde_json::to_vec(&body).unwrap())).unwrap()).await;
        let code = response.status().as_u16();
        let body = view::read_body(response.into_body(), 1 << 20).await.unwrap();
        (code, serde_json::from_slice(&body).ok().map(|answer| (answer, key.serialize_pem())))
    }

    #[tokio::test]
    async fn a_token_opens_a_new_name_and_the_machine_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let join = join(folder.path()).await;
        let (one, other) = (machine(folder.path(), "one"), machine(folder.path(), "other"));
        assert_eq!(ask(&join, "a", &one, None).await.0, 503, "it has just been started");
        // The API that it asks holds no other Secrets, so that nothing must be selected.
        join.attach(FakeApi::new().client(), side(folder.path(), &join));
        assert_eq!(ask(&join, "a", &one, None).await.0, 401, "no token");
        assert_eq!(ask(&join, "A/../b", &one, None).await.0, 400, "no node's name");
        let records = &join.registrar().ok().unwrap().records;
        let secret = records.create(Role::Agent, None, None, "", SystemClock.now()).await.unwrap();
        assert_eq!(ask(&join, "a", &one, Some("guess")).await.0, 401, "a wrong one");
        let (code, granted) = ask(&join, "a", &one, Some(&secret)).await;
        assert_eq!(code, 200);
        assert_eq!(ask(&join, "a", &other, Some(&secret)).await.0, 401, "the name is taken");
        assert_eq!(ask(&join, "a", &one, None).await.0, 200, "it renews");
        let (answer, key) = granted.unwrap();
        let leaf = Leaf::of_pem(&answer.client_certificate, &key).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
        for _ in 0..20 {
            join.gate.refused(None, "a guess", SystemClock.now());
        }
        assert_eq!(ask(&join, "a", &one, None).await.0, 429, "whoever it is asks too often");
        // The request wished for system:masters; the certificate names the node and nothing else.
        assert_eq!(certificate.subject().to_string(), "CN=system:node:a, O=system:nodes");
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert!(format!("{names:?}").contains(&one.id().uri()), "and the machine");
    }
}
