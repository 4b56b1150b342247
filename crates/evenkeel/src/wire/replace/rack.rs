//! The cluster as one who replaces a node sees it: its servers and which of them are there, the node, and what runs.

use std::net::SocketAddr;

use anyhow::Result;
use api::{Gvr, Key, Tree};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use view::{Client, ClientError, ListOptions};

use crate::wire::join::judge::Machine;
use crate::wire::join::records::Records;
use crate::wire::presence;

/// A server whose lease is older is not there. Clocks may differ a little.
const FRESH: SignedDuration = SignedDuration::from_secs(20);

/// What was seen in one look.
pub struct Rack {
    pub machines: Vec<Machine>,
    /// Servers that hold their leases, with their addresses.
    pub living: Vec<(String, SocketAddr)>,
}

/// Pods of Deployments, StatefulSets and DaemonSets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workloads {
    pub wanted: i64,
    pub ready: i64,
}

// === impl Rack ===

impl Rack {
    pub async fn look(client: &Client, now: Timestamp) -> Result<Rack> {
        let machines = Records::new(client.clone()).machines().await?.into_iter().map(|one| one.machine).collect();
        let living = presence::living(client, now, FRESH).await?;
        Ok(Rack { machines, living })
    }

    pub fn machine(&self, node: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.node == node)
    }

    /// How many servers there are, are there, and may still be lost.
    pub fn margin(&self) -> (usize, usize, usize) {
        let servers = self.machines.iter().filter(|machine| machine.is_server()).count();
        let there = self.living.len().min(servers);
        (servers, there, there.saturating_sub(servers / 2 + 1))
    }

    /// Whether the servers that are left without a node keep the state.
    pub fn holds_without(&self, node: &str) -> bool {
        let rest = self.machines.iter().filter(|machine| machine.is_server() && machine.node != node).count();
        let there = self.living.iter().filter(|(name, _)| name != node).count();
        0 < rest && rest / 2 < there
    }

    pub fn serves(&self, node: &str) -> bool {
        self.living.iter().any(|(name, _)| name == node)
    }
}

// === impl Workloads ===

impl Workloads {
    pub async fn count(client: &Client) -> Result<Workloads, ClientError> {
        let kinds = [
            ("deployments", "/spec/replicas", "/status/readyReplicas"),
            ("statefulsets", "/spec/replicas", "/status/readyReplicas"),
            ("daemonsets", "/status/desiredNumberScheduled", "/status/numberReady"),
        ];
        let mut count = Workloads::default();
        for (resource, wanted, ready) in kinds {
            let all = client.list(&Gvr::new("apps", "v1", resource), &ListOptions::default()).await?;
            for object in all.items {
                let tree: Tree = object.tree();
                let number = |path: &str| tree.pointer(path).and_then(Tree::as_i64).unwrap_or_default();
                count.wanted += number(wanted);
                count.ready += number(ready).min(number(wanted));
            }
        }
        Ok(count)
    }

    pub fn is_whole(self) -> bool {
        self.wanted <= self.ready
    }
}

/// A node's object; None where there is none.
pub async fn node(client: &Client, name: &str) -> Result<Option<Tree>, ClientError> {
    found(client.get(&Gvr::new("", "v1", "nodes"), &Key::cluster(name)).await)
}

/// When the node's machine was heard of last.
pub async fn last_word(client: &Client, name: &str) -> Result<Option<Timestamp>, ClientError> {
    let lease = found(client.get(&presence::leases(), &Key::new("kube-node-lease", name)).await)?;
    Ok(lease.and_then(|lease| lease["spec"]["renewTime"].as_str()?.parse().ok()))
}

/// Whether a node is ready, and since when it is as it is.
pub fn ready(node: &Tree) -> (bool, Option<Timestamp>) {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let Some(ready) = conditions.into_iter().find(|condition| condition["type"] == "Ready") else {
        return (false, None);
    };
    (ready["status"] == "True", ready["lastTransitionTime"].as_str().and_then(|text| text.parse().ok()))
}

fn found(outcome: Result<Tree, ClientError>) -> Result<Option<Tree>, ClientError> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::Rack;
    use crate::pki::Role;
    use crate::wire::join::judge::{Asked, Machine};
    use jiff::Timestamp;

    fn rack(there: &[&str]) -> Rack {
        let machine = |node: &str| {
            let id = serde_json::from_value(node.into()).unwrap();
            Machine::new(None, &Asked { node, machine: &id, role: Role::Server }, &[], Timestamp::UNIX_EPOCH)
        };
        let living = there.iter().map(|name| ((*name).to_owned(), "192.0.2.1:6443".parse().unwrap())).collect();
        Rack { machines: ["a", "b", "c"].map(machine).to_vec(), living }
    }

    #[test]
    fn the_rest_must_keep_the_state() {
        assert_eq!(rack(&["a", "b", "c"]).margin(), (3, 3, 1));
        assert_eq!(rack(&["a", "b"]).margin(), (3, 2, 0));
        assert!(rack(&["a", "b"]).holds_without("c"));
        assert!(!rack(&["a", "b"]).holds_without("b"), "one of two would be left");
        assert!(rack(&["a", "b", "c"]).holds_without("b"));
    }
}
