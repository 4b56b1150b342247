//! A replacement under way, in a ConfigMap: what the old node was, and when each part of it was done.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use api::{Gvr, Key, PatchType, Tree};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use view::{Client, PatchRequest};

use super::rack::Workloads;
use crate::pki::{MachineId, Role};
use crate::wire::join::judge::Machine;

const NAMESPACE: &str = "kube-system";
/// The entry that holds the record.
const DATA: &str = "record";
/// The node agent and the loops write these themselves.
const TAINTS_NOT_KEPT: &str = "node.kubernetes.io/";
const ANNOTATIONS_KEPT: &str = "evenkeel.io/";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub node: String,
    pub role: Role,
    /// The machine that goes.
    pub machine: Option<MachineId>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub taints: Vec<Tree>,
    /// Why the old machine counts as off.
    pub fenced: String,
    pub before: Workloads,
    pub times: Times,
}

/// When what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// The old machine's last word, and when the cluster noticed its silence.
    pub last_word: Option<Timestamp>,
    pub noticed: Option<Timestamp>,
    pub decided: Option<Timestamp>,
    /// The command for the new machine was printed.
    pub offered: Option<Timestamp>,
    pub asked: Option<Timestamp>,
    /// Its member votes and its API serves; for an agent, it is registered.
    pub joined: Option<Timestamp>,
    pub caught_up: Option<Timestamp>,
    pub verified: Option<Timestamp>,
}

// === impl Kept ===

impl Kept {
    /// What a node's object says that is not its machine's.
    pub fn of(machine: &Machine, node: Option<&Tree>) -> Kept {
        let texts =
            |tree: &Tree| -> BTreeMap<String, String> { serde_json::from_value(tree.clone()).unwrap_or_default() };
        let null = Tree::Null;
        let node = node.unwrap_or(&null);
        let mut annotations = texts(&node["metadata"]["annotations"]);
        annotations.retain(|key, _| key.starts_with(ANNOTATIONS_KEPT));
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        let ours = |taint: &&Tree| taint["key"].as_str().is_some_and(|key| !key.starts_with(TAINTS_NOT_KEPT));
        Kept {
            node: machine.node.clone(),
            role: machine.role,
            machine: machine.machine.clone(),
            labels: texts(&node["metadata"]["labels"]),
            annotations,
            taints: taints.filter(ours).cloned().collect(),
            fenced: String::new(),
            before: Workloads::default(),
            times: Times::default(),
        }
    }

    pub async fn read(client: &Client, node: &str) -> Result<Option<Kept>> {
        match client.get(&config_maps(), &key(node)).await {
            Ok(found) => {
                let text = found["data"][DATA].as_str().unwrap_or_default();
                Ok(Some(serde_json::from_str(text).with_context(|| format!("read ConfigMap {}", key(node)))?))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error).context("read the replacement under way"),
        }
    }

    pub async fn write(&self, client: &Client) -> Result<()> {
        let key = key(&self.node);
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key.name, "namespace": NAMESPACE},
            "data": {DATA: serde_json::to_string(self)?},
        });
        put(client, &key, &object).await.context("note the replacement")
    }

    pub async fn remove(&self, client: &Client) -> Result<()> {
        match client.delete(&config_maps(), &key(&self.node), &json!({})).await {
            Err(error) if !error.is_not_found() => Err(error).context("end the replacement"),
            _ => Ok(()),
        }
    }

    /// The patch that gives the new node what the old one had, where it does not say something itself.
    pub fn restores(&self, node: &Tree) -> Tree {
        let missing = |kept: &BTreeMap<String, String>, has: &Tree| -> BTreeMap<String, String> {
            kept.iter()
                .filter(|(key, _)| has.get(key.as_str()).is_none())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let mut taints: Vec<Tree> = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let same = |one: &Tree, other: &Tree| one["key"] == other["key"] && one["effect"] == other["effect"];
        for kept in &self.taints {
            if !taints.iter().any(|taint| same(taint, kept)) {
                taints.push(kept.clone());
            }
        }
        json!({
            "metadata": {
                "labels": missing(&self.labels, &node["metadata"]["labels"]),
                "annotations": missing(&self.annotations, &node["metadata"]["annotations"]),
                // The taints are one list: somebody else may have written to it meanwhile.
                "resourceVersion": node["metadata"]["resourceVersion"],
            },
            "spec": {"taints": taints},
        })
    }
}

/// Writes a ConfigMap, whether it is there or not.
pub(super) async fn put(client: &Client, key: &Key, object: &Tree) -> Result<(), view::ClientError> {
    let gvr = config_maps();
    let patch = PatchRequest { gvr: &gvr, key, subresource: None, patch: PatchType::Merge, body: object };
    match client.patch(&patch).await {
        Err(error) if error.is_not_found() => client.create(&gvr, NAMESPACE, object).await.map(drop),
        outcome => outcome.map(drop),
    }
}

pub(super) fn config_maps() -> Gvr {
    Gvr::new("", "v1", "configmaps")
}

fn key(node: &str) -> Key {
    Key::new(NAMESPACE, &format!("replace.{node}"))
}

#[cfg(test)]
mod tests {
    use super::Kept;
    use crate::pki::Role;
    use crate::wire::join::judge::{Asked, Machine};
    use jiff::Timestamp;
    use serde_json::json;

    #[test]
    fn what_was_the_nodes_comes_back_and_what_is_the_machines_does_not() {
        let id = serde_json::from_value("1".into()).unwrap();
        let asked = Asked { node: "n", machine: &id, role: Role::Server };
        let machine = Machine::new(None, &asked, &[], Timestamp::UNIX_EPOCH);
        let old = json!({
            "metadata": {
                "labels": {"disk": "ssd", "kubernetes.io/hostname": "n"},
                "annotations": {"evenkeel.io/shelf": "3", "other.io/x": "1"},
            },
            "spec": {"taints": [
                {"key": "db", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
            ]},
        });
        let kept = Kept::of(&machine, Some(&old));
        let new = json!({
            "metadata": {"labels": {"kubernetes.io/hostname": "other"}, "resourceVersion": "7"},
            "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
        });
        let patch = kept.restores(&new);
        assert_eq!(patch["metadata"]["labels"], json!({"disk": "ssd"}));
        assert_eq!(patch["metadata"]["annotations"], json!({"evenkeel.io/shelf": "3"}));
        let keys: Vec<_> = patch["spec"]["taints"].as_array().unwrap().iter().map(|one| one["key"].clone()).collect();
        assert_eq!(keys, ["mine", "db"]);
        assert!(Kept::of(&machine, None).labels.is_empty());
    }
}
