//! What the loops of this distribution may do beyond what upstream's do: they bring a StorageClass of their own.

use api::{Gvr, Key, PatchType};
use serde_json::json;
use view::{ClientError, PatchRequest};

use super::inprocess;

const NAME: &str = "evenkeel:local-path";

/// Applies the role and its binding; what an operator added to them stays.
pub async fn write(server: &::apiserver::Server) -> Result<(), ClientError> {
    let client = inprocess::administrator(server, "evenkeel");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": NAME},
        "rules": [{
            "apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
        }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-controller-manager",
        }],
    });
    for (resource, body) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let gvr = Gvr::new("rbac.authorization.k8s.io", "v1", resource);
        let (key, patch) = (Key::cluster(NAME), PatchType::Apply { force: true });
        client.patch(&PatchRequest { gvr: &gvr, key: &key, subresource: None, patch, body: &body }).await?;
    }
    Ok(())
}
