//! The scale subresource.

use api::Status;

use crate::context::{Cx, Old};
use crate::pipeline::Outcome;

pub(crate) async fn write(cx: &Cx<'_>, _old: Option<Old>) -> Result<Outcome, Status> {
    Err(cx.not_found(""))
}
