//! One pod's worker: the only owner of its state. It performs the state machine's effects as jobs and feeds it news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::Tree;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::event::{PodEffect, PodEvent, StartFailure, What};
use super::fsm::{self, Outcome, Pod};
use super::jobs::{self, Done, Stopping};
use super::record::Record;
use super::resize::Pending;
use super::slot::{SlotState, retry_delay};
use super::start::Start;
use super::view::PodView;
use super::{adopt, status};
use crate::context::Context;
use crate::limits;
use crate::probes::Prober;
use crate::runtime::SandboxConfig;
use crate::spec::names::PodName;
use crate::volumes::{Volumes, payload};

/// A look at nothing new happens at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// What the agent tells a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// The record, with the resources that are promised, and a resize that is not.
    Spec(Arc<core::Pod>, Option<Pending>),
    Removed,
    Seen(Arc<Seen>),
    /// The node wants it gone.
    Evict(Outcome),
}

/// A listing of the runtime: what is ready and what runs, on the whole node.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub ready_sandboxes: BTreeSet<String>,
    pub running: BTreeSet<String>,
}

pub struct Worker {
    context: Arc<Context>,
    name: PodName,
    state: Pod,
    inbox: mpsc::Receiver<Command>,
    view: watch::Sender<Arc<PodView>>,
    drain: CancellationToken,
    jobs: JoinSet<Done>,
    /// Cancels volumes and sandbox under way.
    building: CancellationToken,
    starts: BTreeMap<String, CancellationToken>,
    news: (mpsc::Sender<What>, mpsc::Receiver<What>),
    poke: Arc<Notify>,
    volumes: Volumes,
    refreshing: bool,
    /// The last try to bring volumes up to date failed.
    refresh_failed: bool,
    sandbox_config: Option<SandboxConfig>,
    probers: BTreeMap<String, Prober>,
    examining: bool,
    record: Record,
    collected: bool,
    /// Why the node does not take the pod, unless it runs already.
    rejection: Option<Outcome>,
}

impl Worker {
    pub fn new(
        context: Arc<Context>,
        pod: &Arc<core::Pod>,
        rejection: Option<Outcome>,
        inbox: mpsc::Receiver<Command>,
        drain: CancellationToken,
    ) -> (Worker, watch::Receiver<Arc<PodView>>) {
        let first = PodView { pod: pod.clone(), ..PodView::default() };
        let (view, seen) = watch::channel(Arc::new(first));
        let name = PodName::of(pod);
        let record = Record::new(context.clone(), name.clone());
        let worker = Worker {
            context,
            name,
            state: Pod::Gone,
            inbox,
            view,
            drain,
            jobs: JoinSet::new(),
            building: CancellationToken::new(),
            starts: BTreeMap::new(),
            news: mpsc::channel(limits::WORKER_QUEUE_MAX),
            poke: Arc::default(),
            volumes: Volumes::default(),
            refreshing: false,
            refresh_failed: false,
            sandbox_config: None,
            probers: BTreeMap::new(),
            examining: false,
            record,
            collected: false,
            rejection,
        };
        (worker, seen)
    }

