//! Counting finished pods exactly once.

use std::collections::BTreeSet;

use api::snapshot::gvr_of;
use api::{Op, Tree};
use base::SmolStr;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::failure::Action;
use super::index::{self, Indexes};
use super::{FINALIZER, Run, is_tracked};
use crate::kit::op;
use crate::kit::pod::PodRef;
use crate::kit::value::{int, list, text, words};

/// Uids that may wait in the status for their count.
const UNCOUNTED_MAX: usize = 500;

/// Where the count stands after this plan's status write.
pub struct Account {
    /// Counted for good.
    pub succeeded: i64,
    pub failed: i64,
    pub completed: Indexes,
    /// Present for Jobs that limit failures per index.
    pub failed_indexes: Option<Indexes>,
    waiting_succeeded: BTreeSet<SmolStr>,
    waiting_failed: BTreeSet<SmolStr>,
    /// Finalizers to take off once the status is written.
    pub releases: Vec<Op>,
    /// Message of the rule that fails the Job.
    pub fatal: Option<String>,
    /// Finished pods that did not fit into the status yet.
    overflow: bool,
}

impl Account {
    pub fn settled(&self) -> bool {
        self.waiting_succeeded.is_empty() && self.waiting_failed.is_empty() && !self.overflow
    }

    pub fn all_succeeded(&self) -> i64 {
        self.succeeded + i64::try_from(self.waiting_succeeded.len()).unwrap_or(i64::MAX)
    }

    pub fn all_failed(&self) -> i64 {
        self.failed + i64::try_from(self.waiting_failed.len()).unwrap_or(i64::MAX)
    }

    pub fn uncounted(&self) -> Tree {
        let list = |uids: &BTreeSet<SmolStr>| if uids.is_empty() { Tree::Null } else { json!(uids) };
        json!({"succeeded": list(&self.waiting_succeeded), "failed": list(&self.waiting_failed)})
    }
}

impl Run<'_> {
    pub fn account(&self) -> Account {
        let tracked = |pod: &&PodRef| is_tracked(&pod.object);
        let held: BTreeSet<SmolStr> =
            self.pods.iter().filter(tracked).map(|pod| pod.object.header.uid.clone()).collect();
        let read = |name: &str| words(list(&self.tree, &format!("/status/uncountedTerminatedPods/{name}")));
        let split = |uids: Vec<SmolStr>| -> (BTreeSet<SmolStr>, BTreeSet<SmolStr>) {
            uids.into_iter().partition(|uid| held.contains(uid))
        };
        let (waiting_succeeded, counted) = split(read("succeeded"));
        let (waiting_failed, counted_failed) = split(read("failed"));
        let size = |set: &BTreeSet<SmolStr>| i64::try_from(set.len()).unwrap_or(i64::MAX);
        let completed = Indexes::parse(text(&self.tree, "/status/completedIndexes"));
        let per_index = int(&self.tree, "/spec/backoffLimitPerIndex");
        let mut account = Account {
            succeeded: int(&self.tree, "/status/succeeded").unwrap_or_default() + size(&counted),
            failed: int(&self.tree, "/status/failed").unwrap_or_default() + size(&counted_failed),
            failed_indexes: per_index.map(|_| Indexes::parse(text(&self.tree, "/status/failedIndexes"))),
            completed,
            waiting_succeeded,
            waiting_failed,
            releases: vec![],
            fatal: None,
            overflow: false,
        };
        self.pods.iter().filter(tracked).for_each(|pod| self.take(pod, &mut account));
        if self.indexed {
            // What counts for an indexed Job is which indexes are done, not how many pods it took.
            account.succeeded = account.completed.len() - size(&account.waiting_succeeded);
            account.succeeded = account.succeeded.max(0);
        }
        account
    }

    pub fn is_failed(&self, pod: &PodRef) -> bool {
        pod.phase() == "Failed" || pod.terminating() && pod.phase() != "Succeeded" && !self.replace_failed_only
    }

    fn take(&self, pod: &PodRef, account: &mut Account) {
        let uid = &pod.object.header.uid;
        let release = op::remove_finalizer(&gvr_of::<Pod>(), &pod.object, FINALIZER);
        if account.waiting_succeeded.contains(uid) || account.waiting_failed.contains(uid) {
            account.releases.extend(release);
            return;
        }
        let (succeeded, failed) = (pod.phase() == "Succeeded", self.is_failed(pod));
        if !succeeded && !failed {
            return;
        }
        if account.waiting_succeeded.len() + account.waiting_failed.len() >= UNCOUNTED_MAX {
            account.overflow = true;
            return;
        }
        account.releases.extend(release);
        let index = index::of_pod(pod).filter(|index| self.indexed && self.completions.is_some_and(|all| *index < all));
        if succeeded {
            if self.indexed {
                // A second success of one index, or of one out of range, is none.
                if index.is_some_and(|index| account.completed.0.insert(index)) {
                    account.waiting_succeeded.insert(uid.clone());
                }
                return;
            }
            account.waiting_succeeded.insert(uid.clone());
            return;
        }
        self.take_failed(pod, index, account);
    }

    fn take_failed(&self, pod: &PodRef, index: Option<i64>, account: &mut Account) {
        let action = self.failure_action(pod);
        if action == Action::Ignore {
            return;
        }
        account.waiting_failed.insert(pod.object.header.uid.clone());
        if let Action::FailJob(message) = action {
            account.fatal = Some(message);
        } else if let (Some(index), Some(limit)) = (index, int(&self.tree, "/spec/backoffLimitPerIndex")) {
            let failures = self.failures_of(index);
            let over = failures > limit || action == Action::FailIndex;
            if let Some(failed) = account.failed_indexes.as_mut().filter(|_| over) {
                failed.0.insert(index);
            }
        }
    }

    /// Failed pods of one index, less those that do not count.
    pub fn failures_of(&self, index: i64) -> i64 {
        let of_index = self.pods.iter().filter(|pod| index::of_pod(pod) == Some(index) && self.is_failed(pod));
        let counting = of_index.filter(|pod| self.failure_action(pod) != Action::Ignore);
        i64::try_from(counting.count()).unwrap_or(i64::MAX)
    }
}
