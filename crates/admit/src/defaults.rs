//! Defaults: the schema's, then the conditional ones that depend on other fields.

use api::{Kind, Tree};

use crate::decode::fill_defaults;

/// Fills in whatever is absent; running it again changes nothing.
pub(crate) fn apply(kind: &Kind, tree: &mut Tree) {
    fill_defaults(&kind.schema, tree);
}
