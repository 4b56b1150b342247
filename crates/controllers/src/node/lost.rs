//! Nodes that are known to be lost, and the pods that need not wait for them.
//!
//! That a lease is old says little: an agent may have crashed, a server may be cut off. The servers look further and say in
//! a condition of the node that none of them hears anything of its machine any more. For pods that any other pod can
//! replace, and that do not say themselves how long they wait, there is nothing to wait for then (docs/adr/0022).

use api::Tree;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Toleration, Volume};

use super::eviction::tolerates;
use super::lifecycle::UNREACHABLE;
use crate::kit::condition::find;
use crate::kit::pod::PodRef;
use crate::kit::value::{list, text, time_at};

/// The servers' word that a node is lost.
pub const LOST: &str = "evenkeel.io/Lost";
/// What admission lets a pod tolerate that says nothing about it.
const DEFAULT_SECONDS: i64 = 300;
/// Owners that want a number of pods, whichever they are.
const COUNTING: [&str; 2] = ["ReplicaSet", "ReplicationController"];

/// Since when a node is lost.
pub fn since(node: &Tree) -> Option<Timestamp> {
    let lost = find(list(node, "/status/conditions"), LOST)?;
    if text(lost, "/status") == "True" { time_at(lost, "/lastTransitionTime") } else { None }
}

/// Whether another pod elsewhere is as good, and the pod's author left it to us how long it waits.
pub fn is_replaceable(pod: &PodRef) -> bool {
    let owners = pod.pod.metadata.owner_references.iter().flatten();
    let counted =
        owners.filter(|owner| owner.controller == Some(true)).any(|owner| COUNTING.contains(&owner.kind.as_str()));
    let Some(spec) = pod.pod.spec.as_ref().filter(|_| counted) else { return false };
    let taint = k8s_openapi::api::core::v1::Taint {
        key: UNREACHABLE.to_owned(),
        effect: "NoExecute".to_owned(),
        ..Default::default()
    };
    let mut waits = spec.tolerations.iter().flatten().filter(|toleration| tolerates(toleration, &taint));
    waits.all(is_default) && !spec.volumes.iter().flatten().any(is_kept)
}

fn is_default(toleration: &Toleration) -> bool {
    toleration.key.as_deref() == Some(UNREACHABLE) && toleration.toleration_seconds == Some(DEFAULT_SECONDS)
}

/// A volume that only one machine may write, or that lies on one.
fn is_kept(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}
