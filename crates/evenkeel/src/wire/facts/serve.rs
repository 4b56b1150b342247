//! `/v1-evenkeel/facts` (authorised by path): what this server sees of itself and whom it reaches, for the others.

use std::path::PathBuf;

use admit::User;
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};

use super::{FACTS_PATH, Look};
use crate::layout::Layout;
use crate::pki::Kubeconfig;

pub struct FactsPath {
    pub layout: Layout,
    pub config: PathBuf,
}

// === impl FactsPath ===

impl FactsPath {
    async fn facts(&self) -> Response<Body> {
        let access = Kubeconfig::load(&self.layout.kubeconfig()).ok();
        let look = Look { layout: self.layout.clone(), config: self.config.clone(), access, prober: None };
        let json = serde_json::to_vec(&look.own().await).expect("facts are plain data");
        let mut response = Response::new(full(json));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

#[async_trait]
impl Extension for FactsPath {
    fn is_open(&self, _path: &str) -> bool {
        false
    }

    fn serves(&self, path: &str) -> bool {
        path == FACTS_PATH
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        if user.is_some() && request.method() == http::Method::GET {
            return self.facts().await;
        }
        let mut response = Response::new(full(Vec::new()));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response
    }
}

/// The same path on the port of a node, for those that have no API of their own.
pub struct NodeFacts {
    pub layout: Layout,
    pub config: PathBuf,
}

#[async_trait]
impl node::Extension for NodeFacts {
    /// What a node tells of itself its metrics tell as well.
    fn subresource(&self, path: &str) -> Option<&'static str> {
        (path == FACTS_PATH).then_some("metrics")
    }

    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        if request.method() != http::Method::GET {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            return response;
        }
        let look = Look { layout: self.layout.clone(), config: self.config.clone(), access: None, prober: None };
        let json = serde_json::to_vec(&look.own().await).expect("facts are plain data");
        let mut response = Response::new(json.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
