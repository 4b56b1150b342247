//! Jobs: run pods until enough have succeeded, too many have failed, or time is up.
//!
//! Counters survive any stop because accounting goes in passes: a finished pod's uid is written to
//! `status.uncountedTerminatedPods`, then its finalizer is taken off, and only a uid whose pod has no finalizer any more
//! moves into the counters.

mod account;
mod failure;
mod index;
mod launch;
mod verdict;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::snapshot::gvr_of;
use api::{Index, Key, LabelSelector, Object, Op, Plan, Snapshot, Stream, Tree};
use base::format_smolstr;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use self::account::Account;
use self::verdict::Verdict;
use crate::kit::condition::{self, Condition};
use crate::kit::keys::{self, ORPHAN};
use crate::kit::pod::PodRef;
use crate::kit::value::{flag, int, list, text, time, time_at};
use crate::kit::{op, owner};
use crate::{Controller, Ctx, Watch};

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// Pods that have yet to be counted, by the Job that made them: `namespace/name`.
const TRACKED: Index = Index {
    name: "tracked",
    words: |object| {
        let owner = object.header.controller().filter(|owner| owner.kind == "Job" && is_tracked(object));
        owner.map(|owner| format_smolstr!("{}/{}", object.key.namespace, owner.name)).into_iter().collect()
    },
};

pub fn controller() -> Controller {
    Controller {
        name: "job",
        component: "job-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Job>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![Index::CONTROLLER, ORPHAN, TRACKED] },
        ],
        every_kind: false,
        enqueue: |gvr, old, new, snapshot| {
            if *gvr == gvr_of::<Job>() {
                return keys::own(old, new);
            }
            keys::controllers_or_selecting("Job", &snapshot.of::<Job>(), keys::label_selector, old, new)
        },
        plan,
        workers: 5,
    }
}

/// A Job with its pods.
struct Run<'a> {
    object: &'a Object,
    tree: Tree,
    pods: Vec<PodRef>,
    /// All pods there are.
    stream: Stream,
    indexed: bool,
    parallelism: i64,
    completions: Option<i64>,
    /// A terminating pod keeps its place until it has failed for good.
    replace_failed_only: bool,
    now: Timestamp,
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let jobs = snapshot.of::<Job>();
    let stream = snapshot.of::<Pod>();
    let object = jobs.get(key);
    let releases = release_orphans(&stream, key, object);
    let Some(object) = object.filter(|_| releases.is_empty()) else { return Plan::step(releases) };
    let tree = object.tree();
    let claim = owner::claim::<Job, Pod>(object, &selector(object, &tree), &stream, |_| true);
    if !claim.ops.is_empty() {
        return Plan::step(claim.ops);
    }
    let policy = text(&tree, "/spec/podReplacementPolicy") == "Failed";
    let run = Run {
        object,
        pods: claim.owned.iter().filter_map(PodRef::of).collect(),
        stream,
        indexed: text(&tree, "/spec/completionMode") == "Indexed",
        parallelism: int(&tree, "/spec/parallelism").unwrap_or(1),
        completions: int(&tree, "/spec/completions"),
        replace_failed_only: policy || tree.pointer("/spec/podFailurePolicy").is_some(),
        tree,
        now,
    };
    run.plan()
}

/// The Job's selector; without one, its uid's label.
fn selector(object: &Object, tree: &Tree) -> LabelSelector {
    let given = tree.pointer("/spec/selector").and_then(keys::label_selector).filter(|selector| !selector.is_empty());
    given.unwrap_or_else(|| {
        let labels = json!({ CONTROLLER_UID: object.header.uid });
        LabelSelector::from_tree(&json!({ "matchLabels": labels })).unwrap_or_default()
    })
}

/// Pods of a Job that is gone need not be counted: let them go, also when another has its name.
fn release_orphans(pods: &Stream, key: &Key, now: Option<&Arc<Object>>) -> Vec<Op> {
    let uid = now.map(|job| &job.header.uid);
    let word = format_smolstr!("{}/{}", key.namespace, key.name);
    let orphans = pods.by(TRACKED.name, &word).filter(|pod| pod.header.controller().map(|owner| &owner.uid) != uid);
    orphans.filter_map(|pod| op::remove_finalizer(&gvr_of::<Pod>(), pod, FINALIZER)).collect()
}

fn is_tracked(pod: &Object) -> bool {
    pod.header.finalizers.iter().any(|name| name == FINALIZER)
}

