//! Table rows as `kubectl get` prints them.

use jiff::Timestamp;

use crate::{Column, Kind, Tree};

/// The columns of a built-in kind.
pub fn builtin(_kind: &str) -> Vec<Column> {
    Vec::new()
}

/// One row.
pub fn cells(_kind: &Kind, _object: &Tree, _now: Timestamp) -> Vec<Tree> {
    Vec::new()
}
