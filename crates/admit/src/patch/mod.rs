//! Patches: what the object shall look like, computed from what it is. Pure; knows no metadata rules and no versions.

mod json;
mod strategic;

use api::{Reason, Status, Tree};

use crate::context::bad_request;

/// JSON patch (RFC 6902).
///
/// # Errors
/// 400 for what is no patch, 413 for one of too many operations, 422 for a patch that does not apply.
pub(crate) fn json(current: &Tree, patch: &Tree) -> Result<Tree, Status> {
    json::apply(current, patch).map_err(|error| match error {
        json::JsonPatchError::Shape { message } => bad_request(message),
        json::JsonPatchError::TooLarge { message } => {
            Status::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
        }
        json::JsonPatchError::Fails { message } => {
            let mut status =
                Status::new(Reason::Invalid, "the server rejected our request due to an error in our request");
            status.details.get_or_insert_default().causes =
                vec![api::Cause { reason: "UnexpectedServerResponse".into(), message, field: String::new() }];
            status
        }
    })
}

/// Merge patch (RFC 7396).
///
/// # Errors
/// 400 when the patch is not an object: it would replace the whole.
pub(crate) fn merge(current: &Tree, patch: &Tree) -> Result<Tree, Status> {
    if !patch.is_object() {
        return Err(bad_request("error decoding patch: json: cannot unmarshal patch into an object"));
    }
    let mut merged = current.clone();
    json_patch::merge(&mut merged, patch);
    Ok(merged)
}

/// Strategic merge patch over the schema table.
///
/// # Errors
/// 400 for a patch that the schema cannot merge.
pub(crate) fn strategic(schema: &api::Schema, current: &Tree, patch: &Tree) -> Result<Tree, Status> {
    strategic::apply(schema, current, patch).map_err(|error| bad_request(error.to_string()))
}

/// Custom resources have no merge keys.
pub(crate) fn unsupported() -> Status {
    Status::new(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )
}
