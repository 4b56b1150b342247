//! CertificateSigningRequests: approval of node certificates, signing, removal of old requests.
//!
//! Who a request names is read out of its ASN.1, never taken from its text. Signing needs a key: it is a port
//! ([`Signer`]) that the holder of the authorities fills.

mod sign;
mod wanted;

use api::snapshot::gvr_of;
use api::{Key, Plan, Snapshot, Tree};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use crate::kit::condition::{self, Condition, is_true};
use crate::kit::value::{list, text, words};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

pub use sign::{Signed, Signer, controller as signing};
pub use wanted::{Authority, Wanted};

/// Approved and denied requests are kept this long, others for a day.
const DECIDED_KEPT: SignedDuration = SignedDuration::from_hours(1);
const PENDING_KEPT: SignedDuration = SignedDuration::from_hours(24);

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
    let approved = Condition {
        r#type: "Approved",
        status: "True",
        reason: "AutoApproved",
        message: "Auto approving a certificate that a node asked for itself.",
    };
    Plan::step(vec![decide(object, conditions, approved, Some("approval"), now)]).again_at(due)
}

/// Adds a condition to a request that nobody wrote in between.
fn decide(
    object: &api::Object,
    conditions: &[Tree],
    condition: Condition<'_>,
    subresource: Option<&str>,
    now: Timestamp,
) -> api::Op {
    let mut all = conditions.to_vec();
    condition::set_with(&mut all, condition, now, &["lastUpdateTime"]);
    let body = serde_json::json!({"status": {"conditions": all}});
    let gvr = gvr_of::<CertificateSigningRequest>();
    op::patch(&gvr, object, subresource, api::PatchType::Merge, body, op::same_version(object))
}

/// A node (or one that is joining) asks for the client certificate of its own kind. Serving certificates name addresses
/// that only a person, or a cloud, can vouch for: nobody approves those by itself.
fn is_from_node(tree: &Tree) -> bool {
    let groups = words(list(tree, "/spec/groups"));
    let has = |name: &str| groups.iter().any(|group| group == name);
    let Ok(wanted) = Wanted::of(tree) else { return false };
    let own = has("system:nodes") && wanted.request.common_name == text(tree, "/spec/username");
    wanted.authority == Authority::NodeClient && (own || has("system:bootstrappers"))
}

#[cfg(test)]
mod tests;
