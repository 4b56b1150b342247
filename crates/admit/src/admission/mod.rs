//! The built-in admission plugins, in upstream's order.

use api::{Status, Tree};

use crate::Change;
use crate::context::{Cx, Gathered};

pub(crate) fn mutate(_cx: &Cx<'_>, _tree: &mut Tree, _old: Option<&Tree>, _gathered: &mut Gathered) -> Result<(), Status> {
    Ok(())
}

pub(crate) fn validate(_cx: &Cx<'_>, _tree: Option<&Tree>, _old: Option<&Tree>, _gathered: &mut Gathered) -> Result<(), Status> {
    Ok(())
}

pub(crate) fn quota_on_removal(_cx: &Cx<'_>, _old: &Tree) -> Vec<Change> {
    Vec::new()
}
