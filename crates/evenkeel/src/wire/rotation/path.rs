//! `/v1-evenkeel/authorities` (authorised by path): how far a rotation is, and `?wish=start|pause|resume|finish|tokens`,
//! with the name of who sits there as `&by=`.

use std::sync::{Arc, OnceLock};

use admit::User;
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
use base::{Chain, Clock};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;
use view::Client;

use super::act::{Wish, grant};
use super::gather;
use super::judge::{Machine, Verdict, judge, locked_out};
use super::record::{Recorded, Rotation};
use crate::pki::{Phase, Role, ServerPki};
use crate::wire::SystemClock;
use crate::wire::keeper;

pub const PATH: &str = "/v1-evenkeel/authorities";

/// How a rotation stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub cluster: String,
    /// Of the last rotation, open or over; none where there never was one.
    pub number: Option<u64>,
    pub phase: Option<Phase>,
    pub paused: bool,
    pub since: Option<Timestamp>,
    pub machines: Vec<ShownMachine>,
    /// Machines that are there and have not come along.
    pub waiting: Vec<String>,
    /// True where only a person takes the next step.
    pub decide: bool,
    /// Machines that would be out after the end.
    pub locked_out: Vec<String>,
    /// Until then tokens hold that an earlier key signed; None where that is not decided yet.
    pub tokens_until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownMachine {
    pub name: String,
    pub role: Role,
    pub reached: Option<Phase>,
    pub live: bool,
}

/// The server's side.
pub struct AuthoritiesPath {
    pub pki: Arc<ServerPki>,
    /// Given once the API server is there that it asks.
    pub client: OnceLock<Client>,
}

// === impl Shown ===

impl Shown {
    pub fn is_open(&self) -> bool {
        self.phase.is_some_and(|phase| phase != Phase::Done)
    }

    fn of(cluster: &str, recorded: Option<&Recorded<Rotation>>, machines: Vec<Machine>) -> Shown {
        let rotation = recorded.map(|recorded| &recorded.rotation);
        let phase = rotation.map(|rotation| rotation.succession.phase);
        let paused = rotation.is_some_and(|rotation| rotation.paused && rotation.is_open());
        // What is waited for is shown of one that is paused, too.
        let verdict = phase.map(|phase| judge(phase, false, &machines));
        let open = phase.is_some_and(|phase| phase != Phase::Done);
        Shown {
            cluster: cluster[..12].to_owned(),
            number: rotation.map(|rotation| rotation.succession.number),
            phase,
            paused,
            since: rotation.map(|rotation| rotation.since),
            waiting: match &verdict {
                Some(Verdict::Wait(names)) => names.clone(),
                _ => Vec::new(),
            },
            decide: verdict == Some(Verdict::Decide),
            locked_out: if open { locked_out(&machines) } else { Vec::new() },
            tokens_until: rotation.and_then(|rotation| rotation.succession.tokens_until),
            machines: machines.into_iter().map(ShownMachine::from).collect(),
        }
    }
}

impl From<Machine> for ShownMachine {
    fn from(machine: Machine) -> ShownMachine {
        let Machine { name, role, reached, live } = machine;
        ShownMachine { name, role, reached, live }
    }
}

// === impl AuthoritiesPath ===

impl AuthoritiesPath {
    pub fn new(pki: Arc<ServerPki>) -> AuthoritiesPath {
        AuthoritiesPath { pki, client: OnceLock::new() }
    }

    async fn show(&self, client: &Client) -> anyhow::Result<Shown> {
        let (now, current) = (SystemClock.now(), self.pki.current());
        let recorded = Recorded::<Rotation>::read(client).await?;
        let succession = recorded.as_ref().map(|recorded| &recorded.rotation.succession);
        let machines = gather::machines(client, succession, now).await?;
        Ok(Shown::of(&current.cluster, recorded.as_ref(), machines))
    }

    async fn respond(&self, user: &User, query: Option<&str>) -> Response<Body> {
        let Some(client) = self.client.get() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "this server has just been started; ask again".to_owned());
        };
        if let Some(query) = query {
            let (word, by) = (query_part(Some(query), "wish"), query_part(Some(query), "by"));
            let Ok(wish) = serde_json::from_value::<Wish>(word.into()) else {
                return text(StatusCode::BAD_REQUEST, "?wish=start, pause, resume, finish or tokens".to_owned());
            };
            info!(user = %user.name, by, ?wish, "asked about the authorities");
            let by = format!("{by} ({})", user.name);
            if let Err(error) = grant(wish, &by, client, &self.pki, SystemClock.now()).await {
                return text(error.code(), error.to_string());
            }
        }
        answer(self.show(client).await)
    }
}

#[async_trait]
impl Extension for AuthoritiesPath {
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

/// One part of a query; empty where it is not there.
pub fn query_part<'a>(query: Option<&'a str>, name: &str) -> &'a str {
    keeper::query(query).get(name).copied().unwrap_or_default()
}

pub fn answer(shown: anyhow::Result<impl Serialize>) -> Response<Body> {
    match shown {
        Ok(shown) => {
            let mut response = text(StatusCode::OK, serde_json::to_string(&shown).expect("it is plain data"));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(failure) => text(StatusCode::SERVICE_UNAVAILABLE, Chain(failure.as_ref()).to_string()),
    }
}

pub fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
