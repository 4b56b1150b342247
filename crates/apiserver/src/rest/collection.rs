//! DELETE of a collection: every object the options select, many at once, committed in the engine's groups.

use std::sync::Arc;

use admit::{Identified, Request};
use api::{Reason, Registry, Status};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::Response;

use crate::body::Body;
use crate::context::Routed;
use crate::limits::COLLECTION_DELETES_INFLIGHT_MAX;
use crate::media::Accept;
use crate::query::ListOptions;
use crate::rest::render::Renderer;
use crate::rest::{delete, fields, list, write};
use crate::server::Shared;

pub(super) async fn delete_collection(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let accept = Accept::of(&routed.cx.headers)?;
    let renderer = Renderer::new(&routed, accept)?;
    let wish = delete::options(&routed, body).await?;
    let options = ListOptions::parse(&routed.cx.query, false)?;
    fields::check(&options.fields, &routed.kind)?;
    let (meta, objects) = list::select(&routed, &options).await?;
    let requests: Vec<Identified<Request>> = objects
        .iter()
        .map(|object| {
            let (verb, options) = wish.clone().into_verb(&routed);
            let request = Request {
                kind: routed.kind.clone(),
                subresource: None,
                namespace: object.key.namespace.clone(),
                name: object.key.name.clone(),
                verb,
                options,
            };
            Identified { user: routed.cx.user.clone(), request }
        })
        .collect();
    let (shared, registry) = (routed.cx.shared.clone(), routed.cx.registry.clone());
    let deletions = requests.into_iter().map(move |request| delete_one(shared.clone(), registry.clone(), request));
    let mut done = stream::iter(deletions).buffer_unordered(COLLECTION_DELETES_INFLIGHT_MAX);
    while let Some(result) = done.next().await {
        match result {
            // Somebody else deleted it: that is what was asked for.
            Err(status) if status.reason == Reason::NotFound => {}
            result => result?,
        }
    }
    drop(done);
    list::respond(&routed, &renderer, &meta, objects)
}

fn delete_one(
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    request: Identified<Request>,
) -> BoxFuture<'static, Result<(), Status>> {
    async move { write::perform(&shared, &registry, request).await.map(drop) }.boxed()
}
