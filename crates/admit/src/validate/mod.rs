//! Field rules: those of the schema, then those across fields of one kind.

use api::Tree;

use crate::causes::Causes;
use crate::context::Cx;
use crate::meta;

pub(crate) fn object(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    meta::validate(cx, tree, old, causes);
}
