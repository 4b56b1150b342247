//! Who leads, as the lease of the loops tells: one at a time, and nobody before the last one's time is over.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Endpoint, pause};
use serde_json::Value;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
const POLL: Duration = Duration::from_millis(150);

/// The lease at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    holder: String,
    transitions: u64,
}

/// The lease at every revision that was seen.
#[derive(Default)]
pub struct Leaders {
    seen: Mutex<BTreeMap<u64, Seen>>,
}

// === impl Leaders ===

impl Leaders {
    pub fn run(&self, endpoints: &[Endpoint], stop: &AtomicBool) {
        let mut servers = endpoints.iter().cycle();
        while !stop.load(Ordering::Relaxed) {
            if let Some((revision, seen)) = servers.next().and_then(|server| look(server).ok()) {
                self.seen.lock().expect("no holder of this lock panics").insert(revision, seen);
            }
            pause(POLL);
        }
    }

    /// Holders change only by a transition, and transitions only grow.
    pub fn judge(&self) -> anyhow::Result<()> {
        let seen = self.seen.lock().expect("no holder of this lock panics");
        ensure!(!seen.is_empty(), "the lease was never seen");
        for ((_, before), (revision, after)) in seen.iter().zip(seen.iter().skip(1)) {
            let named = |seen: &Seen| !seen.holder.is_empty();
            let counted = before.transitions < after.transitions;
            let same = before.transitions == after.transitions;
            let changed = named(before) && named(after) && before.holder != after.holder;
            ensure!(counted || same, "transitions go back at {revision}: {before:?}, then {after:?}");
            ensure!(counted || !changed, "two leaders without a transition at {revision}: {before:?}, {after:?}");
        }
        Ok(())
    }

    pub fn told(&self) -> String {
        let seen = self.seen.lock().expect("no holder of this lock panics");
        let transitions = seen.last_key_value().map_or(0, |(_, last)| last.transitions);
        format!("{transitions} transitions of the leader over {} looks", seen.len())
    }
}

fn look(server: &Endpoint) -> anyhow::Result<(u64, Seen)> {
    let answer = server.connect()?.call("GET", PATH, "")?;
    ensure!(answer.code == 200, "the lease answered {}", answer.code);
    let lease: Value = serde_json::from_slice(&answer.body)?;
    let revision = lease["metadata"]["resourceVersion"].as_str().context("no revision")?.parse()?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let transitions = lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default();
    Ok((revision, Seen { holder, transitions }))
}
