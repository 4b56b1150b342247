//! A pod's record at the API as its worker knows it, and what has to be written to it: one write at a time, paced.

use std::collections::VecDeque;
use std::sync::Arc;

use api::Tree;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use tokio::task::{JoinError, JoinSet};

use super::event::What;
use super::report::{self, Reported};
use super::slot::retry_delay;
use super::status;
use crate::context::Context;
use crate::spec::names::PodName;

/// The same status is not written again sooner, however the API shows it.
const SAME_REPORT_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Status writes of one pod in a row before they are paced.
const REPORTS_MAX: usize = 20;
const REPORTS_WITHIN: SignedDuration = SignedDuration::from_secs(10);
const REPORT_PACE: SignedDuration = SignedDuration::from_secs(1);

pub struct Record {
    context: Arc<Context>,
    name: PodName,
    /// The newest status the API is known to hold, and its revision.
    status: Tree,
    revision: u64,
    /// The last body written, and when: the same again so soon means that the API writes it differently.
    sent: Option<(Tree, Timestamp)>,
    /// Writes of the last moments: a pod that changes without end is written at a steady pace.
    recent: VecDeque<Timestamp>,
    writes: JoinSet<Reported>,
    failures: u32,
    /// Nothing is written before.
    wait_until: Option<Timestamp>,
    delete_wanted: bool,
}

impl Record {
    pub fn new(context: Arc<Context>, name: PodName) -> Record {
        Record {
            context,
            name,
            status: Tree::Null,
            revision: 0,
            sent: None,
            recent: VecDeque::new(),
            writes: JoinSet::new(),
            failures: 0,
            wait_until: None,
            delete_wanted: false,
        }
    }

    pub fn status(&self) -> &Tree {
        &self.status
    }

    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wait_until
    }

    pub fn on_time(&mut self, now: Timestamp) {
        self.wait_until = self.wait_until.filter(|at| now < *at);
    }

    /// The record as it was seen; of two the newer counts.
    pub fn note(&mut self, pod: &core::Pod) {
        let revision = pod.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        if self.revision <= revision {
            self.status = serde_json::to_value(&pod.status).unwrap_or_default();
            self.revision = revision;
        }
    }

    /// The final deletion, after the last status.
    pub fn delete(&mut self) {
        self.delete_wanted = true;
    }

    /// Brings `wanted` to the API. True when nothing is left to write.
    pub fn report(&mut self, wanted: &Tree) -> bool {
        if !self.writes.is_empty() || self.wait_until.is_some() {
            return false;
        }
        if let Some(body) = status::patch(&self.name.uid, &self.status, wanted) {
            self.write(body);
            return false;
        }
        if self.delete_wanted {
            self.writes.spawn(report::delete(self.context.clone(), self.name.clone()));
            return false;
        }
        true
    }

    fn write(&mut self, body: Tree) {
        let now = self.context.ports.clock.now();
        let again_at = self.sent.as_ref().filter(|(last, _)| *last == body).map(|(_, at)| *at + SAME_REPORT_AFTER);
        if let Some(at) = again_at.filter(|at| now < *at) {
            self.wait_until = Some(at);
            return;
        }
        while self.recent.front().is_some_and(|at| REPORTS_WITHIN < now.duration_since(*at)) {
            self.recent.pop_front();
        }
        if REPORTS_MAX <= self.recent.len() {
            self.wait_until = Some(now + REPORT_PACE);
            return;
        }
        self.recent.push_back(now);
        tracing::debug!(%body, "status");
        self.sent = Some((body.clone(), now));
        self.writes.spawn(report::write(self.context.clone(), self.name.clone(), body));
    }

    /// The next write that ended; None while none is under way.
    pub async fn written(&mut self) -> Option<Result<Reported, JoinError>> {
        self.writes.join_next().await
    }

    /// What the write's end means for the pod.
    pub fn on_written(&mut self, done: Result<Reported, JoinError>) -> Option<What> {
        match done {
            Ok(Reported::Written(object)) => {
                self.failures = 0;
                let revision = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
                self.status = object["status"].clone();
                self.revision = revision.unwrap_or(self.revision);
            }
            Ok(Reported::Deleted) => {
                // The watch tells when it is gone; finalizers may keep it.
                self.delete_wanted = false;
                self.failures = 0;
            }
            Ok(Reported::Gone) => {
                self.delete_wanted = false;
                return Some(What::Removed);
            }
            Ok(Reported::Failed(error)) => {
                tracing::warn!(%error, "status was not written");
                self.sent = None;
                let wait = SignedDuration::try_from(retry_delay(self.failures)).expect("seconds fit");
                self.failures += 1;
                self.wait_until = Some(self.context.ports.clock.now() + wait);
            }
            Err(error) => tracing::error!(%error, "a report of this pod panicked"),
        }
        None
    }
}
