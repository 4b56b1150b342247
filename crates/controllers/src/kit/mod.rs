//! What several controllers share: names, operations, ownership, conditions, pods. Nothing here decides anything.

pub mod condition;
pub mod keys;
pub mod name;
pub mod node;
pub mod op;
pub mod owner;
pub mod pod;
pub mod revision;
pub mod value;

use api::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

/// A typed selector as the one that matches. An absent or malformed selector is None: it must match nothing.
pub fn selector_of(selector: Option<&meta::LabelSelector>) -> Option<LabelSelector> {
    LabelSelector::from_tree(&serde_json::to_value(selector?).ok()?).ok()
}