impl Run<'_> {
    fn plan(self) -> Plan {
        let conditions = list(&self.tree, "/status/conditions");
        let done = condition::is_true(conditions, "Complete") || condition::is_true(conditions, "Failed");
        if done || self.object.header.deletion.is_some() {
            let release = |pod: &PodRef| op::remove_finalizer(&gvr_of::<Pod>(), &pod.object, FINALIZER);
            return Plan::step(self.pods.iter().filter_map(release).collect());
        }
        let account = self.account();
        let verdict = self.verdict(&account);
        let suspended = flag(&self.tree, "/spec/suspend");
        let (mut changes, mut events, mut again) = (vec![], vec![], None);
        match &verdict {
            Verdict::Running if suspended => self.end_active(&mut changes, &mut events),
            Verdict::Running => again = self.launch(&account, &mut changes, &mut events),
            Verdict::Failed { .. } | Verdict::Succeeded { .. } => self.end_active(&mut changes, &mut events),
        }
        let status = self.status(&account, &verdict, suspended, &mut events);
        let status = op::status::<Job>(self.object, &self.tree, &status);
        let plan = Plan::step(status.into_iter().collect()).then(account.releases).then(changes).then(events);
        let deadline = self.deadline().filter(|at| *at > self.now && !suspended);
        again.into_iter().chain(deadline).fold(plan, Plan::again_at)
    }

    fn active(&self) -> impl Iterator<Item = &PodRef> {
        self.pods.iter().filter(|pod| pod.active())
    }

    fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| pod.terminating() && !pod.finished()).count()
    }

    /// When the Job's time is up.
    fn deadline(&self) -> Option<Timestamp> {
        let seconds = int(&self.tree, "/spec/activeDeadlineSeconds")?;
        Some(time_at(&self.tree, "/status/startTime")? + SignedDuration::from_secs(seconds))
    }

    fn end_active(&self, changes: &mut Vec<Op>, events: &mut Vec<Op>) {
        for pod in self.active() {
            changes.push(op::delete::<Pod>(&pod.object));
            let message = format!("Deleted pod: {}", pod.object.key.name);
            events.push(op::event::<Job>(self.object, "SuccessfulDelete", message));
        }
    }

    fn status(&self, account: &Account, verdict: &Verdict, suspended: bool, events: &mut Vec<Op>) -> Tree {
        let mut conditions = list(&self.tree, "/status/conditions").to_vec();
        let some = |count: i64| if count == 0 { Tree::Null } else { json!(count) };
        let size = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let active = size(self.active().count());
        let mut started = self.tree.pointer("/status/startTime").cloned().unwrap_or_default();
        self.suspension(suspended, &mut conditions, &mut started, events);
        let settled = account.settled() && active == 0 && self.terminating() == 0;
        let completed = self.conclude(verdict, settled, &mut conditions, events);
        json!({
            "active": some(active),
            "ready": size(self.active().filter(|pod| pod.ready()).count()),
            "terminating": size(self.terminating()),
            "succeeded": some(account.succeeded),
            "failed": some(account.failed),
            "startTime": started,
            "completionTime": if completed { json!(time(self.now)) } else { Tree::Null },
            "completedIndexes": if self.indexed { words_or_null(&account.completed) } else { Tree::Null },
            "failedIndexes": account.failed_indexes.as_ref().map_or(Tree::Null, words),
            "uncountedTerminatedPods": account.uncounted(),
            "conditions": conditions,
        })
    }

    fn suspension(&self, suspended: bool, conditions: &mut Vec<Tree>, started: &mut Tree, events: &mut Vec<Op>) {
        let was = condition::is_true(conditions, "Suspended");
        let mut tell = |status, reason, message| {
            let said = Condition { r#type: "Suspended", status, reason, message };
            condition::set_with(conditions, said, self.now, &["lastProbeTime"]);
        };
        if suspended && !was {
            tell("True", "JobSuspended", "Job suspended");
            *started = Tree::Null;
            events.push(op::event::<Job>(self.object, "Suspended", "Job suspended"));
        } else if !suspended && was {
            tell("False", "JobResumed", "Job resumed");
            *started = json!(time(self.now));
            events.push(op::event::<Job>(self.object, "Resumed", "Job resumed"));
        } else if !suspended && started.is_null() {
            *started = json!(time(self.now));
        }
    }

    /// Says that the end is decided, and once every pod has ended and is counted, that it has come. True where the
    /// Job has completed just now.
    fn conclude(&self, verdict: &Verdict, settled: bool, conditions: &mut Vec<Tree>, events: &mut Vec<Op>) -> bool {
        let (decided, ended, reason, message) = match verdict {
            Verdict::Running => return false,
            Verdict::Failed { reason, message } => ("FailureTarget", "Failed", reason, message),
            Verdict::Succeeded { reason, message } => ("SuccessCriteriaMet", "Complete", reason, message),
        };
        let mut tell = |r#type| {
            let said = Condition { r#type, status: "True", reason, message };
            condition::set_with(conditions, said, self.now, &["lastProbeTime"]);
        };
        tell(decided);
        if !settled {
            return false;
        }
        tell(ended);
        if ended == "Complete" {
            events.push(op::event::<Job>(self.object, "Completed", "Job completed"));
            return true;
        }
        events.push(op::warning::<Job>(self.object, reason, message.as_str()));
        false
    }
}

fn words(indexes: &index::Indexes) -> Tree {
    json!(indexes.to_string())
}

fn words_or_null(indexes: &index::Indexes) -> Tree {
    if indexes.is_empty() { Tree::Null } else { words(indexes) }
}
