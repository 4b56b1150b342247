//! `/v1-evenkeel/facts` (authorised by path): what this server sees of itself and whom it reaches, for the others.

use std::path::PathBuf;

use admit::User;
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
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
        let look = Look { layout: self.layout.clone(), config: self.config.clone(), access };
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
