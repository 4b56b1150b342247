//! What is: observed, never wished.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::generation::{NodeName, Role, Runs};

/// What was seen of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    pub role: Role,
    pub runs: Runs,
    /// It runs pods, as its peers and the API see it.
    pub ready: bool,
    /// Its workloads would be missed for longer than a restart: go to the others first.
    pub delicate: bool,
    /// When this was seen; old news is no news.
    pub at: Timestamp,
}

/// Every node that is known, with what was last seen of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inventory {
    pub nodes: BTreeMap<NodeName, Observed>,
}

// === impl Inventory ===

impl Inventory {
    /// Servers that are well.
    pub fn servers_ready(&self) -> usize {
        self.nodes.values().filter(|node| node.role == Role::Server && node.ready).count()
    }

    pub fn servers(&self) -> usize {
        self.nodes.values().filter(|node| node.role == Role::Server).count()
    }

    /// How many more servers may fail before changes stop. Negative where they have stopped already.
    pub fn margin(&self) -> i64 {
        let (all, ready) = (self.servers(), self.servers_ready());
        let quorum = all / 2 + 1;
        i64::try_from(ready).unwrap_or(i64::MAX) - i64::try_from(quorum).unwrap_or(i64::MAX)
    }
}
