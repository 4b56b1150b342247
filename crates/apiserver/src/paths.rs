//! What is served beside resources: discovery, OpenAPI, health, metrics, version, OpenID, the distribution's own paths.

use std::net::SocketAddr;

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use serde_json::json;

use admit::User;
use api::Status;

use crate::answer;
use crate::body::{Body, empty};
use crate::context::{Context, method_not_allowed};
use crate::{discovery, health};

/// Where a request on an open path came from, among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAddress(pub SocketAddr);

/// Paths of the distribution's own, such as joining a node.
#[async_trait]
pub trait Extension: Send + Sync {
    /// True for a path that is served without authentication: it authenticates by itself.
    fn is_open(&self, path: &str) -> bool;

    /// True for a path that is served after authentication and authorisation by path.
    fn serves(&self, path: &str) -> bool;

    /// `user` is None on open paths.
    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body>;
}

/// Nothing beside the Kubernetes API.
pub struct NoExtension;

#[async_trait]
impl Extension for NoExtension {
    fn is_open(&self, _path: &str) -> bool {
        false
    }

    fn serves(&self, _path: &str) -> bool {
        false
    }

    async fn answer(&self, _user: Option<User>, _request: Request<Body>) -> Response<Body> {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}

pub(crate) async fn serve(cx: Context, body: Body) -> Result<Response<Body>, Status> {
    let path = cx.uri.path().to_owned();
    if cx.shared.deps.extension.serves(&path) {
        return Ok(extended(cx, body).await);
    }
    if cx.method != "GET" && cx.method != "HEAD" {
        return Err(method_not_allowed());
    }
    let path = path.trim_end_matches('/');
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "healthz" | "livez" | "readyz" => return health::serve(&cx, path).await,
        "api" | "apis" | "openapi" => return discovery::serve(&cx, path),
        _ => {}
    }
    match path {
        "" => Ok(root(&cx)),
        "/version" => Ok(answer::json(&version(&cx))),
        "/metrics" => Ok(metrics(&cx)),
        "/.well-known/openid-configuration" => Ok(openid(&cx)),
        "/openid/v1/jwks" => {
            let keys = cx.shared.deps.keys.jwks().to_string();
            Ok(answer::document(StatusCode::OK, "application/jwk-set+json", keys))
        }
        _ => Ok(not_found()),
    }
}

pub(crate) fn not_found() -> Response<Body> {
    answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

async fn extended(cx: Context, body: Body) -> Response<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = cx.method;
    *request.uri_mut() = cx.uri;
    *request.headers_mut() = cx.headers;
    cx.shared.deps.extension.answer(Some(cx.user), request).await
}

fn root(cx: &Context) -> Response<Body> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for kind in cx.registry.iter().filter(|kind| !kind.gvk.group.is_empty()) {
        paths.push(format!("/apis/{}", kind.gvk.group));
        paths.push(format!("/apis/{}/{}", kind.gvk.group, kind.gvk.version));
    }
    paths.sort_unstable();
    paths.dedup();
    answer::json(&json!({ "paths": paths }))
}

fn version(cx: &Context) -> api::Tree {
    let full = cx.shared.deps.config.version.as_str();
    let mut numbers = full.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor, "gitVersion": full,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// As Kubernetes names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn metrics(cx: &Context) -> Response<Body> {
    let metrics = &cx.shared.metrics;
    metrics.audit_dropped.set(i64::try_from(cx.shared.deps.audit.dropped()).unwrap_or(i64::MAX));
    metrics.store_revision.set(i64::try_from(cx.shared.deps.store.revision().0).unwrap_or(i64::MAX));
    metrics.set_objects(cx.shared.deps.store.counts());
    let text = metrics.text();
    answer::document(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text)
}

fn openid(cx: &Context) -> Response<Body> {
    let config = &cx.shared.deps.config;
    let issuer = config.issuers.first().cloned().unwrap_or_default();
    let host = config.advertise;
    answer::json(&json!({
        "issuer": issuer,
        "jwks_uri": format!("https://{host}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": cx.shared.deps.keys.algorithms(),
    }))
}
