//! Responses: documents and errors with their headers, warnings, compression.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use api::Status;

use crate::body::{Body, full};
use crate::codec;
use crate::limits::GZIP_BYTES_MIN;
use crate::media::{Accept, Encoding};

const WARNING: HeaderName = HeaderName::from_static("warning");
/// Bytes of all warnings of one answer (upstream truncates likewise).
const WARNING_BYTES_MAX: usize = 4096;

/// A whole document.
pub(crate) fn document(code: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    document(code, "text/plain; charset=utf-8", text)
}

pub(crate) fn json(tree: &api::Tree) -> Response<Body> {
    document(StatusCode::OK, "application/json", tree.to_string())
}

/// The `Status` in the encoding the client asked for.
pub(crate) fn failure(status: &Status, headers: &HeaderMap) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = status_document(&status.to_tree(), code, Accept::for_error(headers));
    if let Some(seconds) = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A `Status` object, of failure or success.
pub(crate) fn status_document(tree: &api::Tree, code: StatusCode, encoding: Encoding) -> Response<Body> {
    match codec::encode_status(encoding, tree) {
        Some(bytes) => document(code, encoding.media_type(), bytes),
        None => document(code, Encoding::Json.media_type(), tree.to_string()),
    }
}

/// Adds `Warning: 299` headers, each text once.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut seen: Vec<&str> = Vec::new();
    let mut bytes = 0;
    for warning in warnings {
        bytes += warning.len();
        if seen.contains(&warning.as_str()) || bytes > WARNING_BYTES_MAX {
            continue;
        }
        seen.push(warning);
        let quoted: String = warning.chars().filter(|c| !c.is_control()).fold(String::new(), |mut text, c| {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
            text
        });
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let text = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').any(|part| {
        let mut parts = part.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.all(|param| param != "q=0")
    })
}

/// A document of possibly many bytes, compressed for those who asked.
pub(crate) fn large(media_type: &'static str, bytes: Bytes, headers: &HeaderMap) -> Response<Body> {
    if bytes.len() < GZIP_BYTES_MIN || !accepts_gzip(headers) {
        return document(StatusCode::OK, media_type, bytes);
    }
    let mut response = document(StatusCode::OK, media_type, gzip(&bytes));
    mark_gzip(&mut response);
    response
}

pub(crate) fn mark_gzip(response: &mut Response<Body>) {
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("writing to memory cannot fail").into()
}
