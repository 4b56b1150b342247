//! OpenAPI v2 in one document, v3 one per group and version under URLs that carry their hash.

use std::sync::{Arc, Mutex};

use api::{Registry, Status, openapi};
use bytes::Bytes;
use http::Response;
use serde_json::{Map, json};

use super::{groups, hash, same, tagged};
use crate::body::Body;
use crate::context::Context;
use crate::paths::not_found;

/// The one large document, kept while the registry it describes is served. The per-group ones are made on request: they
/// are asked for rarely and would cost tens of megabytes.
#[derive(Default)]
pub(crate) struct Cache {
    v2: Mutex<Option<(Arc<Registry>, Bytes)>>,
}

pub(super) fn serve(cx: &Context, path: &[&str]) -> Result<Response<Body>, Status> {
    match path {
        // Protobuf is asked for first by some clients; JSON is what both sides have.
        ["v2"] => Ok(tagged(cx, v2(cx), "application/json")),
        ["v3"] => Ok(tagged(cx, index(cx), "application/json")),
        ["v3", "api", version] => Ok(one(cx, "", version)),
        ["v3", "apis", group, version] => Ok(one(cx, group, version)),
        _ => Ok(not_found()),
    }
}

fn v2(cx: &Context) -> Bytes {
    let cache = &cx.shared.discovery.openapi.v2;
    let cached = cache.lock().expect("no holder of this lock panics").clone();
    if let Some((registry, bytes)) = cached
        && same(&registry, &cx.registry)
    {
        return bytes;
    }
    let bytes: Bytes = openapi::v2(&cx.registry).into();
    *cache.lock().expect("no holder of this lock panics") = Some((cx.registry.clone(), bytes.clone()));
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
