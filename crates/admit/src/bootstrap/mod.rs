//! What exists from the first start: namespaces, roles and bindings, priorities, flow control, the Service range.

use api::Tree;

use crate::ports::Config;

/// All bootstrap objects, each after what it needs.
pub fn objects(_config: &Config) -> Vec<Tree> {
    Vec::new()
}

/// A bootstrap cluster role by name.
pub(crate) fn cluster_role(_name: &str) -> Option<Tree> {
    None
}
