//! ServiceAccount: every pod runs as an account of its namespace and gets its token mounted.

use api::{Status, Tree};
use serde_json::json;

use crate::context::{Cx, place_of};
use crate::{Place, Request, WriteVerb, doc, names, storage_of};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The account of pods that name none.
const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour, and seven seconds that tell a token mounted this way from others.
const TOKEN_SECONDS: i64 = 3607;
const FILE_MODE: i64 = 420;
/// Kept in every namespace by a controller.
const ROOT_CA: &str = "kube-root-ca.crt";

/// The account of a new pod that a controller makes in every namespace: who creates a pod right after its namespace is
/// faster than the controller, and may wait for it.
pub fn awaited_account(request: &Request) -> Option<Place> {
    let WriteVerb::Create(body) = &request.verb else { return None };
    let is_pod = request.subresource.is_none() && request.kind.storage == storage_of("", "pods");
    let account = doc::text(&body.tree, "spec.serviceAccountName");
    let is_default = account.is_empty() || account == DEFAULT;
    (is_pod && is_default).then(|| place_of("", "serviceaccounts", &request.namespace, DEFAULT))
}

pub(super) fn mount(cx: &Cx<'_>, pod: &mut Tree) -> Result<(), Status> {
    let name = doc::text(pod, "metadata.name").to_owned();
    if doc::get(pod, "metadata.annotations").get(MIRROR).is_some() {
        if !doc::text(pod, "spec.serviceAccountName").is_empty() {
            return Err(cx.forbidden(&name, "a mirror pod may not reference service accounts"));
        }
        return Ok(());
    }
    doc::fill_text(pod, "spec.serviceAccountName", DEFAULT);
    doc::copy_within(pod, "spec.serviceAccountName", "spec.serviceAccount");
    let account = doc::text(pod, "spec.serviceAccountName").to_owned();
    let namespace = cx.request.namespace.as_str();
    let Some(found) = cx.read("", "serviceaccounts", namespace, &account) else {
        let why =
            format!("error looking up service account {namespace}/{account}: serviceaccount {account:?} not found");
        return Err(cx.forbidden(&name, &why));
    };
    let found = found.tree();
    if doc::items(pod, "spec.imagePullSecrets").is_empty() && !doc::items(&found, "imagePullSecrets").is_empty() {
        doc::set(pod, "spec.imagePullSecrets", doc::get(&found, "imagePullSecrets").clone());
    }
    let automount = |tree: &Tree, path: &str| doc::at(tree, path).and_then(Tree::as_bool);
    let wanted = automount(pod, "spec.automountServiceAccountToken")
        .or_else(|| automount(&found, "automountServiceAccountToken"))
        .unwrap_or(true);
    if wanted {
        mount_token(cx, pod);
    }
    Ok(())
}

/// Containers that mount something there already keep it.
fn mount_token(cx: &Cx<'_>, pod: &mut Tree) {
    let volumes = doc::items(pod, "spec.volumes").iter();
    let existing = volumes.map(|volume| doc::text(volume, "name")).find(|name| name.starts_with(VOLUME_PREFIX));
    let is_new = existing.is_none();
    let volume = existing.map_or_else(|| format!("{VOLUME_PREFIX}{}", names::suffix(cx.ports.rng)), str::to_owned);
    let mut used = false;
    for list in ["spec.initContainers", "spec.containers"] {
        for container in doc::items_mut(pod, list) {
            let mut mounts = doc::items(container, "volumeMounts").iter();
            if mounts.any(|mount| doc::text(mount, "mountPath") == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
            doc::list_mut(container, "volumeMounts").push(mount);
            used = true;
        }
    }
    if used && is_new {
        doc::list_mut(pod, "spec.volumes").push(token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Tree {
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"name": name, "projected": {"defaultMode": FILE_MODE, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]}})
}
