//! A replacement under way, in a ConfigMap: what the old node was, and when each part of it was done.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use api::{Gvr, Key, PatchType, Tree};
use keeper::replace::Times;
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
    /// Of the record that was read or written: of two that write after it one is told.
    #[serde(skip)]
    version: Option<String>,
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
            version: None,
        }
    }

    pub async fn read(client: &Client, node: &str) -> Result<Option<Kept>> {
        match client.get(&config_maps(), &key(node)).await {
            Ok(found) => {
                let text = found["data"][DATA].as_str().unwrap_or_default();
                let kept: Kept = serde_json::from_str(text).with_context(|| format!("read ConfigMap {}", key(node)))?;
                Ok(Some(Kept { version: version(&found), ..kept }))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error).context("read the replacement under way"),
        }
    }

    /// False where somebody else wrote the record since this was read, or ended it.
    pub async fn write(&mut self, client: &Client) -> Result<bool> {
        let key = key(&self.node);
        let mut object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key.name, "namespace": NAMESPACE},
            "data": {DATA: serde_json::to_string(self)?},
        });
        let written = match &self.version {
            None => client.create(&config_maps(), NAMESPACE, &object).await,
            Some(version) => {
                object["metadata"]["resourceVersion"] = json!(version);
                client.update(&config_maps(), &key, None, &object).await
            }
        };
        match written {
            Ok(object) => {
                self.version = version(&object);
                Ok(true)
            }
            Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => Ok(false),
            Err(error) => Err(error).context("note the replacement"),
        }
    }

    /// Ends it, unless somebody else did, or has begun another one.
    pub async fn remove(&self, client: &Client) -> Result<()> {
        let precondition = json!({"preconditions": {"resourceVersion": self.version}});
        match client.delete(&config_maps(), &key(&self.node), &precondition).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error).context("end the replacement"),
            _ => Ok(()),
        }
    }

    /// Whether a node has what this restores.
    pub fn is_restored(&self, node: &Tree) -> bool {
        let patch = self.restores(node);
        let none = |what: &str| patch["metadata"][what].as_object().is_none_or(|missing| missing.is_empty());
        let taints = patch["spec"]["taints"].as_array().map_or(0, Vec::len);
        none("labels") && none("annotations") && taints == node["spec"]["taints"].as_array().map_or(0, Vec::len)
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

fn version(object: &Tree) -> Option<String> {
    object["metadata"]["resourceVersion"].as_str().map(str::to_owned)
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
