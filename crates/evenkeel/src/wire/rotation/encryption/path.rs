//! `/v1-evenkeel/encryption` (authorised by path): which key Secrets at rest are under; by POST `?wish=rotate|cancel`, with
//! the name of who sits there as `&by=`, another one, or not.

use std::sync::OnceLock;

use admit::User;
use apiserver::{Body, Extension};
use async_trait::async_trait;
use base::Clock;
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;
use view::Client;

use super::act::{cancel, rotate};
use super::record::Rekey;
use super::{TOLD, holders};
use crate::layout::Layout;
use crate::pki::{Phase, Role};
use crate::wire::rotation::gather;
use crate::wire::rotation::judge::{Verdict, judge};
use crate::wire::rotation::path::{ShownMachine, answer, query_part, text};
use crate::wire::rotation::record::Recorded;
use crate::wire::{SystemClock, keys};

pub const PATH: &str = "/v1-evenkeel/encryption";

/// How it stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub cluster: String,
    /// The key that this server encrypts with, and all that it can decrypt with.
    pub key: Option<u32>,
    pub opens: Vec<u32>,
    /// Of the last change, open or over; None where there never was one.
    pub next: Option<u32>,
    pub phase: Option<Phase>,
    pub since: Option<Timestamp>,
    pub by: Option<String>,
    pub rewritten: usize,
    /// True where the last change was taken back.
    pub withdrawn: bool,
    pub servers: Vec<ShownMachine>,
    /// Servers that have not come along, silent ones too.
    pub waiting: Vec<String>,
}

/// The server's side.
pub struct EncryptionPath {
    pub layout: Layout,
    pub cluster: String,
    /// Given once the API server is there that it asks.
    pub client: OnceLock<Client>,
}

// === impl Shown ===

impl Shown {
    pub fn is_open(&self) -> bool {
        self.phase.is_some_and(|phase| phase != Phase::Done)
    }
}

// === impl EncryptionPath ===

impl EncryptionPath {
    pub fn new(layout: &Layout, cluster: &str) -> EncryptionPath {
        EncryptionPath { layout: layout.clone(), cluster: cluster.to_owned(), client: OnceLock::new() }
    }

    async fn show(&self, client: &Client) -> anyhow::Result<Shown> {
        let ring = keys::read(&self.layout)?;
        let recorded = Recorded::<Rekey>::read(client).await?;
        let rekey = recorded.map(|recorded| recorded.rotation);
        let reached = |lease: &api::Tree| rekey.as_ref()?.reached(gather::told(lease, TOLD)?);
        let mut machines = gather::all(client, SystemClock.now(), reached).await?;
        machines.retain(|machine| machine.role == Role::Server);
        let waiting = match rekey.as_ref().map(|rekey| judge(rekey.phase, false, &holders(&machines))) {
            Some(Verdict::Wait(names)) => names,
            _ => Vec::new(),
        };
        Ok(Shown {
            cluster: self.cluster.clone(),
            key: ring.as_ref().and_then(store::Keyring::seals_with),
            opens: ring.map(|ring| ring.ids()).unwrap_or_default(),
            next: rekey.as_ref().map(|rekey| rekey.key),
            phase: rekey.as_ref().map(|rekey| rekey.phase),
            since: rekey.as_ref().map(|rekey| rekey.since),
            by: rekey.as_ref().map(|rekey| rekey.by.clone()),
            rewritten: rekey.as_ref().map(|rekey| rekey.rewritten).unwrap_or_default(),
            withdrawn: rekey.is_some_and(|rekey| rekey.withdrawn),
            servers: machines.into_iter().map(ShownMachine::from).collect(),
            waiting,
        })
    }

    async fn respond(&self, user: &User, query: Option<&str>) -> Response<Body> {
        let Some(client) = self.client.get() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "this server has just been started; ask again".to_owned());
        };
        if let Some(query) = query {
            let (word, by) = (query_part(Some(query), "wish"), query_part(Some(query), "by"));
            info!(user = %user.name, by, word, "asked about the key of Secrets at rest");
            let (by, now) = (format!("{by} ({})", user.name), SystemClock.now());
            let granted = match word {
                "rotate" => rotate(&by, client, &self.layout, now).await,
                "cancel" => cancel(client, now).await,
                _ => return text(StatusCode::BAD_REQUEST, "?wish=rotate or cancel".to_owned()),
            };
            if let Err(error) = granted {
                return text(error.code(), error.to_string());
            }
        }
        answer(self.show(client).await)
    }
}

#[async_trait]
impl Extension for EncryptionPath {
    fn is_open(&self, _: &str) -> bool {
        false
    }

    fn serves(&self, path: &str) -> bool {
        path == PATH
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        match (user, parts.method.as_str()) {
            (Some(user), "GET") => self.respond(&user, None).await,
            (Some(user), "POST") => self.respond(&user, Some(parts.uri.query().unwrap_or_default())).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()),
        }
    }
}
