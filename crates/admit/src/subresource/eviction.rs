//! The eviction subresource of pods.

use api::Status;

use crate::context::{Cx, Old};
use crate::pipeline::Outcome;
use crate::request::Body;

pub(crate) async fn evict(cx: &Cx<'_>, _old: Option<Old>, _body: &Body) -> Result<Outcome, Status> {
    Err(cx.not_found(""))
}
