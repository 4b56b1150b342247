//! Signing: an approved request becomes a certificate, or is marked as failed with the reason.

use api::snapshot::gvr_of;
use api::{Key, Plan, Snapshot};
use base64::Engine as _;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::json;

use super::wanted::{Unwanted, Wanted};
use crate::kit::condition::{Condition, is_true};
use crate::kit::value::{list, text};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

/// A certificate chain in PEM, or why there is none.
pub type Signed = Result<String, String>;

/// The holder of the cluster's authorities.
pub trait Signer: Send + Sync {
    /// Signs what the rules of its authority were found to allow.
    fn sign(&self, wanted: &Wanted, now: Timestamp) -> Signed;
}

pub fn controller() -> Controller {
    Controller {
        name: "certificate-signing",
        component: "certificate-signing-controller",
        watches: vec![Watch { gvr: gvr_of::<CertificateSigningRequest>(), indexes: vec![] }],
        every_kind: false,
        enqueue: |_, _, new, _| keys::own(None, new),
        plan,
        workers: 1,
    }
}

fn plan(ctx: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let (Some(signer), requests) = (&ctx.signer, snapshot.of::<CertificateSigningRequest>()) else {
        return Plan::NOTHING;
    };
    let Some(object) = requests.get(key) else { return Plan::NOTHING };
    let tree = object.tree();
    let conditions = list(&tree, "/status/conditions");
    let ready = is_true(conditions, "Approved") && !is_true(conditions, "Denied") && !is_true(conditions, "Failed");
    if !ready || !text(&tree, "/status/certificate").is_empty() {
        return Plan::NOTHING;
    }
    let (reason, message) = match Wanted::of(&tree) {
        Err(Unwanted::Foreign) => return Plan::NOTHING,
        Err(unwanted) => ("SignerValidationFailure", unwanted.to_string()),
        Ok(wanted) => match signer.sign(&wanted, now) {
            Err(why) => ("SigningError", why),
            Ok(chain) => {
                let chain = base64::engine::general_purpose::STANDARD.encode(chain);
                let body = json!({"status": {"certificate": chain}});
                let (gvr, patch) = (gvr_of::<CertificateSigningRequest>(), api::PatchType::Merge);
                return Plan::step(vec![op::patch(
                    &gvr,
                    object,
                    Some("status"),
                    patch,
                    body,
                    op::same_version(object),
                )]);
            }
        },
    };
    let failed = Condition { r#type: "Failed", status: "True", reason, message: &message };
    Plan::step(vec![super::decide(object, conditions, failed, Some("status"), now)])
}
