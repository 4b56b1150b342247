//! Who leads, as leases tell: one at a time, and nobody before the last one's time is over.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Endpoint, pause};
use jiff::Timestamp;
use serde_json::Value;

use super::rounds::Rounds;

/// Of the loops, and of who coordinates changes of the cluster.
const LEASES: [&str; 2] = ["kube-controller-manager", "evenkeel-keeper"];
const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const POLL: Duration = Duration::from_millis(150);

/// A lease at one revision. All hosts of the lab have one clock.
#[derive(Clone, Debug)]
struct Seen {
    holder: String,
    transitions: u64,
    acquired: Timestamp,
    renewed: Timestamp,
    lasts: Duration,
}

/// One lease at every revision that was seen.
type Life = BTreeMap<u64, Seen>;

#[derive(Default)]
pub struct Leaders {
    seen: Mutex<BTreeMap<&'static str, Life>>,
}

// === impl Leaders ===

impl Leaders {
    pub fn run(&self, endpoints: &[Endpoint], stop: &AtomicBool) {
        let mut rounds = Rounds::new(endpoints);
        while !stop.load(Ordering::Relaxed) {
            for name in LEASES {
                // A server that is down sees nothing.
                if let Ok((revision, seen)) = rounds.get(&format!("{PATH}/{name}")).and_then(|lease| read(&lease)) {
                    let mut lives = self.seen.lock().expect("no holder of this lock panics");
                    lives.entry(name).or_default().insert(revision, seen);
                }
            }
            rounds.go_on();
            pause(POLL);
        }
    }

    /// Holders change only by a transition, transitions only grow, and no time begins before the last one is over.
    pub fn judge(&self) -> anyhow::Result<()> {
        let lives = self.seen.lock().expect("no holder of this lock panics");
        ensure!(lives.contains_key(LEASES[0]), "the lease was never seen");
        lives.iter().try_for_each(|(name, life)| judge(life).context(*name))
    }

    pub fn told(&self) -> String {
        let lives = self.seen.lock().expect("no holder of this lock panics");
        let one = |(name, life): (&&str, &Life)| {
            let holders = life.values().zip(life.values().skip(1));
            let others = holders.filter(|(before, after)| before.holder != after.holder).count();
            let terms = life.last_key_value().map_or(0, |(_, last)| last.transitions);
            format!("{name}: {terms} terms, {others} changes of the leader over {} revisions", life.len())
        };
        lives.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

fn judge(life: &Life) -> anyhow::Result<()> {
    for ((_, before), (revision, after)) in life.iter().zip(life.iter().skip(1)) {
        let counted = before.transitions < after.transitions;
        let named = |seen: &Seen| !seen.holder.is_empty();
        let changed = named(before) && named(after) && before.holder != after.holder;
        ensure!(
            before.transitions <= after.transitions,
            "transitions go back at {revision}: {before:?}, then {after:?}"
        );
        ensure!(counted || !changed, "two leaders without a transition at {revision}: {before:?}, {after:?}");
        // Nobody here stops a leader in good order, which would give its lease away.
        let over = before.renewed + before.lasts;
        ensure!(!changed || over <= after.acquired, "two leaders at {revision}: {before:?}, {after:?}");
    }
    Ok(())
}

fn read(lease: &Value) -> anyhow::Result<(u64, Seen)> {
    let revision = lease["metadata"]["resourceVersion"].as_str().context("no revision")?.parse()?;
    let spec = &lease["spec"];
    let seen = Seen {
        holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        transitions: spec["leaseTransitions"].as_u64().unwrap_or_default(),
        acquired: time(&spec["acquireTime"])?,
        renewed: time(&spec["renewTime"])?,
        lasts: Duration::from_secs(spec["leaseDurationSeconds"].as_u64().context("no duration")?),
    };
    Ok((revision, seen))
}

fn time(text: &Value) -> anyhow::Result<Timestamp> {
    text.as_str().context("no time")?.parse().context("a time")
}
