//! `/v1-evenkeel/datastore` (authorised by path): where the state is, and the request to move it into a managed etcd.

use admit::User;
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
use base::Chain;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};

use super::convert::{ConvertError, Datastore, EngineKind, Intent, request_conversion};
use super::managed::Settings;
use crate::wire::restart::Restart;

pub const PATH: &str = "/v1-evenkeel/datastore";

/// The server's side.
pub struct DatastorePath {
    pub settings: Settings,
    pub kind: EngineKind,
    pub restart: Restart,
}

// === impl DatastorePath ===

impl DatastorePath {
    fn show(&self) -> Response<Body> {
        match Intent::read(&self.settings.layout) {
            Ok(conversion) => {
                let shown = Datastore { engine: self.kind, conversion };
                json(StatusCode::OK, serde_json::to_string(&shown).expect("it is plain data"))
            }
            Err(failure) => text(StatusCode::INTERNAL_SERVER_ERROR, Chain(failure.as_ref()).to_string()),
        }
    }

    fn convert(&self) -> Response<Body> {
        match request_conversion(&self.settings, self.kind, &self.restart) {
            Ok(()) => text(StatusCode::ACCEPTED, "the server starts again to move its state".to_owned()),
            Err(failure @ (ConvertError::Done | ConvertError::External)) => {
                text(StatusCode::CONFLICT, failure.to_string())
            }
            Err(failure @ ConvertError::Machine(_)) => {
                text(StatusCode::PRECONDITION_FAILED, Chain(&failure).to_string())
            }
            Err(failure @ ConvertError::Note(_)) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, Chain(&failure).to_string())
            }
        }
    }
}

#[async_trait]
impl Extension for DatastorePath {
    fn is_open(&self, _: &str) -> bool {
        false
    }

    fn serves(&self, path: &str) -> bool {
        path == PATH
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        match request.method().as_str() {
            "GET" if user.is_some() => self.show(),
            "POST" if user.is_some() => self.convert(),
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()),
        }
    }
}

fn json(code: StatusCode, text: String) -> Response<Body> {
    response(code, text, "application/json")
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    response(code, text, "text/plain; charset=utf-8")
}

fn response(code: StatusCode, text: String, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
