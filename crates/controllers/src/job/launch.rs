//! Which pods a running Job makes or takes back now, and how long it waits after failures.

use std::collections::BTreeSet;

use api::{Op, Tree};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::account::Account;
use super::index;
use super::{COMPLETION_INDEX, CONTROLLER_UID, FINALIZER, Run};
use crate::kit::pod::{PodRef, from_template};
use crate::kit::value::{int, list};
use crate::kit::{name, op};

/// Pods made or deleted by one plan.
const BURST_PODS_MAX: i64 = 500;
const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(600);

impl Run<'_> {
    /// Answers when to look again for the sake of a backoff.
    pub fn launch(&self, account: &Account, changes: &mut Vec<Op>, events: &mut Vec<Op>) -> Option<Timestamp> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let active = count(self.active().count());
        let waiting = if self.replace_failed_only { count(self.terminating()) } else { 0 };
        let done = account.all_succeeded();
        let wanted = match self.completions {
            None if done > 0 => active,
            None => self.parallelism,
            Some(all) => {
                let failed = account.failed_indexes.as_ref().map_or(0, super::index::Indexes::len);
                (all - done - failed).min(self.parallelism).max(0)
            }
        };
        if active > wanted {
            self.shrink(usize::try_from(active - wanted).unwrap_or_default(), changes, events);
            return None;
        }
        let missing = (wanted - active - waiting).min(BURST_PODS_MAX);
        if missing <= 0 {
            return None;
        }
        if let Some(until) = self.backoff().filter(|until| *until > self.now && !self.indexed_backoff()) {
            return Some(until);
        }
        if self.indexed {
            self.make_indexed(account, missing, changes, events)
        } else {
            self.make(missing, changes, events)
        }
    }

    fn shrink(&self, surplus: usize, changes: &mut Vec<Op>, events: &mut Vec<Op>) {
        let mut active: Vec<&PodRef> = self.active().collect();
        active.sort_by(|a, b| a.deletion_order(0, b, 0));
        for pod in active.into_iter().take(surplus) {
            changes.push(op::delete::<Pod>(&pod.object));
            let message = format!("Deleted pod: {}", pod.object.key.name);
            events.push(op::event::<Job>(self.object, "SuccessfulDelete", message));
        }
    }

    fn make(&self, missing: i64, changes: &mut Vec<Op>, events: &mut Vec<Op>) -> Option<Timestamp> {
        let salt = name::salt(&self.stream, self.object, self.pods.iter().map(|pod| &*pod.object));
        let base = format!("{}-", self.object.key.name);
        for ordinal in 0..missing {
            let name = name::child(&base, &self.object.header.uid, salt, &ordinal.to_string());
            self.push(self.pod(&name, &base), &name, changes, events);
        }
        None
    }

    fn make_indexed(
        &self,
        account: &Account,
        missing: i64,
        changes: &mut Vec<Op>,
        events: &mut Vec<Op>,
    ) -> Option<Timestamp> {
        let held = |pod: &&PodRef| pod.active() || self.replace_failed_only && pod.terminating() && !pod.finished();
        let busy: BTreeSet<i64> = self.pods.iter().filter(held).filter_map(index::of_pod).collect();
        let failed = |index: &i64| account.failed_indexes.as_ref().is_some_and(|all| all.0.contains(index));
        let open = (0..self.completions.unwrap_or_default())
            .filter(|index| !account.completed.0.contains(index) && !busy.contains(index) && !failed(index));
        let mut again: Option<Timestamp> = None;
        let mut made = 0;
        for index in open {
            if made >= missing {
                break;
            }
            if let Some(until) = self.backoff_of(index).filter(|until| *until > self.now) {
                again = again.into_iter().chain([until]).min();
                continue;
            }
            made += 1;
            let base = format!("{}-{index}-", self.object.key.name);
            let own = self.pods.iter().filter(|pod| index::of_pod(pod) == Some(index));
            let salt = name::salt(&self.stream, self.object, own.map(|pod| &*pod.object));
            let name = name::child(&base, &self.object.header.uid, salt, &index.to_string());
            let mut pod = self.pod(&name, &base);
            self.mark(&mut pod, index);
            self.push(pod, &name, changes, events);
        }
        again
    }

    fn push(&self, pod: Tree, name: &str, changes: &mut Vec<Op>, events: &mut Vec<Op>) {
        changes.push(op::create::<Pod>(&self.object.key.namespace, pod));
        events.push(op::event::<Job>(self.object, "SuccessfulCreate", format!("Created pod: {name}")));
    }

    fn pod(&self, name: &str, base: &str) -> Tree {
        let template = self.tree.pointer("/spec/template").cloned().unwrap_or_default();
        let mut pod = from_template::<Job>(self.object, &template, name);
        let meta = &mut pod["metadata"];
        meta["generateName"] = json!(base);
        let mut finalizers = list(meta, "/finalizers").to_vec();
        finalizers.push(json!(FINALIZER));
        meta["finalizers"] = json!(finalizers);
        let uid = json!(self.object.header.uid);
        // Jobs that were made with a selector of their own bring labels that must not be changed.
        if self.tree.pointer("/spec/manualSelector").is_none() {
            for (key, value) in [
                (CONTROLLER_UID, &uid),
                ("controller-uid", &uid),
                ("batch.kubernetes.io/job-name", &json!(self.object.key.name)),
                ("job-name", &json!(self.object.key.name)),
            ] {
                if meta["labels"].get(key).is_none() {
                    meta["labels"][key] = value.clone();
                }
            }
        }
        pod
    }

    /// The index as annotation, label, host name and environment of every container.
    fn mark(&self, pod: &mut Tree, index: i64) {
        let text = index.to_string();
        pod["metadata"]["annotations"][COMPLETION_INDEX] = json!(text);
        pod["metadata"]["labels"][COMPLETION_INDEX] = json!(text);
        pod["spec"]["hostname"] = json!(format!("{}-{index}", self.object.key.name));
        if let Some(limit) = int(&self.tree, "/spec/backoffLimitPerIndex") {
            let failures = self.failures_of(index).min(limit);
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] = json!(failures.to_string());
        }
        let source = json!({"fieldRef": {"fieldPath": format!("metadata.labels['{COMPLETION_INDEX}']")}});
        let variable = json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": source});
        for part in ["initContainers", "containers"] {
            for container in pod["spec"][part].as_array_mut().into_iter().flatten() {
                let mut env = list(container, "/env").to_vec();
                if !env.iter().any(|known| known["name"] == "JOB_COMPLETION_INDEX") {
                    env.push(variable.clone());
                    container["env"] = json!(env);
                }
            }
        }
        if pod["spec"]["initContainers"].is_null() {
            pod["spec"].as_object_mut().expect("made as an object").remove("initContainers");
        }
    }

    fn indexed_backoff(&self) -> bool {
        self.tree.pointer("/spec/backoffLimitPerIndex").is_some_and(|limit| !limit.is_null())
    }

    fn backoff(&self) -> Option<Timestamp> {
        self.backoff_after(self.pods.iter().collect())
    }

    fn backoff_of(&self, index: i64) -> Option<Timestamp> {
        if !self.indexed_backoff() {
            return None;
        }
        self.backoff_after(self.pods.iter().filter(|pod| index::of_pod(pod) == Some(index)).collect())
    }

    /// Doubles with every failure since the last success.
    fn backoff_after(&self, pods: Vec<&PodRef>) -> Option<Timestamp> {
        let of = |wanted: bool| {
            pods.iter().filter(move |pod| if wanted { pod.phase() == "Succeeded" } else { self.is_failed(pod) })
        };
        let success = of(true).filter_map(|pod| ended_at(pod)).max();
        let failures: Vec<Timestamp> = of(false).map(|pod| ended_at(pod).unwrap_or(self.now)).collect();
        let recent: Vec<Timestamp> =
            failures.into_iter().filter(|at| success.is_none_or(|success| *at > success)).collect();
        let last = recent.iter().max()?;
        let doublings = u32::try_from(recent.len() - 1).unwrap_or(u32::MAX).min(10);
        Some(*last + (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX))
    }
}

/// When the last container of a pod ended, or its deletion was asked for.
fn ended_at(pod: &PodRef) -> Option<Timestamp> {
    let status = pod.pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let ends = containers
        .into_iter()
        .flatten()
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0));
    let by_ready = pod.condition("Ready").and_then(|(status, since)| since.filter(|_| status == "False"));
    ends.max().or(by_ready).or(pod.object.header.deletion)
}
