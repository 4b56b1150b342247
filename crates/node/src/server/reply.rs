//! Answers in the shapes clients expect.

use bytes::Bytes;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

pub fn with_type(code: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

pub fn text(code: StatusCode, text: &str) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", full(text.to_owned()))
}

pub fn json(tree: &serde_json::Value) -> Response<Body> {
    with_type(StatusCode::OK, "application/json", full(tree.to_string()))
}

/// A `Status` object.
pub fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let tree = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code.as_u16(),
    });
    with_type(code, "application/json", full(tree.to_string()))
}

/// Headers at once, chunks as they come; the sender waits for a slow client.
pub fn stream(chunks: mpsc::Receiver<Bytes>) -> Response<Body> {
    let frames = ReceiverStream::new(chunks).map(|bytes| Ok(Frame::data(bytes)));
    with_type(StatusCode::OK, "text/plain", StreamBody::new(frames).boxed_unsync())
}
