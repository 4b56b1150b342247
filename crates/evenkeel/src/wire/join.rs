//! The distribution's own paths beside the API: trust, joining, and the snapshot of a backup.
//!
//! - `/cacerts` (open): the server authority; a joining machine compares its hash with the one in its token.
//! - `/v1-evenkeel/join` (open, authenticates itself): a token or the node's own password, and two certificate requests;
//!   answers with certificates that can only name that node.
//! - `/v1-evenkeel/snapshot` (authorised by path): a consistent export of the store, for `evenkeel backup`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use admit::User;
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
use base::{Chain, Clock};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::layout::Layout;
use crate::pki::{NodePasswords, PkiError, Profile, ServerPki, TokenStore};

pub const CA_PATH: &str = "/cacerts";
pub const JOIN_PATH: &str = "/v1-evenkeel/join";
pub const SNAPSHOT_PATH: &str = "/v1-evenkeel/snapshot";
/// Two certificate requests and a few names.
pub const JOIN_BYTES_MAX: usize = 64 << 10;
/// Addresses that a node may have in its serving certificate.
const ADDRESSES_MAX: usize = 16;

/// What a machine sends to become a node, or to renew its certificates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRequest {
    pub node_name: String,
    /// Drawn on the machine at its first join; proves the name from then on.
    pub node_password: String,
    pub addresses: Vec<IpAddr>,
    pub client_request: String,
    pub serving_request: String,
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinAnswer {
    pub client_certificate: String,
    pub serving_certificate: String,
    pub client_ca: String,
    pub cluster: ClusterSettings,
}

/// What every node of a cluster must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSettings {
    pub cluster_cidrs: Vec<String>,
    pub service_cidrs: Vec<String>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Where every node keeps `local-path` volumes; None where there are none.
    #[serde(default)]
    pub local_path: Option<PathBuf>,
}

/// The server's side.
pub struct Join {
    pub pki: Arc<ServerPki>,
    pub tokens: TokenStore,
    pub passwords: NodePasswords,
    pub settings: ClusterSettings,
    pub clock: Arc<dyn Clock>,
    pub store: store::Store,
}

