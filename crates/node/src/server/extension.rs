//! Paths of the program around this agent, beside the kubelet API: the same callers, proven and permitted the same way.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;

use super::reply::{Body, text};

/// The largest body such a request has.
pub const EXTENSION_BYTES_MAX: usize = 8 << 20;

/// What serves them.
#[async_trait]
pub trait Extension: Send + Sync {
    /// The subresource of this node that a caller of the path must be permitted; None for a path that is not served.
    fn subresource(&self, path: &str) -> Option<&'static str>;

    /// Answers a caller who is permitted.
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes>;
}

/// Reads the whole request and has it answered.
pub(super) async fn answer(extension: &dyn Extension, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, EXTENSION_BYTES_MAX).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large or broke off");
    };
    let response = extension.answer(Request::from_parts(head, body.to_bytes())).await;
    response.map(|bytes| Full::new(bytes).boxed_unsync())
}
