//! From the API to the workers: a worker for each pod that is bound here and can run here, and news for it.
//!
//! What a pod may take of the node is decided here and nowhere else, one pod after the other: when it comes, and when a
//! resize asks for more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Gvr, Key, Object};
use base::SmolStr;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::context::Context;
use crate::limits;
use crate::pod::Outcome;
use crate::pod::fsm::phase_is_final;
use crate::pod::resize;
use crate::pod::view::PodView;
use crate::pod::worker::{Command, Worker};
use crate::pods::{Handle, Pods};
use crate::register::nodes;

pub struct Dispatcher {
    context: Arc<Context>,
    pods: Pods,
    look: Arc<Notify>,
    workers: JoinSet<SmolStr>,
    /// Pods that were not taken: they hold nothing.
    rejected: BTreeSet<SmolStr>,
    /// Records whose resources did not fit.
    deferred: BTreeMap<SmolStr, Arc<core::Pod>>,
    drain: CancellationToken,
}

impl Dispatcher {
    pub fn new(context: Arc<Context>, pods: Pods, look: Arc<Notify>, drain: CancellationToken) -> Dispatcher {
        let (workers, rejected, deferred) = (JoinSet::new(), BTreeSet::new(), BTreeMap::new());
        Dispatcher { context, pods, look, workers, rejected, deferred, drain }
    }

