//! The paths of backups beside the API, all authorised by path.
//!
//! - `GET /v1-evenkeel/bundles`: what each target holds, for `evenkeel backup list` and for the other servers.
//! - `GET /v1-evenkeel/bundles/NAME`: a bundle, or a file beside one, sealed as it is.
//! - `POST /v1-evenkeel/backup`: make one now; `POST /v1-evenkeel/backup/prove[?bundle=NAME]`: prove one now. What takes
//!   longer than a request may is answered with 202 and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use admit::User;
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
use base::Chain;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use jiff::Timestamp;
use keeper::backup::BundleName;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::run::{Order, all};
use super::targets::{self, Target};
use crate::layout::Layout;

pub const BUNDLES_PATH: &str = "/v1-evenkeel/bundles";
pub const BACKUP_PATH: &str = "/v1-evenkeel/backup";
pub const PROVE_PATH: &str = "/v1-evenkeel/backup/prove";
/// Shorter than what the API server gives a request.
const ANSWER_WITHIN: Duration = Duration::from_secs(45);

/// What one target holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    pub target: String,
    pub kind: String,
    /// Why it could not be listed.
    pub error: Option<String>,
    pub bundles: Vec<ListedBundle>,
    /// What lies sealed beside them in a folder, with its size: for the other servers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedBundle {
    pub name: BundleName,
    pub made: Timestamp,
    pub bytes: u64,
    pub proven: Option<bool>,
}

/// Serves them.
pub struct Paths {
    targets: Vec<Arc<dyn Target>>,
    orders: mpsc::Sender<Order>,
}

// === impl Paths ===

impl Paths {
    pub fn new(chosen: &[Arc<dyn Target>], layout: &Layout, orders: mpsc::Sender<Order>) -> Paths {
        Paths { targets: all(chosen, layout), orders }
    }

    async fn list(&self) -> Response<Body> {
        let mut listings = Vec::new();
        for target in &self.targets {
            let found = targets::bundles(target.as_ref()).await;
            let error = found.as_ref().err().map(|failure| format!("{failure:#}"));
            let one = |stored: targets::Stored| ListedBundle {
                made: stored.name.made(),
                name: stored.name,
                bytes: stored.bytes,
                proven: stored.proven,
            };
            let bundles = found.unwrap_or_default().into_iter().map(one).collect();
            let mut beside = BTreeMap::new();
            // A store that all servers share has no copies to give.
            if !target.is_offsite() {
                beside = targets::beside(target.as_ref()).await.unwrap_or_default();
            }
            listings.push(Listing { target: target.name(), kind: target.kind().to_owned(), error, bundles, beside });
        }
        json(&listings)
    }

    async fn bundle(&self, name: &str) -> Response<Body> {
        // Only such a name reaches a target: nothing that leads elsewhere.
        if name.parse::<BundleName>().is_err() && !targets::is_beside(name) {
            return text(
                StatusCode::BAD_REQUEST,
                format!("{name:?} is not the name of a bundle, or of what lies beside one"),
            );
        }
        let mut why = format!("no target holds {name}");
        for target in &self.targets {
            match target.get(name).await {
                Ok(bytes) => return Response::new(full(bytes)),
                Err(failure) => why = Chain(failure.as_ref()).to_string(),
            }
        }
        text(StatusCode::NOT_FOUND, why)
    }

    async fn make(&self) -> Response<Body> {
        let (answer, made) = oneshot::channel();
        self.order(Order::Make(answer), made).await
    }

    async fn prove(&self, query: &str) -> Response<Body> {
        let wanted = query.strip_prefix("bundle=").filter(|name| !name.is_empty());
        let name = match wanted.map(str::parse::<BundleName>).transpose() {
            Ok(name) => name,
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let (answer, proven) = oneshot::channel();
        self.order(Order::Prove(name, answer), proven).await
    }

    async fn order<T: Serialize>(&self, order: Order, answer: oneshot::Receiver<Result<T, String>>) -> Response<Body> {
        if self.orders.try_send(order).is_err() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "backups are busy, or this server drains".to_owned());
        }
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(Ok(done))) => json(&done),
            Ok(Ok(Err(why))) => text(StatusCode::CONFLICT, why),
            Ok(Err(_)) => text(StatusCode::SERVICE_UNAVAILABLE, "this server drains".to_owned()),
            Err(_) => text(StatusCode::ACCEPTED, "it goes on".to_owned()),
        }
    }
}

#[async_trait]
impl Extension for Paths {
    fn is_open(&self, _path: &str) -> bool {
        false
    }

    fn serves(&self, path: &str) -> bool {
        [BUNDLES_PATH, BACKUP_PATH, PROVE_PATH].contains(&path)
            || path.strip_prefix(BUNDLES_PATH).is_some_and(|rest| rest.starts_with('/'))
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        if user.is_none() {
            return text(StatusCode::UNAUTHORIZED, "who is asking?".to_owned());
        }
        let uri = request.uri();
        match (request.method().as_str(), uri.path()) {
            ("GET", BUNDLES_PATH) => self.list().await,
            ("POST", BACKUP_PATH) => self.make().await,
            ("POST", PROVE_PATH) => self.prove(uri.query().unwrap_or_default()).await,
            ("GET", path) => self.bundle(path.rsplit('/').next().unwrap_or_default()).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()),
        }
    }
}

fn json(value: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).expect("an answer is plain data");
    let mut response = Response::new(full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
