//! Who may act: the holder of a `Lease`. One server acquires it at once; of several, one.
//!
//! Election is for efficiency. What keeps two actors from harm are the preconditions of their operations, so a lease
//! that is lost late costs conflicts, never correctness. Expiry is judged by when *we* saw the lease change last, not by
//! the holder's clock.

use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key, Tree};
use base::{Chain, Clock};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use view::{Client, ClientError, Drain};

/// A lease and how it is kept.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    pub key: Key,
    /// Stable over restarts of one server: its own lease is taken back at once.
    pub identity: String,
    pub duration: Duration,
    pub renew: Duration,
}

/// Holds or waits for a lease.
pub struct Leader {
    config: LeaderConfig,
    client: Client,
    clock: Arc<dyn Clock>,
    leading: watch::Sender<bool>,
}

/// What to do about the lease as it is.
#[derive(Debug, PartialEq)]
enum Decision {
    Create(Tree),
    /// The whole lease with the revision it is based on.
    Take(Tree),
    Wait,
}

// === impl LeaderConfig ===

impl LeaderConfig {
    /// Upstream's figures for its controller manager are 15 s and 2 s; a renewal is a durable write, so ours are rarer.
    pub fn new(name: &str, identity: &str) -> LeaderConfig {
        LeaderConfig {
            key: Key::new("kube-system", name),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew: Duration::from_secs(5),
        }
    }
}

// === impl Leader ===

impl Leader {
    /// Also gives the value that says whether this process leads; false at first.
    pub fn new(config: LeaderConfig, client: Client, clock: Arc<dyn Clock>) -> (Leader, watch::Receiver<bool>) {
        let (leading, receiver) = watch::channel(false);
        (Leader { config, client, clock, leading }, receiver)
    }

    pub async fn run(self, drain: Drain) {
        let mut seen = None;
        let mut renewed = Instant::now();
        loop {
            match self.turn(&mut seen).await {
                Ok(true) => {
                    renewed = Instant::now();
                    self.lead(true);
                }
                Ok(false) => self.lead(false),
                Err(error) => {
                    warn!(lease = %self.config.key, error = %Chain(&error), "lease not renewed");
                    // Step down before anybody else may take over.
                    if renewed.elapsed() + self.config.renew >= self.config.duration {
                        self.lead(false);
                    }
                }
            }
            let pause = if *self.leading.borrow() { self.config.renew } else { self.config.renew / 5 };
            tokio::select! { biased;
                () = drain.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.lead(false);
        if let Err(error) = self.release().await {
            warn!(lease = %self.config.key, error = %Chain(&error), "lease not released; it expires");
        }
    }

    /// Whoever waits need not wait for the expiry.
    async fn release(&self) -> Result<(), ClientError> {
        let mut lease = self.client.get(&leases(), &self.config.key).await?;
        if lease["spec"]["holderIdentity"] == json!(self.config.identity) {
            lease["spec"]["holderIdentity"] = json!("");
            self.client.update(&leases(), &self.config.key, None, &lease).await?;
        }
        Ok(())
    }

    async fn turn(&self, seen: &mut Option<(Tree, Instant)>) -> Result<bool, ClientError> {
        let current = match self.client.get(&leases(), &self.config.key).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let spec = current.as_ref().map(|lease| lease["spec"].clone()).unwrap_or_default();
        if seen.as_ref().is_none_or(|(known, _)| *known != spec) {
            *seen = Some((spec, Instant::now()));
        }
        let unchanged = seen.as_ref().map(|(_, at)| at.elapsed()).unwrap_or_default();
        let outcome = match decide(&self.config, current.as_ref(), unchanged, self.clock.now()) {
            Decision::Wait => return Ok(false),
            Decision::Create(lease) => self.client.create(&leases(), &self.config.key.namespace, &lease).await,
            Decision::Take(lease) => self.client.update(&leases(), &self.config.key, None, &lease).await,
        };
        match outcome {
            Ok(_) => Ok(true),
            // Somebody was faster.
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lead(&self, lead: bool) {
        self.leading.send_if_modified(|leading| {
            let changed = *leading != lead;
            if changed {
                info!(lease = %self.config.key, lead, "leadership");
            }
            *leading = lead;
            changed
        });
    }
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

fn decide(config: &LeaderConfig, current: Option<&Tree>, unchanged: Duration, now: Timestamp) -> Decision {
    let now = json!(format!("{now:.6}"));
    let mut spec = json!({
        "holderIdentity": config.identity,
        "leaseDurationSeconds": config.duration.as_secs(),
        "renewTime": now,
    });
    let Some(lease) = current else {
        spec["acquireTime"] = now;
        spec["leaseTransitions"] = json!(0);
        let metadata = json!({"name": config.key.name, "namespace": config.key.namespace});
        let kind = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec});
        return Decision::Create(kind);
    };
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let lasts = lease["spec"]["leaseDurationSeconds"].as_u64().unwrap_or(config.duration.as_secs());
    let mine = holder == config.identity;
    if !mine && !holder.is_empty() && unchanged <= Duration::from_secs(lasts) {
        return Decision::Wait;
    }
    if !mine {
        spec["acquireTime"] = now;
        spec["leaseTransitions"] = json!(lease["spec"]["leaseTransitions"].as_u64().unwrap_or(0) + 1);
    }
    let mut taken = lease.clone();
    for (field, value) in spec.as_object().into_iter().flatten() {
        taken["spec"][field] = value.clone();
    }
    Decision::Take(taken)
}

#[cfg(test)]
mod tests {
    use super::{Decision, LeaderConfig, decide};
    use jiff::Timestamp;
    use serde_json::json;
    use std::time::Duration;

    fn check(holder: &str, unchanged: u64) -> &'static str {
        let lease = json!({"metadata": {"resourceVersion": "4"}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}});
        let config = LeaderConfig::new("evenkeel", "me");
        match decide(&config, Some(&lease), Duration::from_secs(unchanged), Timestamp::UNIX_EPOCH) {
            Decision::Create(_) => "create",
            Decision::Take(taken) => {
                assert_eq!(taken["metadata"]["resourceVersion"], "4", "never takes what it has not seen");
                assert_eq!(taken["spec"]["holderIdentity"], "me");
                if taken["spec"].get("acquireTime").is_some() { "acquire" } else { "renew" }
            }
            Decision::Wait => "wait",
        }
    }

    #[test]
    fn takes_its_own_the_free_and_the_expired_and_no_other() {
        assert_eq!(check("me", 0), "renew");
        assert_eq!(check("", 0), "acquire");
        assert_eq!(check("other", 3), "wait");
        assert_eq!(check("other", 16), "acquire");
        let config = LeaderConfig::new("evenkeel", "me");
        assert!(matches!(decide(&config, None, Duration::ZERO, Timestamp::UNIX_EPOCH), Decision::Create(_)));
    }
}
