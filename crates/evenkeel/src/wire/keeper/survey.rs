//! What is: the nodes as the API sees them, what each says of itself, and which workloads are ready.

use std::collections::{BTreeMap, BTreeSet};

use api::{Gvr, Tree};
use base::Chain;
use futures::future::join_all;
use jiff::Timestamp;
use keeper::{Inventory, NodeName, Observed};
use serde::{Deserialize, Serialize};
use view::{Client, ClientError, ListOptions};

use super::Report;
use super::ports::{Address, Agents};

/// Workloads that a sentence names; of more it says how many.
const NAMED_MAX: usize = 3;

/// One node.
#[derive(Clone, Debug)]
pub struct Seen {
    pub address: Address,
    pub ready: bool,
    /// Pods on it keep data there, or nothing would start them elsewhere.
    pub delicate: bool,
    /// What it says, or why it says nothing.
    pub report: Result<Report, String>,
}

#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub nodes: BTreeMap<NodeName, Seen>,
}

/// Pods by owner: `Deployment shop/web`, not by pod, whose names change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Workloads(pub BTreeMap<String, Replicas>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    pub ready: u64,
    pub wished: u64,
}

// === impl Survey ===

impl Survey {
    /// Asks everybody at once.
    pub async fn take(client: &Client, agents: &dyn Agents) -> Result<Survey, ClientError> {
        let nodes = list(client, &Gvr::new("", "v1", "nodes")).await?;
        let delicate = delicate(&list(client, &Gvr::new("", "v1", "pods")).await?);
        let known = nodes.iter().filter_map(|node| Some((node, address_of(node)?)));
        let asked = known.map(|(node, address)| {
            let delicate = delicate.contains(&address.node);
            async move {
                let report = agents.report(&address, None).await.map_err(|error| Chain(&error).to_string());
                let name = NodeName(address.node.as_str().into());
                (name, Seen { ready: is_ready(node), delicate, report, address })
            }
        });
        Ok(Survey { nodes: join_all(asked).await.into_iter().collect() })
    }

    pub fn inventory(&self, now: Timestamp) -> Inventory {
        let observed = |(name, seen): (&NodeName, &Seen)| {
            let report = seen.report.as_ref().ok()?;
            let (role, runs) = (report.role, report.running.clone());
            let ready = seen.ready && report.trial.is_none();
            Some((name.clone(), Observed { role, runs, ready, delicate: seen.delicate, at: now }))
        };
        Inventory { nodes: self.nodes.iter().filter_map(observed).collect() }
    }

    /// Nodes that are not well, each with why; `but` is looked at by somebody else.
    pub fn unwell(&self, but: Option<&NodeName>) -> Vec<String> {
        let others = self.nodes.iter().filter(|(name, _)| Some(*name) != but);
        let why = |(name, seen): (&NodeName, &Seen)| match &seen.report {
            _ if !seen.ready => Some(format!("node {} is not ready", name.0)),
            Err(why) => Some(format!("node {} says nothing: {why}", name.0)),
            Ok(_) => None,
        };
        others.filter_map(why).collect()
    }
}

// === impl Workloads ===

impl Workloads {
    pub async fn take(client: &Client) -> Result<Workloads, ClientError> {
        let mut found = BTreeMap::new();
        for (kind, plural, ready, wished) in [
            ("Deployment", "deployments", "/status/readyReplicas", "/spec/replicas"),
            ("StatefulSet", "statefulsets", "/status/readyReplicas", "/spec/replicas"),
            ("DaemonSet", "daemonsets", "/status/numberReady", "/status/desiredNumberScheduled"),
        ] {
            for object in list(client, &Gvr::new("apps", "v1", plural)).await? {
                let count = |path: &str| object.pointer(path).and_then(Tree::as_u64).unwrap_or_default();
                let replicas = Replicas { ready: count(ready), wished: count(wished) };
                found.insert(title(kind, &object), replicas);
            }
        }
        for pod in list(client, &Gvr::new("", "v1", "pods")).await? {
            let owned = pod["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty());
            let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            if !owned && !ended {
                found.insert(title("Pod", &pod), Replicas { ready: u64::from(is_ready(&pod)), wished: 1 });
            }
        }
        Ok(Workloads(found))
    }

    /// What was ready `before` and is not now. What was removed since, or made smaller, is somebody's wish.
    pub fn missing(&self, before: &Workloads) -> Option<String> {
        let short = before.0.iter().filter_map(|(name, was)| {
            let now = self.0.get(name)?;
            let wanted = was.ready.min(now.wished);
            (now.ready < wanted).then(|| format!("{name} has {} of {wanted} ready", now.ready))
        });
        let short: Vec<String> = short.collect();
        let more = short.len().saturating_sub(NAMED_MAX);
        let named = short[..short.len() - more].join(", ");
        match (short.len(), more) {
            (0, _) => None,
            (_, 0) => Some(named),
            (_, more) => Some(format!("{named} and {more} more")),
        }
    }
}

/// The condition of a node or pod.
pub fn is_ready(object: &Tree) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

async fn list(client: &Client, gvr: &Gvr) -> Result<Vec<Tree>, ClientError> {
    let page = client.list(gvr, &ListOptions::default()).await?;
    Ok(page.items.iter().map(|object| object.tree()).collect())
}

fn title(kind: &str, object: &Tree) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{kind} {}/{}", text("namespace"), text("name"))
}

fn address_of(node: &Tree) -> Option<Address> {
    let name = node["metadata"]["name"].as_str()?;
    let addresses = node["status"]["addresses"].as_array()?;
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP")?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()?;
    let host = internal["address"].as_str()?.to_owned();
    Some(Address { node: name.to_owned(), host, port: u16::try_from(port).ok()? })
}

fn delicate(pods: &[Tree]) -> BTreeSet<String> {
    let holds = |pod: &&Tree| {
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        volumes.into_iter().any(|volume| volume["persistentVolumeClaim"].is_object())
    };
    let node = |pod: &Tree| pod["spec"]["nodeName"].as_str().map(str::to_owned);
    pods.iter().filter(holds).filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::{Replicas, Workloads};

    fn workloads(list: &[(&str, u64, u64)]) -> Workloads {
        let entry = |(name, ready, wished): &(&str, u64, u64)| {
            ((*name).to_owned(), Replicas { ready: *ready, wished: *wished })
        };
        Workloads(list.iter().map(entry).collect())
    }

    #[test]
    fn what_was_ready_must_be_ready_again_unless_somebody_wished_otherwise() {
        let before = workloads(&[("Deployment a/web", 3, 3), ("Deployment a/gone", 2, 2), ("Pod a/ill", 0, 1)]);
        let now = |wished| workloads(&[("Deployment a/web", 2, wished), ("Pod a/ill", 0, 1)]);
        assert_eq!(now(3).missing(&before).unwrap(), "Deployment a/web has 2 of 3 ready");
        assert_eq!(now(2).missing(&before), None);
        let many: Vec<String> = (0..5).map(|number| format!("Pod a/{number}")).collect();
        let all = |ready| workloads(&many.iter().map(|name| (name.as_str(), ready, 1)).collect::<Vec<_>>());
        assert!(all(0).missing(&all(1)).unwrap().ends_with("Pod a/2 has 0 of 1 ready and 2 more"));
    }
}
