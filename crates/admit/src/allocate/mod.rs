//! Addresses and ports that an object claims, in the same batch as the object.

use api::{Status, Tree};

use crate::Change;
use crate::context::{Cx, Gathered};

pub(crate) fn claim(_cx: &Cx<'_>, _tree: &mut Tree, _old: Option<&Tree>, _gathered: &mut Gathered) -> Result<(), Status> {
    Ok(())
}

pub(crate) fn release(_cx: &Cx<'_>, _old: &Tree) -> Vec<Change> {
    Vec::new()
}