    pub async fn run(mut self) {
        // Selectors are judged by the node's labels.
        let known = self.context.view.wait_for(|snapshot| snapshot.stream(&nodes()).synced);
        let _ = tokio::time::timeout(limits::OBJECT_WAIT, self.drain.run_until_cancelled(known)).await;
        let gvr = Gvr::new("", "v1", "pods");
        let mut changes = self.context.view.changes();
        let mut resizes = tokio::time::interval(limits::RESIZE_LOOK_EVERY);
        loop {
            tokio::select! { biased;
                () = self.drain.cancelled() => break,
                Some(ended) = self.workers.join_next(), if !self.workers.is_empty() => self.on_ended(ended),
                _ = resizes.tick(), if !self.deferred.is_empty() => self.retry_resizes().await,
                change = changes.next() => match change {
                    None => break,
                    Some(change) if change.gvr != gvr => {}
                    Some(change) => {
                        let old = change.old.as_ref().map(|object| object.header.uid.clone());
                        let new = change.new.as_ref().map(|object| object.header.uid.clone());
                        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
                            self.tell(&old, Command::Removed).await;
                        }
                        if let Some(object) = &change.new {
                            self.on_pod(object).await;
                        }
                    }
                },
            }
        }
        while self.workers.join_next().await.is_some() {}
    }

    async fn on_pod(&mut self, object: &Arc<Object>) {
        let pod: Arc<core::Pod> = match object.typed() {
            Ok(pod) => pod,
            Err(error) => {
                tracing::error!(pod = %object.key, %error, "pod cannot be read");
                return;
            }
        };
        let uid = object.header.uid.clone();
        if let Some(handle) = self.pods.get(&uid) {
            let view = handle.view.borrow().clone();
            self.tell_spec(&uid, pod, &view).await;
            return;
        }
        let (commands, inbox) = mpsc::channel(limits::WORKER_QUEUE_MAX);
        let rejection = self.judge(&pod).await;
        if rejection.is_some() {
            self.rejected.insert(uid.clone());
        }
        let held = Arc::new(resize::adopted(&pod));
        let (worker, view) = Worker::new(self.context.clone(), &held, rejection, inbox, self.drain.clone());
        let seen = view.borrow().clone();
        self.pods.add(uid.clone(), Handle { commands, view });
        let (named, first) = (uid.clone(), held.clone());
        self.workers.spawn(async move {
            worker.run(first).await;
            named
        });
        self.look.notify_one();
        if resize::is_wanted(&pod, &held) {
            self.tell_spec(&uid, pod, &seen).await;
        }
    }

    /// Passes a record on with the resources that are promised: what it asks for, where that fits.
    async fn tell_spec(&mut self, uid: &SmolStr, record: Arc<core::Pod>, seen: &PodView) {
        self.deferred.remove(uid);
        if !resize::is_wanted(&record, &seen.pod) {
            self.tell(uid, Command::Spec(record, None)).await;
            return;
        }
        let promised = Arc::new(resize::overlay(&record, &seen.pod));
        if seen.ending {
            // Nothing of it will use more.
            self.tell(uid, Command::Spec(promised, None)).await;
            return;
        }
        let room = self.context.room(self.context.node().as_deref(), self.others(&record));
        match resize::judge(&record, &room) {
            None => self.tell(uid, Command::Spec(record, None)).await,
            Some(pending) => {
                self.deferred.insert(uid.clone(), record);
                self.tell(uid, Command::Spec(promised, Some(pending))).await;
            }
        }
    }

    /// What did not fit may fit by now.
    async fn retry_resizes(&mut self) {
        for (uid, record) in self.deferred.clone() {
            match self.pods.get(&uid) {
                Some(handle) => {
                    let view = handle.view.borrow().clone();
                    self.tell_spec(&uid, record, &view).await;
                }
                None => drop(self.deferred.remove(&uid)),
            }
        }
    }

    /// Whether a pod that comes can run here. One that was taken once is not judged again: it may run.
    async fn judge(&self, pod: &core::Pod) -> Option<Outcome> {
        let status = pod.status.as_ref();
        let taken = status.is_some_and(|status| status.start_time.is_some());
        if taken || pod.metadata.deletion_timestamp.is_some() || phase_is_final(pod) {
            return None;
        }
        let others = self.others(pod);
        let refusal = admission::judge(pod, &self.context.room(self.context.node().as_deref(), others.clone()))?;
        if refusal.reason != admission::NODE_AFFINITY {
            return Some(refusal);
        }
        // The labels may have changed a moment ago.
        let key = Key::cluster(&self.context.config.node_name);
        let newest = self.context.client.get(&nodes(), &key).await.ok()?;
        let newest = Object::parse(newest.to_string().into()).ok();
        admission::judge(pod, &self.context.room(newest.as_ref(), others))
    }

    /// Pods that hold their part of the node.
    fn others(&self, pod: &core::Pod) -> Vec<Arc<core::Pod>> {
        let stream = self.context.view.snapshot().stream(&Gvr::new("", "v1", "pods"));
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let holds = |object: &&Arc<Object>| {
            let of = &object.header.uid;
            let live = self.pods.get(of).map(|handle| !handle.view.borrow().over);
            of != uid && !self.rejected.contains(of) && live != Some(false)
        };
        let others = stream.iter().filter(holds).filter_map(|object| object.typed::<core::Pod>().ok());
        let started = |pod: &core::Pod| pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        let known = |pod: &core::Pod| self.pods.get(pod.metadata.uid.as_deref().unwrap_or_default()).is_some();
        let others = others.filter(|pod| !phase_is_final(pod) && (started(pod) || known(pod)));
        // Of those that run here what they were promised counts, not what they wish for.
        let held = |pod: Arc<core::Pod>| {
            let handle = self.pods.get(pod.metadata.uid.as_deref().unwrap_or_default());
            handle.map_or(pod, |handle| handle.view.borrow().pod.clone())
        };
        others.map(held).collect()
    }

    /// A worker that does not keep up (it never waits for anything slow) holds the dispatcher only until it reads.
    async fn tell(&self, uid: &str, command: Command) {
        if let Some(handle) = self.pods.get(uid) {
            let _ = handle.commands.send(command).await;
        }
    }

    fn on_ended(&mut self, ended: Result<SmolStr, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.rejected.remove(&uid);
                self.pods.remove(&uid);
            }
            Err(error) => tracing::error!(%error, "a pod's worker panicked"),
        }
    }
}
