//! The status of a Deployment: counters, availability, and whether the rollout moves.

use api::Tree;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Rollout;
use crate::kit::condition::{self, Condition, word};
use crate::kit::value::{flag, int, list, text, time_at};

const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PROGRESSING: &str = "Progressing";
/// `progressDeadlineSeconds` that means "never".
const NO_DEADLINE: i64 = i32::MAX as i64;

impl Rollout<'_> {
    /// The wanted status, and when a deadline passes. `made` is the set that this plan creates.
    pub fn status(&self, made: Option<&str>, collided: bool) -> (Tree, Option<Timestamp>) {
        let sum = |field: &str| self.sets.iter().map(|set| set.count(field)).sum::<i64>();
        let available = sum("availableReplicas");
        let total: i64 = self.sets.iter().map(super::Set::spec_replicas).sum();
        let collisions = int(self.tree, "/status/collisionCount");
        let some = |count: i64| if count == 0 { Tree::Null } else { json!(count) };
        let mut status = json!({
            "observedGeneration": self.object.header.generation,
            "replicas": some(sum("replicas")),
            "updatedReplicas": some(self.current.map_or(0, |at| self.sets[at].count("replicas"))),
            "readyReplicas": some(sum("readyReplicas")),
            "availableReplicas": some(available),
            "unavailableReplicas": some((total - available).max(0)),
            "terminatingReplicas": sum("terminatingReplicas"),
            "collisionCount": if collided { json!(collisions.unwrap_or_default() + 1) } else { json!(collisions) },
        });
        let mut conditions = list(self.tree, "/status/conditions").to_vec();
        self.availability(&mut conditions, available);
        self.failures(&mut conditions);
        let again = self.progress(&mut conditions, &status, made);
        status["conditions"] = json!(conditions);
        (status, again)
    }

    /// All pods are of the current template and available, and no old one is left.
    pub fn complete(&self, status: &Tree) -> bool {
        let is = |field: &str| status.get(field).and_then(Tree::as_i64).unwrap_or_default() == self.replicas;
        is("updatedReplicas") && is("replicas") && is("availableReplicas")
    }

    fn availability(&self, conditions: &mut Vec<Tree>, available: i64) {
        let enough = available >= self.replicas - self.unavailable;
        let (reason, message) = if enough {
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        self.set(conditions, Condition { r#type: "Available", status: word(enough), reason, message });
    }

    /// What keeps the sets from making pods.
    fn failures(&self, conditions: &mut Vec<Tree>) {
        let newest_first = self.current.into_iter().chain(self.old());
        let failure = newest_first
            .filter_map(|at| condition::find(list(&self.sets[at].tree, "/status/conditions"), "ReplicaFailure"))
            .next();
        condition::remove(conditions, "ReplicaFailure");
        conditions.extend(failure.cloned());
    }

    fn progress(&self, conditions: &mut Vec<Tree>, status: &Tree, made: Option<&str>) -> Option<Timestamp> {
        let deadline = int(self.tree, "/spec/progressDeadlineSeconds").filter(|seconds| *seconds < NO_DEADLINE);
        let Some(deadline) = deadline else {
            condition::remove(conditions, PROGRESSING);
            return None;
        };
        let before = condition::find(conditions, PROGRESSING).cloned();
        let reason = before.as_ref().map_or("", |condition| text(condition, "/reason")).to_owned();
        let mut tell = |status: &str, reason: &str, message: &str| {
            self.set(conditions, Condition { r#type: PROGRESSING, status, reason, message });
        };
        if flag(self.tree, "/spec/paused") {
            tell("Unknown", "DeploymentPaused", "Deployment is paused");
            return None;
        }
        if reason == "DeploymentPaused" {
            tell("Unknown", "DeploymentResumed", "Deployment is resumed");
            return None;
        }
        if let Some(name) = made {
            tell("True", "NewReplicaSetCreated", &format!("Created new replica set {name:?}"));
            return Some(self.now + SignedDuration::from_secs(deadline + 1));
        }
        let count = |status: &Tree, field: &str| int(status, &format!("/{field}")).unwrap_or_default();
        if count(status, "replicas") == count(status, "updatedReplicas") && reason == AVAILABLE && !self.rolling() {
            return None;
        }
        let subject = match self.current {
            Some(at) => format!("ReplicaSet {:?}", self.sets[at].object.key.name.as_str()),
            None => format!("Deployment {:?}", self.object.key.name.as_str()),
        };
        if self.complete(status) {
            tell("True", AVAILABLE, &format!("{subject} has successfully progressed."));
            return None;
        }
        if before.is_none() || reason == AVAILABLE || self.progressed(status) {
            let message = format!("{subject} is progressing.");
            // The message repeats; the update time must move with every bit of progress, for the deadline runs from it.
            condition::remove(conditions, PROGRESSING);
            let mut fresh = vec![];
            let new = Condition { r#type: PROGRESSING, status: "True", reason: "ReplicaSetUpdated", message: &message };
            self.set(&mut fresh, new);
            if let (Some(new), Some(old)) = (fresh.first_mut(), before.filter(|old| text(old, "/status") == "True")) {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            conditions.extend(fresh);
            return Some(self.now + SignedDuration::from_secs(deadline + 1));
        }
        if reason == TIMED_OUT {
            return None;
        }
        let since = before.as_ref().and_then(|condition| time_at(condition, "/lastUpdateTime")).unwrap_or(self.now);
        let due = since + SignedDuration::from_secs(deadline);
        if due < self.now {
            tell("False", TIMED_OUT, &format!("{subject} has timed out progressing."));
            return None;
        }
        Some(due + SignedDuration::from_secs(1))
    }

    /// The template has changed after the last completed rollout.
    fn rolling(&self) -> bool {
        self.current.is_none_or(|at| self.sets[at].count("replicas") == 0 && self.replicas > 0)
            || self.old().any(|at| self.sets[at].spec_replicas() > 0)
    }

    fn progressed(&self, status: &Tree) -> bool {
        let old = self.tree.get("status").unwrap_or(&Tree::Null);
        let of = |status: &Tree, field: &str| status.get(field).and_then(Tree::as_i64).unwrap_or_default();
        let grew = |field: &str| of(status, field) > of(old, field);
        let outdated = |status: &Tree| of(status, "replicas") - of(status, "updatedReplicas");
        grew("updatedReplicas")
            || grew("readyReplicas")
            || grew("availableReplicas")
            || outdated(status) < outdated(old)
    }

    fn set(&self, conditions: &mut Vec<Tree>, condition: Condition<'_>) {
        condition::set_with(conditions, condition, self.now, &["lastUpdateTime"]);
    }
}
