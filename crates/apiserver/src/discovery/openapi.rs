//! OpenAPI v2 in one document, v3 one per group and version under URLs that carry their hash.

use std::sync::{Arc, Mutex};

use api::{Reason, Registry, Status, openapi};
use bytes::Bytes;
use http::Response;
use http::header::ACCEPT;
use serde_json::{Map, json};

use super::{groups, hash, same, tagged};
use crate::body::Body;
use crate::context::Context;
use crate::media::clauses;
use crate::paths::not_found;

/// What command-line clients accept the large document as, and how the answer is called: a name without `@` is a token.
const PROTOBUF_ASKED: [&str; 2] = [PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The one large document, kept while the registry it describes is served. The per-group ones are made on request: they
/// are asked for rarely and would cost tens of megabytes.
#[derive(Default)]
pub(crate) struct Cache {
    json: Slot,
    protobuf: Slot,
}

type Slot = Mutex<Option<(Arc<Registry>, Bytes)>>;

pub(super) fn serve(cx: &Context, path: &[&str]) -> Result<Response<Body>, Status> {
    match path {
        ["v2"] => v2(cx),
        ["v3"] => Ok(tagged(cx, index(cx), "application/json")),
        ["v3", "api", version] => Ok(one(cx, "", version)),
        ["v3", "apis", group, version] => Ok(one(cx, group, version)),
        _ => Ok(not_found()),
    }
}

fn v2(cx: &Context) -> Result<Response<Body>, Status> {
    let accept = cx.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let cache = &cx.shared.discovery.openapi;
    for clause in clauses(accept) {
        if PROTOBUF_ASKED.contains(&clause.media_type) {
            let bytes = kept(cx, &cache.protobuf, |registry| openapi::v2_protobuf(registry).into());
            return Ok(tagged(cx, bytes, PROTOBUF));
        }
        if matches!(clause.media_type, "application/json" | "*/*" | "application/*") {
            let bytes = kept(cx, &cache.json, |registry| openapi::v2(registry).into());
            return Ok(tagged(cx, bytes, "application/json"));
        }
    }
    let message = format!("only the following media types are accepted: application/json, {PROTOBUF}");
    Err(Status::new(Reason::NotAcceptable, message))
}

/// The document in the slot, made anew when the registry is another one.
fn kept(cx: &Context, slot: &Slot, make: impl FnOnce(&Registry) -> Bytes) -> Bytes {
    let cached = slot.lock().expect("no holder of this lock panics").clone();
    if let Some((registry, bytes)) = cached
        && same(&registry, &cx.registry)
    {
        return bytes;
    }
    let bytes = make(&cx.registry);
    *slot.lock().expect("no holder of this lock panics") = Some((cx.registry.clone(), bytes.clone()));
    bytes
}

/// The list of v3 documents. The hashes follow from the rows, not from rendered documents.
fn index(cx: &Context) -> Bytes {
    let mut paths = Map::new();
    for group in groups(&cx.registry) {
        for (version, kinds) in &group.versions {
            let path = match group.name.as_str() {
                "" => format!("api/{version}"),
                name => format!("apis/{name}/{version}"),
            };
            let rows: Vec<_> = kinds.iter().map(|kind| (&kind.resource, kind.generation)).collect();
            let hash = hash(&(&path, env!("CARGO_PKG_VERSION"), &cx.shared.deps.config.version, rows));
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths }).to_string().into()
}

fn one(cx: &Context, group: &str, version: &str) -> Response<Body> {
    match openapi::v3(&cx.registry, group, version) {
        Some(document) => {
            let mut response = tagged(cx, document.into(), "application/json");
            if cx.query.filled("hash").is_some() {
                let value = http::HeaderValue::from_static("public, immutable, max-age=31536000");
                response.headers_mut().insert(http::header::CACHE_CONTROL, value);
            }
            response
        }
        None => not_found(),
    }
}