#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("{0}")]
    Refused(&'static str),
    #[error("{0}")]
    Bad(String),
    #[error("join")]
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
        let tokens = TokenStore::new(layout.join_tokens());
        let passwords = NodePasswords::new(layout.node_passwords());
        Join { pki, tokens, passwords, settings, clock, store }
    }

    async fn join(&self, request: Request<Body>) -> Result<JoinAnswer, JoinError> {
        let secret = bearer(&request).map(str::to_owned);
        let body = view::read_body(request.into_body(), JOIN_BYTES_MAX).await;
        let body = body.map_err(|_| JoinError::Bad("the request is too large or broke off".to_owned()))?;
        let wanted: JoinRequest = serde_json::from_slice(&body).map_err(|error| JoinError::Bad(error.to_string()))?;
        self.admit(&wanted, secret.as_deref())?;
        let now = self.clock.now();
        let addresses: BTreeSet<IpAddr> = wanted.addresses.iter().copied().take(ADDRESSES_MAX).collect();
        let node = &wanted.node_name;
        let profile = Profile::node_client(node).lasting(self.pki.leaf_life);
        let client_certificate = self.pki.client.issue_for_request(&profile, &wanted.client_request, now)?;
        let profile = Profile::kubelet_serving(node, addresses).lasting(self.pki.leaf_life);
        let serving_certificate = self.pki.server.issue_for_request(&profile, &wanted.serving_request, now)?;
        info!(%node, "certificates issued");
        let (client_ca, cluster) = (self.pki.client.pem.clone(), self.settings.clone());
        Ok(JoinAnswer { client_certificate, serving_certificate, client_ca, cluster })
    }

    /// A known node needs its password; a new name needs a token, and gets the password it came with.
    fn admit(&self, wanted: &JoinRequest, secret: Option<&str>) -> Result<(), JoinError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        let name = &wanted.node_name;
        if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
            return Err(JoinError::Bad(format!("{name:?} cannot be a node's name")));
        }
        if wanted.node_password.len() < 32 {
            return Err(JoinError::Bad("the node's password is too short".to_owned()));
        }
        match self.passwords.knows(name, &wanted.node_password)? {
            Some(true) => Ok(()),
            Some(false) => Err(JoinError::Refused("a node of this name has joined with another password")),
            None => {
                let secret = secret.ok_or(JoinError::Refused("a join token is needed"))?;
                let token = self.tokens.role_of(secret, self.clock.now())?;
                token.ok_or(JoinError::Refused("the join token is unknown or has expired"))?;
                Ok(self.passwords.set(name, &wanted.node_password)?)
            }
        }
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
        path == CA_PATH || path == JOIN_PATH
    }

    fn serves(&self, path: &str) -> bool {
        path == SNAPSHOT_PATH
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        match (request.method().as_str(), request.uri().path()) {
            ("GET", CA_PATH) => text(StatusCode::OK, self.pki.server.pem.clone()),
            ("GET", SNAPSHOT_PATH) if user.is_some() => self.snapshot().await,
            ("POST", JOIN_PATH) => match self.join(request).await {
                Ok(answer) => {
                    let json = serde_json::to_string(&answer).expect("an answer is plain data");
                    let mut response = text(StatusCode::OK, json);
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    response
                }
                Err(error @ JoinError::Refused(_)) => {
                    warn!(%error, "join refused");
                    text(StatusCode::UNAUTHORIZED, error.to_string())
                }
                Err(error @ JoinError::Bad(_)) => text(StatusCode::BAD_REQUEST, error.to_string()),
                Err(error @ JoinError::Pki(_)) => {
                    warn!(error = %Chain(&error), "join failed");
                    text(StatusCode::BAD_REQUEST, "no certificate could be issued for this request".to_owned())
                }
            },
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()),
        }
    }
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
    use super::{ClusterSettings, JOIN_PATH, Join, JoinAnswer, JoinRequest};
    use crate::layout::Layout;
    use crate::pki::{Leaf, Role, ServerPki, TokenStore};
    use crate::wire::SystemClock;
    use apiserver::Extension;
    use base::Clock;
    use http::Request;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use std::sync::Arc;

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

    /// Asks as `node`, with a request that names somebody greater; answers the code and, where granted, the answer.
    async fn ask(join: &Join, node: &str, password: char, secret: Option<&str>) -> (u16, Option<(JoinAnswer, String)>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let body = JoinRequest {
            node_name: node.to_owned(),
            node_password: password.to_string().repeat(40),
            addresses: vec!["192.0.2.9".parse().unwrap()],
            client_request: request.clone(),
            serving_request: request,
        };
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
    async fn a_token_opens_a_new_name_and_the_password_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let join = join(folder.path()).await;
        let tokens = TokenStore::new(Layout::new(folder.path()).join_tokens());
        let (_, token) = tokens.create(Role::Agent, None, None, "", &join.pki.server.pem, SystemClock.now()).unwrap();
        assert_eq!(ask(&join, "a", 'x', None).await.0, 401, "no token");
        assert_eq!(ask(&join, "a", 'x', Some("guess")).await.0, 401, "a wrong one");
        assert_eq!(ask(&join, "A/../b", 'x', Some(&token.secret)).await.0, 400, "no node's name");
        let (code, granted) = ask(&join, "a", 'x', Some(&token.secret)).await;
        assert_eq!(code, 200);
        assert_eq!(ask(&join, "a", 'y', Some(&token.secret)).await.0, 401, "the name is taken");
        assert_eq!(ask(&join, "a", 'x', None).await.0, 200, "its own password renews");
        let (answer, key) = granted.unwrap();
        let leaf = Leaf::of_pem(&answer.client_certificate, &key).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
        // The request wished for system:masters; the certificate names the node and nothing else.
        assert_eq!(certificate.subject().to_string(), "CN=system:node:a, O=system:nodes");
    }
}
