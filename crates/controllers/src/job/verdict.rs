//! Whether a Job is to go on, and if not, how it ends.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::Run;
use super::account::Account;
use super::index::Indexes;
use crate::kit::condition::{find, is_true};
use crate::kit::value::{int, list, text};

const BACKOFF_LIMIT_DEFAULT: i64 = 6;

pub enum Verdict {
    Running,
    Failed { reason: String, message: String },
    Succeeded { reason: String, message: String },
}

fn failed(reason: &str, message: impl Into<String>) -> Verdict {
    Verdict::Failed { reason: reason.to_owned(), message: message.into() }
}

fn succeeded(reason: &str, message: impl Into<String>) -> Verdict {
    Verdict::Succeeded { reason: reason.to_owned(), message: message.into() }
}

impl Run<'_> {
    pub fn verdict(&self, account: &Account) -> Verdict {
        if let Some(standing) = self.standing() {
            return standing;
        }
        if let Some(message) = &account.fatal {
            return failed("PodFailurePolicy", message);
        }
        if let Some(message) = self.success_policy(account) {
            return succeeded("SuccessPolicy", message);
        }
        if let Some(failure) = self.limits(account) {
            return failure;
        }
        if self.complete(account) {
            return succeeded("CompletionsReached", "Reached expected number of succeeded pods");
        }
        Verdict::Running
    }

    /// What was decided before stands.
    fn standing(&self) -> Option<Verdict> {
        let conditions = list(&self.tree, "/status/conditions");
        for (name, make) in
            [("FailureTarget", failed as fn(&str, String) -> Verdict), ("SuccessCriteriaMet", succeeded)]
        {
            if let Some(said) = find(conditions, name).filter(|_| is_true(conditions, name)) {
                return Some(make(text(said, "/reason"), text(said, "/message").to_owned()));
            }
        }
        None
    }

    fn limits(&self, account: &Account) -> Option<Verdict> {
        if self.deadline().is_some_and(|at| at <= self.now) {
            return Some(failed("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        let per_index = account.failed_indexes.as_ref();
        let fallback = if per_index.is_some() { i64::from(i32::MAX) } else { BACKOFF_LIMIT_DEFAULT };
        let limit = int(&self.tree, "/spec/backoffLimit").unwrap_or(fallback);
        if account.all_failed() > limit || self.restarted_too_often(limit) {
            return Some(failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        let failures = per_index?;
        let most = int(&self.tree, "/spec/maxFailedIndexes");
        if most.is_some_and(|most| failures.len() > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(failed("MaxFailedIndexesExceeded", message));
        }
        let ended = account.completed.len() + failures.len();
        if !failures.is_empty() && self.completions.is_some_and(|all| ended >= all) {
            return Some(failed("FailedIndexes", "Job has failed indexes"));
        }
        None
    }

    /// Pods that restart in place do not fail; their restarts count instead.
    fn restarted_too_often(&self, limit: i64) -> bool {
        if text(&self.tree, "/spec/template/spec/restartPolicy") != "OnFailure" {
            return false;
        }
        let restarts = |all: &Option<Vec<ContainerStatus>>| -> i64 {
            all.iter().flatten().map(|container| i64::from(container.restart_count)).sum()
        };
        let of = |pod: &crate::kit::pod::PodRef| {
            let status = pod.pod.status.as_ref();
            status.map_or(0, |status| restarts(&status.init_container_statuses) + restarts(&status.container_statuses))
        };
        let sum: i64 = self.active().map(of).sum();
        if limit == 0 { sum > 0 } else { sum >= limit }
    }

    fn complete(&self, account: &Account) -> bool {
        match self.completions {
            // A work queue: one success says that the work is done; the others finish by themselves.
            None => account.all_succeeded() > 0 && self.active().next().is_none(),
            Some(wanted) => account.all_succeeded() >= wanted,
        }
    }

    fn success_policy(&self, account: &Account) -> Option<String> {
        for (at, rule) in list(&self.tree, "/spec/successPolicy/rules").iter().enumerate() {
            let named = rule.get("succeededIndexes").and_then(|text| text.as_str()).map(Indexes::parse);
            let done = match &named {
                Some(named) => named.0.intersection(&account.completed.0).count(),
                None => account.completed.0.len(),
            };
            let all = named.as_ref().map_or(i64::MAX, Indexes::len);
            let wanted = int(rule, "/succeededCount").unwrap_or(all);
            if i64::try_from(done).unwrap_or(i64::MAX) >= wanted {
                return Some(format!("Matched rules at index {at}"));
            }
        }
        None
    }
}
