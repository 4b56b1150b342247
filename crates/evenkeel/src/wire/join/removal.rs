//! How a node leaves the cluster: emptied first, then its machine is out, then nothing of it is left.
//!
//! One call is one look: it does what can be done now and says what is waited for. Nothing is kept between two calls, so
//! that any server goes on where another stopped.

use api::{Gvr, Key, PatchType, Tree};
use jiff::Timestamp;
use serde_json::json;
use store::etcd::{Member, Members, MembersError};
use tracing::info;
use view::{Client, ClientError, ListOptions, PatchRequest};

use super::messages::Leaving;
use super::registrar::{Only, RegisterError, Registrar};
use crate::wire::etcd::{Managed, peer_url};
use crate::wire::presence;

/// Pods that are named in one answer.
const WAITING_MAX: usize = 20;

/// What removing needs.
#[derive(Clone)]
pub struct Removal {
    pub client: Client,
    pub registrar: Registrar,
    /// The server that does it.
    pub own: String,
    /// Its member, where the cluster keeps its state in etcds of its own.
    pub etcd: Option<Managed>,
}

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("there is no node {0}")]
    Unknown(String),
    #[error("{0} is the server that was asked; run `evenkeel leave` on it, or ask another server")]
    Own(String),
    #[error("{0} is the only server of this cluster; without it there is none")]
    Last(String),
    #[error(
        "without {node}, {healthy} of {left} servers would keep the state, and {needed} are needed; bring another one back \
         first"
    )]
    Quorum { node: String, healthy: usize, left: usize, needed: usize },
    #[error("the members of etcd")]
    Etcd(#[from] MembersError),
    #[error("ask the API")]
    Api(#[from] ClientError),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

// === impl Removal ===

impl Removal {
    /// One look. `hurry` leaves pods where they are. No other machine than `only` is removed: who comes late does
    /// not take out the one that has taken its place.
    pub async fn step(&self, node: &str, only: Only<'_>, hurry: bool, now: Timestamp) -> Result<Leaving, RemoveError> {
        self.registrar.expect(node, only).await?;
        let found = self.found(node).await?;
        let member = self.member(node).await?;
        if node == self.own {
            let alone = self.etcd.is_none();
            return Err(if alone { RemoveError::Last } else { RemoveError::Own }(node.to_owned()));
        }
        if let Some(found) = &found
            && !hurry
        {
            let waiting = self.empty(node, found).await?;
            if !waiting.is_empty() {
                return Ok(Leaving { gone: false, waiting });
            }
        }
        if let (Some(managed), Some(member)) = (&self.etcd, member) {
            members(managed)?.remove(member).await?;
            info!(node, "its etcd member is out");
        }
        self.registrar.remove(node, only, now).await?;
        absent(self.client.delete(&presence::leases(), &presence::lease_of(node), &json!({})).await)?;
        absent(self.client.delete(&nodes(), &Key::cluster(node), &json!({})).await)?;
        info!(node, "removed");
        Ok(Leaving { gone: true, waiting: Vec::new() })
    }

    /// The etcd member of a node, if it may go: the rest must be able to go on.
    async fn member(&self, node: &str) -> Result<Option<u64>, RemoveError> {
        let Some(managed) = &self.etcd else { return Ok(None) };
        let client = members(managed)?;
        let all = client.list().await?;
        // One that was announced and never started has no name yet.
        let known = self.registrar.records.machines().await.map_err(RegisterError::from)?;
        let urls: Vec<String> = known
            .into_iter()
            .filter(|recorded| recorded.machine.node == node)
            .flat_map(|recorded| recorded.machine.addresses)
            .map(peer_url)
            .collect();
        let its = |member: &&Member| {
            member.name == node || member.name.is_empty() && member.peer_urls.iter().any(|url| urls.contains(url))
        };
        let Some(member) = all.iter().find(its) else { return Ok(None) };
        let rest: Vec<&Member> = all.iter().filter(|one| !one.learner && one.id != member.id).collect();
        if rest.is_empty() {
            return Err(RemoveError::Last(node.to_owned()));
        }
        let mut healthy = 0;
        for one in &rest {
            let Some(url) = one.client_urls.first() else { continue };
            healthy += usize::from(client.status(url).await.is_ok());
        }
        let (left, needed) = (rest.len(), rest.len() / 2 + 1);
        if healthy < needed {
            return Err(RemoveError::Quorum { node: node.to_owned(), healthy, left, needed });
        }
        Ok(Some(member.id))
    }

    /// The node's object; a name that nobody has or had is an error.
    async fn found(&self, node: &str) -> Result<Option<Tree>, RemoveError> {
        match self.client.get(&nodes(), &Key::cluster(node)).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => {
                let known = self.registrar.records.machines().await.map_err(RegisterError::from)?;
                let known = known.iter().any(|recorded| recorded.machine.node == node);
                if known { Ok(None) } else { Err(RemoveError::Unknown(node.to_owned())) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets nothing new onto the node and asks its pods to go; answers what is waited for. A node that nobody hears of
    /// cannot end anything: its pods go with it.
    async fn empty(&self, node: &str, found: &Tree) -> Result<Vec<String>, RemoveError> {
        if found["spec"]["unschedulable"] != true {
            let (gvr, key, body) = (nodes(), Key::cluster(node), json!({"spec": {"unschedulable": true}}));
            let patch = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
            self.client.patch(&patch).await?;
        }
        if !is_ready(found) {
            return Ok(Vec::new());
        }
        let selector = format!("spec.nodeName={node}");
        let options = ListOptions { field_selector: Some(&selector), ..ListOptions::default() };
        let pods = self.client.list(&Gvr::new("", "v1", "pods"), &options).await?;
        let mut waiting = Vec::new();
        for object in pods.items {
            let pod: Tree = serde_json::from_slice(&object.bytes).unwrap_or_default();
            if !moves(&pod) {
                continue;
            }
            let why = if object.header.deletion.is_some() {
                Some("it is ending".to_owned())
            } else {
                self.evict(&object.key).await?
            };
            waiting.extend(why.map(|why| format!("{}: {why}", object.key)));
        }
        waiting.truncate(WAITING_MAX);
        Ok(waiting)
    }

    /// Why a pod is still there; None when it is not.
    async fn evict(&self, pod: &Key) -> Result<Option<String>, RemoveError> {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
        });
        match self.client.post(&Gvr::new("", "v1", "pods"), pod, "eviction", &eviction).await {
            Ok(_) => Ok(Some("it is ending".to_owned())),
            Err(error) if error.is_not_found() => Ok(None),
            // A disruption budget that allows none, mostly: the API says which.
            Err(ClientError::Status(status)) => Ok(Some(status.message)),
            Err(error) => Err(error.into()),
        }
    }
}

fn members(managed: &Managed) -> Result<Members, RemoveError> {
    Ok(Members::new(managed.config()).map_err(MembersError::from)?)
}

/// What is gone already need not be removed.
fn absent(outcome: Result<Tree, ClientError>) -> Result<(), ClientError> {
    match outcome {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

pub fn is_ready(node: &Tree) -> bool {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Pods that are to run elsewhere: not those of the node itself, and none that has ended.
fn moves(pod: &Tree) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let daemon = owners.into_iter().any(|owner| owner["kind"] == "DaemonSet" && owner["controller"] == true);
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let mirror = pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
    !daemon && !ended && !mirror
}

fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}

#[cfg(test)]
mod tests {
    use super::{Only, Registrar, Removal, RemoveError, nodes};
    use crate::pki::{MachineId, Role};
    use crate::wire::join::registrar::{Applicant, RegisterError};
    use api::{Gvr, Key, Reason, Status};
    use jiff::Timestamp;
    use serde_json::json;
    use view::fake::{FakeApi, Fault};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    async fn cluster(ready: &str) -> (FakeApi, Removal) {
        let api = FakeApi::new();
        let registrar = Registrar::new(api.client());
        let machine: MachineId = serde_json::from_value("1".into()).unwrap();
        let who = Applicant { node: "n", machine: &machine, role: Role::Agent, addresses: &[] };
        registrar.register_own(who, NOW).await.unwrap();
        let conditions = [json!({"type": "Ready", "status": ready})];
        api.put(&nodes(), json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}));
        let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n"}});
        api.put(&Gvr::new("", "v1", "pods"), pod);
        let removal = Removal { client: api.client(), registrar, own: "server".to_owned(), etcd: None };
        (api, removal)
    }

    #[tokio::test]
    async fn a_node_is_emptied_first_and_then_nothing_of_it_is_left() {
        let (api, removal) = cluster("True").await;
        let first = removal.step("n", Only::Whoever, false, NOW).await.unwrap();
        assert_eq!(first.waiting, ["a/p: it is ending"]);
        assert_eq!(api.get(&nodes(), &Key::cluster("n")).unwrap()["spec"]["unschedulable"], true);
        api.remove(&Gvr::new("", "v1", "pods"), &Key::new("a", "p"));
        assert!(removal.step("n", Only::Whoever, false, NOW).await.unwrap().gone);
        assert!(api.get(&nodes(), &Key::cluster("n")).is_none());
        assert!(removal.registrar.records.machines().await.unwrap()[0].machine.machine.is_none());
        assert!(removal.step("n", Only::Whoever, false, NOW).await.unwrap().gone, "again is the same");
    }

    #[tokio::test]
    async fn a_budget_that_allows_none_is_named() {
        let (api, removal) = cluster("True").await;
        removal.step("n", Only::Whoever, false, NOW).await.unwrap();
        let budget = "Cannot evict pod as it would violate the pod's disruption budget.";
        api.inject([Fault::Refuse(Status::new(Reason::TooManyRequests, budget))]);
        assert_eq!(removal.step("n", Only::Whoever, false, NOW).await.unwrap().waiting, [format!("a/p: {budget}")]);
        let now = removal.step("n", Only::Whoever, true, NOW).await.unwrap();
        assert!(now.gone, "in a hurry nothing is waited for");
    }

    #[tokio::test]
    async fn who_comes_late_does_not_remove_the_machine_that_took_the_place() {
        let (api, removal) = cluster("Unknown").await;
        let id = |text: &str| -> MachineId { serde_json::from_value(text.into()).unwrap() };
        let (old, new) = (id("1"), id("2"));
        assert!(removal.step("n", Only::Recorded(Some(&old)), true, NOW).await.unwrap().gone);
        assert!(removal.step("n", Only::Recorded(Some(&old)), true, NOW).await.unwrap().gone, "again is the same");
        let who = Applicant { node: "n", machine: &new, role: Role::Agent, addresses: &[] };
        removal.registrar.register_own(who, NOW).await.unwrap();
        api.put(&nodes(), json!({"metadata": {"name": "n"}}));
        let late = removal.step("n", Only::Recorded(Some(&old)), true, NOW).await.unwrap_err();
        assert!(matches!(late, RemoveError::Register(RegisterError::Another(_))), "{late}");
        assert!(removal.step("n", Only::Recorded(None), true, NOW).await.is_err(), "nobody had the name");
        assert!(api.get(&nodes(), &Key::cluster("n")).is_some());
        assert_eq!(removal.registrar.records.machines().await.unwrap()[0].machine.machine, Some(new));
    }

    #[tokio::test]
    async fn who_cannot_be_removed_is_told_so() {
        let (_, removal) = cluster("Unknown").await;
        assert!(matches!(removal.step("nobody", Only::Whoever, false, NOW).await, Err(RemoveError::Unknown(_))));
        let own = Removal { own: "n".to_owned(), ..removal.clone() };
        assert!(matches!(own.step("n", Only::Whoever, true, NOW).await, Err(RemoveError::Last(_))));
        assert!(removal.step("n", Only::Whoever, false, NOW).await.unwrap().gone, "a silent node is not waited for");
    }
}
