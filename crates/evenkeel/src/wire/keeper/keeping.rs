//! The keeper's parts of a server's process, and when they start.

use std::sync::Arc;

use keeper::Role;
use tokio::task::JoinSet;
use view::Drain;

use super::api::{Keeper, Slot};
use super::backup::Bundles;
use super::confirm::Confirm;
use super::coordinator::Coordinator;
use super::node::Node;
use super::ports::Parts;
use crate::layout::Layout;
use crate::wire::restart::Restart;

pub struct Keeping {
    layout: Layout,
    /// The verbs of this machine.
    pub node: Arc<Node>,
    /// What the command line asks.
    pub slot: Arc<Slot>,
}

// === impl Keeping ===

impl Keeping {
    pub fn new(layout: &Layout, restart: Restart) -> anyhow::Result<Keeping> {
        let node = Node::new(layout, Role::Server, restart)?;
        Ok(Keeping { layout: layout.clone(), node, slot: Arc::default() })
    }

    pub fn bundles(&self, store: store::Store, node: &str) -> Arc<Bundles> {
        Arc::new(Bundles { layout: self.layout.clone(), store, node: node.to_owned() })
    }

    /// Once the API is there. `has_node`: this machine runs pods too.
    pub fn start(&self, parts: Parts, has_node: bool, tasks: &mut JoinSet<()>, drain: &Drain) {
        let confirm = Confirm {
            layout: self.layout.clone(),
            api: Some(parts.client.clone()),
            node: has_node.then(|| (parts.client.clone(), parts.name.clone())),
        };
        tasks.spawn(confirm.run(drain.clone()));
        self.slot.fill(Keeper::new(parts.clone()));
        tasks.spawn(Coordinator::run(parts, drain.clone()));
    }
}
