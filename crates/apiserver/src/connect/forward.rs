//! One request repeated to another server, upgrades included.

use bytes::Bytes;
use futures::FutureExt;
use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::debug;

use api::{Reason, Status};

use super::{ByteStream, unreachable};
use crate::body::{self, Body};

/// What to send.
pub(super) struct Forward {
    pub method: Method,
    /// Path and query at the other server.
    pub path: String,
    pub host: String,
    pub headers: HeaderMap,
    pub body: Body,
    /// The client's side of an upgrade, where it asked for one.
    pub upgrade: Option<OnUpgrade>,
    /// What errors call the other server.
    pub what: String,
}

/// Headers that belong to the connection, or to the API server's own trust.
const DROPPED: [HeaderName; 6] = [
    AUTHORIZATION,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("te"),
    HeaderName::from_static("transfer-encoding"),
];

impl Forward {
    pub async fn send(self, io: Box<dyn ByteStream>) -> Result<Response<Body>, Status> {
        let what = self.what.clone();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(|error| unreachable(&what, &error))?;
        tokio::spawn(connection.with_upgrades().map(move |ended| {
            if let Err(error) = ended {
                debug!(error = %base::Chain(&error), "forwarded connection");
            }
        }));
        let upgrade = self.upgrade.filter(|_| self.headers.contains_key(UPGRADE));
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.path.parse().map_err(|_| Status::bad_request("the path cannot be forwarded"))?;
        *request.headers_mut() = passed_on(&self.headers, upgrade.is_some());
        if let Ok(host) = HeaderValue::from_str(&self.host) {
            request.headers_mut().insert(HOST, host);
        }
        let response = sender.send_request(request).await.map_err(|error| unreachable(&what, &error))?;
        match upgrade {
            Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => Ok(joined(client, response)),
            _ => Ok(answered(response)),
        }
    }
}

fn passed_on(headers: &HeaderMap, upgrading: bool) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let own = DROPPED.contains(name) || name.as_str().starts_with("impersonate-");
        let hop = !upgrading && (*name == CONNECTION || *name == UPGRADE);
        if !own && !hop {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

/// 101 to the client, then bytes both ways until one side ends.
fn joined(client: OnUpgrade, mut response: Response<hyper::body::Incoming>) -> Response<Body> {
    let server = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (client, server) = match tokio::try_join!(client, server) {
            Ok(both) => both,
            Err(error) => return debug!(%error, "upgrade"),
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
            debug!(%error, "upgraded stream");
        }
    });
    response.map(|_| body::empty())
}

fn answered(mut response: Response<hyper::body::Incoming>) -> Response<Body> {
    for name in
        [CONNECTION, UPGRADE, HeaderName::from_static("transfer-encoding"), HeaderName::from_static("keep-alive")]
    {
        response.headers_mut().remove(name);
    }
    response.map(|incoming| incoming.map_err(Into::into).boxed_unsync())
}

/// Bytes of another server's error text that are repeated.
const ERROR_BYTES_MAX: usize = 4096;

/// A failure that a kubelet answered in plain text, as a `Status`.
pub(super) async fn status_of(response: Response<Body>) -> Status {
    let code = response.status();
    let bytes = body::read(response.into_body(), ERROR_BYTES_MAX).await.unwrap_or_else(|_| Bytes::new());
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let reason = match code {
        StatusCode::BAD_REQUEST => Reason::BadRequest,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Reason::Forbidden,
        StatusCode::SERVICE_UNAVAILABLE => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    let message = if text.is_empty() { format!("the node answered {code}") } else { text };
    Status::new(reason, message)
}
