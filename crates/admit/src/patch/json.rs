//! JSON patch over the `json-patch` crate: foreign input never panics, and the work is bounded.

use api::Tree;
use json_patch::{Patch, PatchOperation};

/// Operations in one patch (upstream's `maxJSONPatchOperations`).
const OPERATIONS_MAX: usize = 10_000;
/// Bytes that `copy` operations of one patch may add in total (as upstream bounds them).
const COPIED_BYTES_MAX: usize = base::limits::REQUEST_BODY_BYTES_MAX;

#[derive(Debug, thiserror::Error)]
pub(super) enum JsonPatchError {
    #[error("{message}")]
    Shape { message: String },
    #[error("{message}")]
    Fails { message: String },
    #[error("{message}")]
    TooLarge { message: String },
}

pub(super) fn apply(current: &Tree, patch: &Tree) -> Result<Tree, JsonPatchError> {
    let shape = |message: String| JsonPatchError::Shape { message };
    let operations = patch.as_array().ok_or_else(|| shape("error decoding patch: not a list of operations".into()))?;
    if operations.len() > OPERATIONS_MAX {
        let have = operations.len();
        let message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {have}");
        return Err(JsonPatchError::TooLarge { message });
    }
    check_values(operations)?;
    let patch: Patch =
        serde_json::from_value(patch.clone()).map_err(|e| shape(format!("error decoding patch: {e}")))?;
    bound_copies(current, &patch)?;
    let mut patched = current.clone();
    json_patch::patch(&mut patched, &patch).map_err(|error| JsonPatchError::Fails { message: error.to_string() })?;
    Ok(patched)
}

/// `add`, `replace` and `test` need a value; null is one, absence is not.
fn check_values(operations: &[Tree]) -> Result<(), JsonPatchError> {
    for operation in operations {
        let op = operation.get("op").and_then(Tree::as_str).unwrap_or_default();
        if matches!(op, "add" | "replace" | "test") && operation.get("value").is_none() {
            let path = operation.get("path").and_then(Tree::as_str).unwrap_or_default();
            let message = format!("{op} operation does not apply: missing value for path {path:?}");
            return Err(JsonPatchError::Fails { message });
        }
    }
    Ok(())
}

/// A few dozen bytes of `copy` can double a document per operation.
fn bound_copies(current: &Tree, patch: &Patch) -> Result<(), JsonPatchError> {
    let copies = patch.0.iter().filter(|operation| matches!(operation, PatchOperation::Copy(_))).count();
    let added: usize = patch.0.iter().filter_map(value_of).map(|value| value.to_string().len()).sum();
    let mut size = if copies == 0 { 0 } else { current.to_string().len() + added };
    for _ in 0..copies {
        size = size.saturating_mul(2);
        if size > COPIED_BYTES_MAX {
            return exact_copies(current, patch);
        }
    }
    Ok(())
}

/// The rough bound failed: replay the patch and count what it really copies.
fn exact_copies(current: &Tree, patch: &Patch) -> Result<(), JsonPatchError> {
    let mut replayed = current.clone();
    let mut copied = 0;
    for operation in &patch.0 {
        if let PatchOperation::Copy(copy) = operation {
            let source = replayed.pointer(&copy.from.to_string()).map_or(0, |value| value.to_string().len());
            copied += source;
            if copied > COPIED_BYTES_MAX {
                let message = format!(
                    "Unable to copy: the accumulated size increase of copy operations exceeds {COPIED_BYTES_MAX} bytes"
                );
                return Err(JsonPatchError::Shape { message });
            }
        }
        let one = Patch(vec![operation.clone()]);
        if json_patch::patch(&mut replayed, &one).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn value_of(operation: &PatchOperation) -> Option<&Tree> {
    match operation {
        PatchOperation::Add(add) => Some(&add.value),
        PatchOperation::Replace(replace) => Some(&replace.value),
        _ => None,
    }
}
