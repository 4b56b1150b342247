//! Daemon pods that failed: replaced later and later, for a node that refuses one will mostly refuse the next.
//!
//! How often it happened in a row is written on the pods themselves, so that nothing is remembered beside the API.

use api::Tree;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::kit::pod::PodRef;
use crate::kit::value::annotation;

const FAILURES: &str = "evenkeel.io/daemon-failures";
/// Upstream's `failedPodsBackoff`.
const FIRST: SignedDuration = SignedDuration::from_secs(1);
const MOST: SignedDuration = SignedDuration::from_mins(15);
/// Doublings until the longest wait is reached.
const DOUBLINGS_MAX: u32 = 10;

const _: () = assert!(MOST.as_secs() <= FIRST.as_secs() << DOUBLINGS_MAX);

/// Failures in a row before this pod.
fn before(pod: &PodRef) -> u32 {
    annotation(&pod.object.tree(), FAILURES).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// When a failed pod may be replaced; None for one that did not fail.
pub fn replaced_at(pod: &PodRef) -> Option<Timestamp> {
    let made = pod.object.header.created.filter(|_| pod.phase() == "Failed")?;
    Some(made + (FIRST * (1 << before(pod).min(DOUBLINGS_MAX))).min(MOST))
}

/// Marks the pod that comes after these.
pub fn mark(pod: &mut Tree, dead: &[PodRef], now: Timestamp) {
    let failed = dead.iter().filter(|pod| pod.phase() == "Failed");
    // One that lived long starts a new row.
    let in_a_row = |pod: &PodRef| {
        let lived = pod.object.header.created.map(|made| now.duration_since(made)).unwrap_or_default();
        if 2 * MOST < lived { 1 } else { before(pod) + 1 }
    };
    if let Some(count) = failed.map(in_a_row).max() {
        pod["metadata"]["annotations"][FAILURES] = json!(count.to_string());
    }
}