    /// Runs the pod from what is found of it to its end, or until the agent drains: then everything is left running.
    #[tracing::instrument(name = "pod", skip_all, fields(pod = %format!("{}/{}", self.name.namespace, self.name.name)))]
    pub async fn run(mut self, pod: Arc<core::Pod>) {
        let Some((found, missed)) = self.find().await else { return };
        self.record.note(&pod);
        self.follow(&pod);
        let mut out = Vec::new();
        let now = self.context.ports.clock.now();
        let mut life = adopt::life(&pod, &found, now);
        if let Some(rejection) = self.rejection.take().filter(|_| found.is_empty()) {
            self.context.event(&pod, None, true, &rejection.reason, &rejection.message);
            let message = format!("Pod was rejected: {}", rejection.message);
            life.outcome = Some(Outcome { message, ..rejection });
        }
        self.state = Pod::new(life, now, &mut out);
        self.perform_all(out);
        missed.into_iter().for_each(|command| self.on_command(command));
        self.after_step();
        while !matches!(self.state, Pod::Gone) {
            if !self.turn().await {
                return;
            }
        }
        self.probers.clear();
        self.context.objects.forget(&self.name.uid);
        self.context.images.forget(&self.name.uid);
        self.context.counts.forget(&self.name.uid);
        // What still removes dead containers must be through: two removals of one container get in each other's way.
        let rest = async { while self.jobs.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(limits::RUNTIME_VERB_TIMEOUT, rest).await;
        self.jobs.abort_all();
        let bury = jobs::bury(self.context.clone(), self.name.clone());
        let _ = self.drain.run_until_cancelled(bury).await;
    }

    /// The runtime must answer before anything is decided: what runs must not be started twice. The inbox is read on
    /// meanwhile, so that nobody who tells this worker something waits for the runtime.
    async fn find(&mut self) -> Option<(adopt::Found, Vec<Command>)> {
        let (mut failures, mut missed) = (0, Vec::new());
        let (context, uid) = (self.context.clone(), self.name.uid.clone());
        loop {
            let wait = if failures == 0 { Duration::ZERO } else { retry_delay(failures) };
            let looking = async {
                tokio::time::sleep(wait).await;
                jobs::find(&context, &uid).await
            };
            tokio::pin!(looking);
            let found = loop {
                tokio::select! { biased;
                    () = self.drain.cancelled() => return None,
                    found = &mut looking => break found,
                    command = self.inbox.recv() => match command? {
                        Command::Seen(_) => {}
                        command @ Command::Spec(..) => {
                            missed.retain(|missed| !matches!(missed, Command::Spec(..)));
                            missed.push(command);
                        }
                        command @ (Command::Removed | Command::Evict(_)) => missed.push(command),
                    },
                }
            };
            match found {
                Ok(found) => return Some((found, missed)),
                Err(error) => tracing::warn!(%error, "what runs of the pod is not known yet"),
            }
            failures += 1;
        }
    }

    /// One event. False when the agent drains or has forgotten this worker.
    async fn turn(&mut self) -> bool {
        let wait = self.wait();
        tokio::select! { biased;
            () = self.drain.cancelled() => return false,
            Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => self.on_done(done),
            Some(done) = self.record.written() => if let Some(what) = self.record.on_written(done) {
                self.step(what);
            },
            Some(news) = self.news.1.recv() => self.step(news),
            command = self.inbox.recv() => match command {
                Some(command) => self.on_command(command),
                None => return false,
            },
            () = self.poke.notified() => self.refresh(),
            () = tokio::time::sleep(wait) => self.on_time(),
        }
        self.after_step();
        true
    }

    fn wait(&self) -> Duration {
        let now = self.context.ports.clock.now();
        let refresh = self.volumes.refresh_at.filter(|_| !self.refreshing && self.is_live());
        let next = self.state.wake_at().into_iter().chain(refresh).chain(self.record.wake_at()).min();
        let wait = next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO));
        wait.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }

    fn is_live(&self) -> bool {
        matches!(self.state, Pod::Active(..) | Pod::Sandboxing(_) | Pod::Stopping(..))
    }

    fn on_time(&mut self) {
        let now = self.context.ports.clock.now();
        if self.volumes.refresh_at.is_some_and(|at| at <= now) {
            self.refresh();
        }
        self.record.on_time(now);
        self.step(What::Tick);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Spec(pod, pending) => {
                self.record.note(&pod);
                self.follow(&pod);
                let downward = self.state.life().is_some_and(|life| life.pod.metadata != pod.metadata);
                self.step(What::Spec(pod, pending));
                if downward && self.is_live() {
                    self.refresh();
                }
            }
            Command::Removed => self.step(What::Removed),
            Command::Seen(seen) => self.on_seen(&seen),
            Command::Evict(outcome) => self.step(What::Evict(outcome)),
        }
    }

    fn on_seen(&mut self, seen: &Seen) {
        let Some(life) = self.state.life() else { return };
        let runs = life.slots.iter().filter_map(|slot| Some((slot.name.clone(), slot.run()?.id.clone())));
        let doubtful: Vec<(String, String)> = runs.filter(|(_, id)| !seen.running.contains(id)).collect();
        let sandbox = match &self.state {
            Pod::Active(_, sandbox) if !seen.ready_sandboxes.contains(&sandbox.id) => Some(sandbox.id.clone()),
            _ => None,
        };
        if self.examining || (doubtful.is_empty() && sandbox.is_none()) {
            return;
        }
        self.examining = true;
        self.jobs.spawn(jobs::examine(self.context.clone(), doubtful, sandbox));
    }

    fn on_done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::News(news)) => news.into_iter().for_each(|what| self.step(what)),
            Ok(Done::Prepared { volumes, sandbox }) => {
                self.volumes = volumes;
                self.sandbox_config = Some(*sandbox);
                self.step(What::Prepared);
            }
            Ok(Done::Refreshed(outcome)) => {
                self.refreshing = false;
                match outcome {
                    Ok(volumes) => {
                        self.refresh_failed = false;
                        self.volumes = volumes;
                    }
                    Err(message) => {
                        // Once is nothing: what it reads may be deleted before it, together with the namespace.
                        let life = self.state.life();
                        let stops = life.is_none_or(|life| life.pod.metadata.deletion_timestamp.is_some());
                        if std::mem::replace(&mut self.refresh_failed, true) && !stops {
                            tracing::warn!(message, "volumes were not brought up to date");
                        } else {
                            tracing::debug!(message, "volumes were not brought up to date yet");
                        }
                        let soon = jiff::SignedDuration::from_secs(10);
                        self.volumes.refresh_at = Some(self.context.ports.clock.now() + soon);
                    }
                }
            }
            Ok(Done::Examined(news)) => {
                self.examining = false;
                news.into_iter().for_each(|what| self.step(what));
            }
            Ok(Done::Collected | Done::Buried) => {}
            Err(error) if error.is_panic() => tracing::error!(%error, "a job of this pod panicked"),
            Err(_) => {}
        }
    }

    fn step(&mut self, what: What) {
        if let What::Started { name, attempt, .. } = &what {
            let (context, pod) = (self.context.clone(), self.name.clone());
            self.jobs.spawn(jobs::prune(context, pod, name.clone(), *attempt));
        }
        if let What::Started { name, .. } | What::StartFailed { name, .. } = &what {
            self.starts.remove(name);
        }
        let mut out = Vec::new();
        let state = std::mem::replace(&mut self.state, Pod::Gone);
        tracing::trace!(?what, "step");
        self.state = state.step(PodEvent { at: self.context.ports.clock.now(), what }, &mut out);
        self.perform_all(out);
    }

    // === effects ===

    fn perform_all(&mut self, effects: Vec<PodEffect>) {
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: PodEffect) {
        let Some(life) = self.state.life() else { return };
        let (context, pod, ips) = (self.context.clone(), life.pod.clone(), life.ips.clone());
        match effect {
            PodEffect::Prepare => {
                let job = jobs::prepare(context, pod, ips);
                let cancel = self.building.clone();
                self.jobs.spawn(async move { cancel.run_until_cancelled(job).await.unwrap_or(Done::News(Vec::new())) });
            }
            PodEffect::RunSandbox { attempt } => {
                let config = self.sandbox_config.clone().expect("volumes are prepared before a sandbox is made");
                let job = jobs::run_sandbox(context, SandboxConfig { attempt, ..config });
                let cancel = self.building.clone();
                self.jobs.spawn(async move { cancel.run_until_cancelled(job).await.unwrap_or(Done::News(Vec::new())) });
            }
            PodEffect::Start { name, attempt } => self.start(name, attempt),
            PodEffect::CancelStart { name } => match self.starts.get(&name) {
                Some(cancel) => cancel.cancel(),
                // Nothing is under way after all.
                None => {
                    let _ = self.news.0.try_send(cancelled(name, 0));
                }
            },
            PodEffect::Stop { name, id, grace_seconds, pre_stop } => {
                let pod_ip = context.pod_ips(&pod, &ips).first().cloned().unwrap_or_default();
                let stopping = Stopping { name, id, grace_seconds, pre_stop, pod_ip };
                self.jobs.spawn(jobs::stop(context, pod, stopping));
            }
            PodEffect::Resize { name, id, resources } => {
                self.jobs.spawn(jobs::resize(context, pod, name, id, resources));
            }
            PodEffect::StopSandbox { id } => {
                self.jobs.spawn(jobs::stop_sandbox(context, id));
            }
            PodEffect::Clear => {
                self.building.cancel();
                self.probers.clear();
                self.jobs.spawn(jobs::clear(context, self.name.uid.clone()));
            }
            PodEffect::DeleteRecord => self.record.delete(),
            PodEffect::Event { warning, reason, message, container } => {
                context.event(&pod, container.as_deref(), warning, &reason, &message);
            }
        }
    }

    fn start(&mut self, name: String, attempt: u32) {
        let (Some(life), Some(sandbox), Some(config)) =
            (self.state.life(), self.state.sandbox(), self.sandbox_config.clone())
        else {
            return;
        };
        let running = life.slots.iter().filter_map(|slot| Some((slot.name.clone(), slot.run()?.id.clone())));
        let start = Start {
            context: self.context.clone(),
            pod: life.pod.clone(),
            name: name.clone(),
            attempt,
            sandbox: sandbox.id.clone(),
            sandbox_config: config,
            ips: sandbox.ips.clone(),
            volumes: self.volumes.clone(),
            running: running.collect(),
        };
        let cancel = CancellationToken::new();
        self.starts.insert(name.clone(), cancel.clone());
        let news = self.news.0.clone();
        self.jobs.spawn(async move {
            let progress = |reason: &str, message: &str| {
                let (reason, message) = (reason.to_owned(), message.to_owned());
                let _ = news.try_send(What::Progress { name: name.clone(), reason, message });
            };
            let what = match cancel.run_until_cancelled(start.run(progress)).await {
                None => cancelled(name.clone(), attempt),
                Some(Ok(run)) => What::Started { name: name.clone(), attempt, run },
                Some(Err(failed)) => {
                    let (created, failure) = (failed.created, failed.failure);
                    What::StartFailed { name: name.clone(), attempt, created, failure }
                }
            };
            Done::News(vec![what])
        });
    }

    fn refresh(&mut self) {
        if let (false, true, Some(life)) = (self.refreshing, self.is_live(), self.state.life()) {
            self.refreshing = true;
            self.jobs.spawn(jobs::refresh(self.context.clone(), life.pod.clone(), life.ips.clone()));
        }
    }

    /// Watches the objects that this pod's volumes show.
    fn follow(&self, pod: &core::Pod) {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let sources: Vec<_> = volumes.into_iter().flatten().flat_map(payload::references).collect();
        if !sources.is_empty() && !fsm::phase_is_final(pod) {
            self.context.objects.follow(&self.name.uid, &self.name.namespace, &sources, &self.poke);
        }
    }

    // === after every step ===

    fn after_step(&mut self) {
        self.probe();
        let status = self.derive();
        self.publish(&status);
        self.report(&status);
    }

    fn derive(&self) -> Tree {
        let Some(life) = self.state.life() else { return Tree::Null };
        status::derive_from(
            &self.state,
            life,
            self.record.status(),
            &self.context.host(),
            self.context.ports.clock.now(),
        )
    }

    /// One prober per container that runs; none for one that is stopping.
    fn probe(&mut self) {
        let Some(life) = self.state.life() else { return };
        let live = |name: &str, id: &str| {
            life.slots
                .iter()
                .any(|slot| slot.name == name && matches!(&slot.state, SlotState::Running(run) if run.id == id))
        };
        self.probers.retain(|name, prober| live(name, prober.id()));
        for slot in &life.slots {
            let SlotState::Running(run) = &slot.state else { continue };
            if self.probers.contains_key(&slot.name) {
                continue;
            }
            let Some(container) = super::order::container(&life.pod, &slot.name) else { continue };
            let ip = self.context.pod_ips(&life.pod, &life.ips).first().cloned().unwrap_or_default();
            let prober = Prober::start(&self.context, &life.pod, container, run, &ip, self.news.0.clone());
            self.probers.insert(slot.name.clone(), prober);
        }
    }

    fn publish(&self, status: &Tree) {
        if let Some(view) = PodView::of(&self.state, status) {
            self.view.send_replace(Arc::new(view));
        }
    }

    fn report(&mut self, status: &Tree) {
        let Some(life) = self.state.life() else { return };
        if life.removed {
            return;
        }
        let settled = self.record.report(status);
        if settled && matches!(self.state, Pod::Over(_)) && !self.collected {
            self.collected = true;
            self.jobs.spawn(jobs::collect(self.context.clone(), self.name.uid.clone()));
        }
    }
}

fn cancelled(name: String, attempt: u32) -> What {
    let failure =
        StartFailure { reason: "ContainerCreating".into(), message: String::new(), retry_at: None, exit: None };
    What::StartFailed { name, attempt, created: false, failure }
}
