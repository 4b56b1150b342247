//! The label that makes `kubectl get nodes` show a server's role. A node may not give it to itself (NodeRestriction), so
//! the server gives it to the node of its own machine, as kubeadm and k3s do.

use std::time::Duration;

use api::{Gvr, Key, PatchType, Snapshot};
use serde_json::json;
use tracing::warn;
use view::{Client, Drain, PatchRequest, View, Watched};

const LABEL: &str = "node-role.kubernetes.io/control-plane";
/// Between tries of a write that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Keeps the label on the node of this name, also when it registers anew.
pub async fn label(client: Client, node: String, drain: Drain) {
    let gvr = Gvr::new("", "v1", "nodes");
    let watched = Watched::all(gvr.clone(), &[]).with_fields(&format!("metadata.name={node}"));
    let view = View::start(&client, vec![watched], &drain);
    let key = Key::cluster(&node);
    let bare = |snapshot: &Snapshot| {
        let found = snapshot.stream(&gvr).get(&key).cloned();
        found.is_some_and(|node| !node.header.labels.contains_key(LABEL))
    };
    while drain.run_until_cancelled(view.wait_for(bare)).await.is_some() {
        let body = json!({"metadata": {"labels": {LABEL: "true"}}});
        let request = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
        let written = client.patch(&request).await.map(drop);
        if let Err(error) = &written {
            warn!(%error, "the node's role was not written");
        }
        let shown = async {
            match written {
                Ok(()) => drop(view.wait_for(|snapshot| !bare(snapshot)).await),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        if drain.run_until_cancelled(shown).await.is_none() {
            return;
        }
    }
}
