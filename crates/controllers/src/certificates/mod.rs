//! CertificateSigningRequests: approval of node certificates, removal of old requests, and the list of what to sign.
//!
//! Signing needs a key and reading the request needs ASN.1: both belong to whoever holds the CA. It takes
//! [`to_sign`], checks that the subject is the one who asked, signs, and writes `status.certificate`.

use api::snapshot::gvr_of;
use api::{Key, Object, Plan, Snapshot, Tree};
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::json;

use crate::kit::condition::is_true;
use crate::kit::value::{int, list, text, time, words};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Approved and denied requests are kept this long, others for a day.
const DECIDED_KEPT: SignedDuration = SignedDuration::from_hours(1);
const PENDING_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// An approved request without a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToSign {
    pub key: Key,
    pub uid: SmolStr,
    pub signer: SmolStr,
    /// Who asked. A node certificate's subject must be exactly this.
    pub username: SmolStr,
    pub groups: Vec<SmolStr>,
    pub usages: Vec<SmolStr>,
    /// Base64 of the PEM request.
    pub request: SmolStr,
    pub expiration_seconds: Option<i64>,
}

pub fn controller() -> Controller {
    Controller {
        name: "certificate-approval",
        component: "certificate-approval-controller",
        watches: vec![Watch { gvr: gvr_of::<CertificateSigningRequest>(), indexes: vec![] }],
        every_kind: false,
        enqueue: |_, _, new, _| keys::own(None, new),
        plan,
        workers: 1,
    }
}

/// What the holder of the CA must sign now: approved, not failed, of a signer that is ours.
pub fn to_sign(snapshot: &Snapshot) -> Vec<ToSign> {
    let one = |object: &std::sync::Arc<Object>| {
        let tree = object.tree();
        let conditions = list(&tree, "/status/conditions");
        let ready = is_true(conditions, "Approved") && !is_true(conditions, "Denied") && !is_true(conditions, "Failed");
        let signer = text(&tree, "/spec/signerName");
        let ours = [CLIENT, SERVING, API_CLIENT].contains(&signer);
        let open = text(&tree, "/status/certificate").is_empty();
        (ready && ours && open).then(|| ToSign {
            key: object.key.clone(),
            uid: object.header.uid.clone(),
            signer: signer.into(),
            username: text(&tree, "/spec/username").into(),
            groups: words(list(&tree, "/spec/groups")),
            usages: words(list(&tree, "/spec/usages")),
            request: text(&tree, "/spec/request").into(),
            expiration_seconds: int(&tree, "/spec/expirationSeconds"),
        })
    };
    snapshot.of::<CertificateSigningRequest>().iter().filter_map(one).collect()
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let requests = snapshot.of::<CertificateSigningRequest>();
    let Some(object) = requests.get(key) else { return Plan::NOTHING };
    let tree = object.tree();
    let conditions = list(&tree, "/status/conditions");
    let decided = ["Approved", "Denied", "Failed"].iter().any(|name| is_true(conditions, name));
    let kept = if decided { DECIDED_KEPT } else { PENDING_KEPT };
    let due = object.header.created.unwrap_or(now) + kept;
    if due <= now {
        return Plan::step(vec![op::delete::<CertificateSigningRequest>(object)]);
    }
    if decided || !is_from_node(&tree) {
        return Plan::NOTHING.again_at(due);
    }
    let message = "Auto approving a certificate that a node asked for itself.";
    let mut all = conditions.to_vec();
    all.push(json!({
        "type": "Approved", "status": "True", "reason": "AutoApproved", "message": message,
        "lastUpdateTime": time(now), "lastTransitionTime": time(now),
    }));
    let gvr = gvr_of::<CertificateSigningRequest>();
    let body = json!({"status": {"conditions": all}});
    let patch = api::PatchType::Merge;
    Plan::step(vec![op::patch(&gvr, object, Some("approval"), patch, body, op::same_version(object))]).again_at(due)
}

/// A node (or one that is joining) asks for a certificate of its own kind, with the usages of that kind.
fn is_from_node(tree: &Tree) -> bool {
    let groups = words(list(tree, "/spec/groups"));
    let has = |name: &str| groups.iter().any(|group| group == name);
    let node = text(tree, "/spec/username").starts_with("system:node:") && has("system:nodes");
    let joining = has("system:bootstrappers");
    let usages = words(list(tree, "/spec/usages"));
    let only = |purpose: &str| {
        let allowed = ["digital signature", "key encipherment", purpose];
        usages.iter().all(|usage| allowed.contains(&usage.as_str())) && usages.iter().any(|usage| usage == purpose)
    };
    match text(tree, "/spec/signerName") {
        CLIENT => (node || joining) && only("client auth"),
        SERVING => node && only("server auth"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn request(name: &str, user: &str, signer: &str, usage: &str) -> Tree {
        json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"username": user, "groups": ["system:nodes"], "signerName": signer,
                     "usages": ["digital signature", usage], "request": "UEVN"},
        })
    }

    #[test]
    fn nodes_are_approved_others_wait_and_all_go() {
        let mut world = World::new(&["certificate-approval"]);
        world.put(request("node", "system:node:n1", CLIENT, "client auth"));
        world.put(request("sly", "mallory", CLIENT, "client auth"));
        world.put(request("odd", "system:node:n1", CLIENT, "server auth"));
        world.agent = |_| {};
        // The world knows no `approval` subresource: it merges like the status.
        world.converge();
        let keys: Vec<String> = to_sign(&world.snapshot()).iter().map(|one| one.key.to_string()).collect();
        assert_eq!(keys, ["node"]);
        world.pass(3601);
        assert_eq!(world.list("certificates.k8s.io/v1", "CertificateSigningRequest").len(), 2);
        world.pass(86_400);
        assert!(world.list("certificates.k8s.io/v1", "CertificateSigningRequest").is_empty());
    }
}
