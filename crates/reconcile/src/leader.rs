//! Who may act: the holder of a `Lease`. One server acquires it at once; of several, one.
//!
//! Every taking of the lease begins a term of its own, also by one who had it before. Loops write in their term: what an
//! earlier one still has on its way is refused by the API, so a lease that is lost late costs conflicts, never
//! correctness. Expiry is judged by when *we* saw the lease change last, not by the holder's clock.

use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key, Term, Tree};
use base::{Chain, Clock};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use view::{Client, ClientError, Drain};

use crate::leadership::{Leadership, Tenure};

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
    leadership: Leadership,
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
        (Leader { config, client, clock, leading, leadership: Leadership::new() }, receiver)
    }

    /// For those who write in terms.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    pub async fn run(self, drain: Drain) {
        let mut seen = None;
        let mut renewed = Instant::now();
        let mut told = self.leadership.subscribe();
        loop {
            let (began, held) = (Instant::now(), self.leadership.tenure());
            match self.turn(&mut seen, held.as_ref(), renewed).await {
                Ok(tenure) => {
                    renewed = began;
                    if !self.lead(tenure, held.as_ref()) {
                        continue;
                    }
                }
                Err(error) => {
                    warn!(lease = %self.config.key, error = %Chain(&error), "lease not renewed");
                    // Step down before anybody else may take over.
                    if renewed.elapsed() + self.config.renew >= self.config.duration {
                        self.lead(None, None);
                    }
                }
            }
            let leads = told.borrow_and_update().is_some();
            let pause = if leads { self.config.renew } else { self.config.renew / 5 };
            tokio::select! { biased;
                () = drain.cancelled() => break,
                // The term was given up: the next begins at once.
                Ok(()) = told.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.lead(None, None);
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

    /// The tenure after looking at the lease, and writing it where it is ours to write. No look lasts longer than a
    /// leader who cannot renew may go on.
    async fn turn(
        &self,
        seen: &mut Option<(Tree, Instant)>,
        held: Option<&Tenure>,
        renewed: Instant,
    ) -> Result<Option<Tenure>, ClientError> {
        let patience = self.config.duration.saturating_sub(self.config.renew);
        let patience = patience.saturating_sub(renewed.elapsed()).max(self.config.renew);
        let looked = tokio::time::timeout(patience, self.look(seen, held)).await;
        looked.unwrap_or(Err(ClientError::Timeout(patience)))
    }

    async fn look(
        &self,
        seen: &mut Option<(Tree, Instant)>,
        held: Option<&Tenure>,
    ) -> Result<Option<Tenure>, ClientError> {
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
        let term = held.map(|tenure| &tenure.term);
        let outcome = match decide(&self.config, current.as_ref(), term, unchanged, self.clock.now()) {
            Decision::Wait => return Ok(None),
            Decision::Create(lease) => self.client.create(&leases(), &self.config.key.namespace, &lease).await,
            Decision::Take(lease) => self.client.update(&leases(), &self.config.key, None, &lease).await,
        };
        match outcome {
            Ok(lease) => Ok(tenure(&lease, held)),
            // Somebody was faster.
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// False where the term that was renewed has been given up.
    fn lead(&self, tenure: Option<Tenure>, held: Option<&Tenure>) -> bool {
        let lead = tenure.is_some();
        let stands = self.leadership.set(tenure, held);
        self.leading.send_if_modified(|leading| {
            let changed = *leading != lead;
            if changed {
                info!(lease = %self.config.key, lead, "leadership");
            }
            *leading = lead;
            changed
        });
        stands
    }
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

/// What a lease that was just written says of us. A renewal leaves the tenure as it was.
fn tenure(lease: &Tree, held: Option<&Tenure>) -> Option<Tenure> {
    let term = Term::of(lease)?;
    let since = lease["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
    let renewed = held.filter(|held| held.term == term).cloned();
    Some(renewed.unwrap_or(Tenure { term, since }))
}

fn decide(
    config: &LeaderConfig,
    current: Option<&Tree>,
    held: Option<&Term>,
    unchanged: Duration,
    now: Timestamp,
) -> Decision {
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
    // Ours from an earlier life, or given up: what was begun in that term must not happen in the next.
    if held.is_none() || held != Term::of(lease).as_ref() {
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
    use api::Term;
    use jiff::Timestamp;
    use serde_json::json;
    use std::time::Duration;

    /// `held`: transitions of the term that this life has.
    fn check(holder: &str, unchanged: u64, held: Option<u64>) -> &'static str {
        let lease = |transitions: u64| {
            json!({
                "metadata": {"name": "evenkeel", "namespace": "kube-system", "uid": "u", "resourceVersion": "4"},
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": transitions},
            })
        };
        let config = LeaderConfig::new("evenkeel", "me");
        let held = held.and_then(|transitions| Term::of(&lease(transitions)));
        let unchanged = Duration::from_secs(unchanged);
        match decide(&config, Some(&lease(7)), held.as_ref(), unchanged, Timestamp::UNIX_EPOCH) {
            Decision::Create(_) => "create",
            Decision::Take(taken) => {
                assert_eq!(taken["metadata"]["resourceVersion"], "4", "never takes what it has not seen");
                assert_eq!(taken["spec"]["holderIdentity"], "me");
                match taken["spec"].get("acquireTime") {
                    Some(_) if taken["spec"]["leaseTransitions"] == 8 => "acquire",
                    Some(_) => panic!("a term of its own needs a number of its own"),
                    None => "renew",
                }
            }
            Decision::Wait => "wait",
        }
    }

    #[test]
    fn takes_its_own_the_free_and_the_expired_and_no_other() {
        assert_eq!(check("me", 0, Some(7)), "renew");
        assert_eq!(check("me", 0, Some(6)), "acquire", "lost and won again");
        assert_eq!(check("me", 0, None), "acquire", "of an earlier life");
        assert_eq!(check("", 0, None), "acquire");
        assert_eq!(check("other", 3, Some(7)), "wait");
        assert_eq!(check("other", 16, None), "acquire");
        let config = LeaderConfig::new("evenkeel", "me");
        assert!(matches!(decide(&config, None, None, Duration::ZERO, Timestamp::UNIX_EPOCH), Decision::Create(_)));
    }
}
