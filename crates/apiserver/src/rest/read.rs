//! GET of one object.

use std::sync::Arc;

use api::{Object, Reason, Status};
use base::Revision;
use http::Response;

use crate::answer;
use crate::body::Body;
use crate::context::Routed;
use crate::media::Accept;
use crate::rest::render::Renderer;

pub(super) async fn get(routed: &Routed) -> Result<Response<Body>, Status> {
    let accept = Accept::of(&routed.cx.headers)?;
    let object = current(routed).await?;
    let renderer = Renderer::new(routed, accept)?;
    let bytes = renderer.document(&object)?;
    Ok(answer::large(renderer.media_type(), bytes, &routed.cx.headers))
}

/// The object of the request at least as new as it asks for.
pub(super) async fn current(routed: &Routed) -> Result<Arc<Object>, Status> {
    let version = routed.cx.query.filled("resourceVersion");
    let version = version.map(|text| text.parse::<Revision>());
    let version = version.transpose().map_err(|error| {
        Status::bad_request(format!(
            "invalid resource version: strconv.ParseUint: parsing {:?}: invalid syntax",
            error.text
        ))
    })?;
    fresh_enough(routed, version).await?;
    routed.cx.shared.deps.store.get(&routed.place()).ok_or_else(|| routed.not_found())
}

/// Waits until memory is as new as a read must be: everything acknowledged before it, a named revision, or (0) anything.
pub(super) async fn fresh_enough(routed: &Routed, version: Option<Revision>) -> Result<(), Status> {
    let store = &routed.cx.shared.deps.store;
    match version {
        Some(Revision::ZERO) => Ok(()),
        None => store.read_barrier().await.map(drop).map_err(|error| unavailable(&error)),
        Some(wanted) if wanted <= store.revision() => Ok(()),
        Some(wanted) => {
            // Three seconds, as upstream waits for its cache; then the client is told to come back.
            let waited = tokio::time::timeout(std::time::Duration::from_secs(3), store.wait_for(wanted)).await;
            if matches!(waited, Ok(Ok(_))) { Ok(()) } else { Err(too_large(wanted, store.revision())) }
        }
    }
}

pub(super) fn unavailable(error: &dyn std::error::Error) -> Status {
    tracing::warn!(error = %base::Chain(error), "read barrier");
    let mut status = Status::new(Reason::ServiceUnavailable, "the store is not available");
    status.details.get_or_insert_default().retry_after_seconds = 1;
    status
}

fn too_large(wanted: Revision, current: Revision) -> Status {
    let message = format!("Too large resource version: {wanted}, current: {current}");
    let mut status = Status::new(Reason::Timeout, message);
    let details = status.details.get_or_insert_default();
    details.retry_after_seconds = 1;
    details.causes.push(api::Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    });
    status
}
