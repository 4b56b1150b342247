//! What the cluster shall be: immutable, numbered, each the child of the one before.

use std::collections::BTreeMap;

use base::SmolStr;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::settings::Settings;

/// Nodes of one cluster. A rack of small machines, not a data centre.
pub const NODES_MAX: usize = 64;

/// The name of a node, as the API knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(pub SmolStr);

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Server,
    Agent,
}

/// The program a node runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    pub version: SmolStr,
    /// Of the program itself: two builds of one version are not the same.
    pub program: Digest,
}

/// What a node runs: a program, with what the cluster file says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runs {
    #[serde(flatten)]
    pub release: Release,
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
}

/// What one node shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTarget {
    pub role: Role,
    pub runs: Runs,
}

/// A fully resolved blueprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// The cluster it is for; a file for another cluster never becomes a target here.
    pub cluster: SmolStr,
    pub number: u64,
    pub parent: Digest,
    /// Format of what is stored. Raised only when a run is finalised: until then the previous release can read it.
    pub level: u32,
    pub nodes: BTreeMap<NodeName, NodeTarget>,
}

/// Why a generation cannot become the target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error("this is for cluster {proposed:?}, but this cluster is {current:?}")]
    AnotherCluster { proposed: SmolStr, current: SmolStr },
    /// Somebody else's change came first: look at it, then plan again.
    #[error("generation {proposed} does not follow generation {current}, which became the target meanwhile")]
    Overtaken { proposed: u64, current: u64 },
    #[error("a generation names at least one server")]
    NoServer,
    #[error("{count} nodes are more than the {NODES_MAX} of one cluster")]
    TooMany { count: usize },
}

// === impl Role ===

impl Role {
    /// As files and commands name it.
    pub fn word(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Agent => "agent",
        }
    }
}

// === impl Runs ===

impl From<Release> for Runs {
    fn from(release: Release) -> Runs {
        Runs { release, settings: Settings::default() }
    }
}

// === impl Generation ===

impl Generation {
    pub fn digest(&self) -> Digest {
        Digest::of(self)
    }

    /// The next one, as this but for what is changed in it.
    #[must_use]
    pub fn child(&self) -> Generation {
        Generation { number: self.number + 1, parent: self.digest(), ..self.clone() }
    }

    /// The child in which nothing is left of the way from one generation to another; None where nothing is. Others may have
    /// become the target since: nodes came or went.
    pub fn without(&self, from: &Generation, to: &Generation) -> Option<Generation> {
        let mut next = self.child();
        for (name, node) in &mut next.nodes {
            if let (Some(was), Some(brought)) = (from.nodes.get(name), to.nodes.get(name))
                && node == brought
            {
                node.clone_from(was);
            }
        }
        if self.level == to.level {
            next.level = from.level;
        }
        (next.nodes != self.nodes || next.level != self.level).then_some(next)
    }

    /// Checks that this may become the target after `current`: only a child of the target may, so of two people who
    /// change the same cluster at once one is told.
    ///
    /// # Errors
    /// Says what is wrong with it; nothing is changed.
    pub fn follows(&self, current: Option<&Generation>) -> Result<(), ProposeError> {
        if !self.nodes.values().any(|node| node.role == Role::Server) {
            return Err(ProposeError::NoServer);
        }
        if NODES_MAX < self.nodes.len() {
            return Err(ProposeError::TooMany { count: self.nodes.len() });
        }
        let (number, parent) = match current {
            Some(current) if current.cluster != self.cluster => {
                let (proposed, current) = (self.cluster.clone(), current.cluster.clone());
                return Err(ProposeError::AnotherCluster { proposed, current });
            }
            Some(current) => (current.number, current.digest()),
            None => (0, Digest::none()),
        };
        if self.number != number + 1 || self.parent != parent {
            return Err(ProposeError::Overtaken { proposed: self.number, current: number });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u64, parent: Digest) -> Generation {
        let release = Release { version: "0.1.0".into(), program: Digest::of_bytes(b"program") };
        let target = NodeTarget { role: Role::Server, runs: release.into() };
        let nodes = BTreeMap::from([(NodeName("a".into()), target)]);
        Generation { cluster: "shop".into(), number, parent, level: 1, nodes }
    }

    #[test]
    fn of_two_children_one_becomes_the_target() {
        let first = generation(1, Digest::none());
        assert_eq!(first.follows(None), Ok(()));
        let (anna, mut ben) = (generation(2, first.digest()), generation(2, first.digest()));
        ben.level = 2;
        assert_eq!(anna.follows(Some(&first)), Ok(()));
        assert_eq!(ben.follows(Some(&anna)), Err(ProposeError::Overtaken { proposed: 2, current: 2 }));
        // The number alone does not make a child.
        let stranger = generation(3, first.digest());
        assert_eq!(stranger.follows(Some(&anna)), Err(ProposeError::Overtaken { proposed: 3, current: 2 }));
    }

    #[test]
    fn what_a_run_brought_is_taken_back_though_nodes_came_meanwhile() {
        let first = generation(1, Digest::none());
        let mut to = first.child();
        let newer: Runs = Release { version: "0.2.0".into(), program: Digest::of_bytes(b"newer") }.into();
        to.nodes.values_mut().for_each(|node| node.runs = newer.clone());
        let mut later = to.child();
        let own = NodeTarget { role: Role::Agent, runs: newer };
        later.nodes.insert(NodeName("b".into()), own.clone());
        let back = later.without(&first, &to).unwrap();
        assert_eq!(back.follows(Some(&later)), Ok(()));
        assert_eq!(back.nodes[&NodeName("a".into())], first.nodes[&NodeName("a".into())]);
        // What it runs is its own: no run brought it there.
        assert_eq!(back.nodes[&NodeName("b".into())], own);
        assert_eq!(back.without(&first, &to), None);
        let mut final_form = first.child();
        final_form.level = 2;
        assert_eq!(final_form.without(&first, &final_form).unwrap().level, 1);
    }

    #[test]
    fn a_file_for_another_cluster_is_refused() {
        let first = generation(1, Digest::none());
        let mut other = generation(2, first.digest());
        other.cluster = "staging".into();
        let told = other.follows(Some(&first)).unwrap_err().to_string();
        assert_eq!(told, "this is for cluster \"staging\", but this cluster is \"shop\"");
    }

    #[test]
    fn a_cluster_has_a_server() {
        let mut empty = generation(1, Digest::none());
        empty.nodes.clear();
        assert_eq!(empty.follows(None), Err(ProposeError::NoServer));
    }
}
