//! The agent: registers the node, keeps one worker per pod, lists the runtime, serves the kubelet API.
//!
//! Containers outlive it: draining stops the tasks and leaves every pod as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use api::{Gvr, Key, Object};
use base::{Chain, SmolStr};
use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use view::{Client, View, Watched};

use crate::admission;
use crate::cgroup::Cgroups;
use crate::config::{Config, Ports};
use crate::context::Context;
use crate::counts::Counts;
use crate::events::Recorder;
use crate::images::Images;
use crate::limits;
use crate::logs;
use crate::machine;
use crate::objects::Objects;
use crate::pod::Outcome;
use crate::pod::fsm::phase_is_final;
use crate::pod::resize;
use crate::pod::worker::{Command, PodView, Seen, Worker};
use crate::pressure::monitor::Monitor;
use crate::reclaim::Reclaimer;
use crate::register::{Registrar, nodes};
use crate::runtime::{ContainerState, Runtime, RuntimeError, RuntimeEventKind, labels};
use crate::server::Server;
use crate::volumes::{VolumesContext, tokens::Tokens};

/// How often runtime leftovers of pods that nobody knows are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

pub struct Agent {
    config: Config,
    client: Client,
    runtime: Arc<dyn Runtime>,
    ports: Ports,
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("create {}", .path.display())]
    Folder {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The workers by pod uid; others look at pods only through it.
#[derive(Clone, Default)]
pub struct Pods {
    workers: Arc<RwLock<BTreeMap<SmolStr, Handle>>>,
}

#[derive(Clone)]
struct Handle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<PodView>>,
}

impl Pods {
    pub fn all(&self) -> Vec<Arc<PodView>> {
        let workers = self.workers.read().expect("no holder of this lock panics");
        workers.values().map(|handle| handle.view.borrow().clone()).collect()
    }

    /// By name; of two with one name (an old one is stopping) the newer record.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodView>> {
        let named = self.all().into_iter().filter(|view| {
            let meta = &view.pod.metadata;
            meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
        });
        named.max_by_key(|view| view.pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
    }

    /// Follows one pod's view.
    pub fn watch(&self, uid: &str) -> Option<watch::Receiver<Arc<PodView>>> {
        self.workers.read().expect("no holder of this lock panics").get(uid).map(|handle| handle.view.clone())
    }

    /// Makes a pod leave; false where it is busy or gone.
    pub fn evict(&self, uid: &str, outcome: Outcome) -> bool {
        self.get(uid).is_some_and(|handle| handle.commands.try_send(Command::Evict(outcome)).is_ok())
    }

    fn get(&self, uid: &str) -> Option<Handle> {
        self.workers.read().expect("no holder of this lock panics").get(uid).cloned()
    }
}

impl Agent {
    pub fn new(config: Config, client: Client, runtime: Arc<dyn Runtime>, ports: Ports) -> Agent {
        Agent { config, client, runtime, ports }
    }

    /// Runs until drained. Pods keep running.
    pub async fn run(self, drain: CancellationToken) -> Result<(), AgentError> {
        let listen = self.config.listen;
        let listener = tokio::net::TcpListener::bind(listen).await;
        let listener = listener.map_err(|source| AgentError::Listen { address: listen, source })?;
        let context = self.build(&drain)?;
        let pods = Pods::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(Registrar::new(context.clone()).run(drain.clone()));
        let server = Server::new(context.clone(), pods.clone());
        tasks.spawn(server.serve(listener, drain.clone()));
        let look = Arc::new(Notify::new());
        let lister = Lister { context: context.clone(), pods: pods.clone(), look: look.clone() };
        tasks.spawn(lister.run(drain.clone()));
        tasks.spawn(Monitor::new(context.clone(), pods.clone()).run(drain.clone()));
        tasks.spawn(rotate_logs(context.clone(), pods.clone(), drain.clone()));
        if let Some(reclaimer) = Reclaimer::new(&context) {
            tasks.spawn(reclaimer.run(drain.clone()));
        }
        let (workers, rejected, deferred) = (JoinSet::new(), BTreeSet::new(), BTreeMap::new());
        let dispatcher = Dispatcher { context, pods, look, workers, rejected, deferred, drain: drain.clone() };
        tasks.spawn(dispatcher.run());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the agent panicked");
                drain.cancel();
            }
        }
        Ok(())
    }

    fn build(self, drain: &CancellationToken) -> Result<Arc<Context>, AgentError> {
        let Agent { config, client, runtime, ports } = self;
        let pods_root = config.data_dir.join("kubelet/pods");
        for path in [&pods_root, &config.log_dir, &config.seccomp_dir] {
            let failed = |source| AgentError::Folder { path: path.clone(), source };
            std::fs::create_dir_all(path).map_err(failed)?;
        }
        let objects = Arc::new(Objects::new(client.clone(), drain.clone()));
        let volumes = VolumesContext {
            client: client.clone(),
            objects: objects.clone(),
            tokens: Tokens::default(),
            clock: ports.clock.clone(),
            pods_root,
            local_path: config.local_path.clone(),
        };
        let events = Recorder::start(client.clone(), ports.clock.clone(), ports.rng.clone(), &config.node_name);
        let watched = vec![
            Watched::all(Gvr::new("", "v1", "services"), &[]),
            Watched::all(nodes(), &[]).with_fields(&format!("metadata.name={}", config.node_name)),
            Watched::all(Gvr::new("", "v1", "pods"), &[]).with_fields(&format!("spec.nodeName={}", config.node_name)),
        ];
        Ok(Arc::new(Context {
            view: View::start(&client, watched, drain),
            machine: machine::machine(&config),
            images: Images::new(runtime.clone(), ports.clock.clone()),
            cgroups: Cgroups::detect(&config.cgroup_root),
            runtime_name: RwLock::new("containerd".to_owned()),
            handlers: RwLock::default(),
            counts: Counts::default(),
            pressure: watch::Sender::default(),
            config,
            ports,
            client,
            runtime,
            objects,
            volumes,
            events,
        }))
    }
}

// === from the API to the workers ===

struct Dispatcher {
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
    async fn run(mut self) {
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
            let held = handle.view.borrow().pod.clone();
            self.tell_spec(&uid, pod, &held).await;
            return;
        }
        let (commands, inbox) = mpsc::channel(limits::WORKER_QUEUE_MAX);
        let rejection = self.judge(&pod).await;
        if rejection.is_some() {
            self.rejected.insert(uid.clone());
        }
        let held = Arc::new(resize::adopted(&pod));
        let (worker, view) = Worker::new(self.context.clone(), &held, rejection, inbox, self.drain.clone());
        let handle = Handle { commands, view };
        self.pods.workers.write().expect("no holder of this lock panics").insert(uid.clone(), handle);
        let (named, first) = (uid.clone(), held.clone());
        self.workers.spawn(async move {
            worker.run(first).await;
            named
        });
        self.look.notify_one();
        if resize::is_wanted(&pod, &held) {
            self.tell_spec(&uid, pod, &held).await;
        }
    }

    /// Passes a record on with the resources that are promised: what it asks for, where that fits.
    async fn tell_spec(&mut self, uid: &SmolStr, record: Arc<core::Pod>, held: &core::Pod) {
        self.deferred.remove(uid);
        if !resize::is_wanted(&record, held) {
            self.tell(uid, Command::Spec(record, None)).await;
            return;
        }
        let room = self.context.room(self.context.node().as_deref(), self.others(&record));
        match resize::judge(&record, &room) {
            None => self.tell(uid, Command::Spec(record, None)).await,
            Some(pending) => {
                let promised = Arc::new(resize::overlay(&record, held));
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
                    let held = handle.view.borrow().pod.clone();
                    self.tell_spec(&uid, record, &held).await;
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
                self.pods.workers.write().expect("no holder of this lock panics").remove(&uid);
            }
            Err(error) => tracing::error!(%error, "a pod's worker panicked"),
        }
    }
}

// === from the runtime to the workers ===

struct Lister {
    context: Arc<Context>,
    pods: Pods,
    look: Arc<Notify>,
}

impl Lister {
    async fn run(self, drain: CancellationToken) {
        let mut swept = tokio::time::Instant::now();
        while !drain.is_cancelled() {
            let (events, every) = match self.context.runtime.events().await {
                Ok(events) => (events, limits::RELIST_WITH_EVENTS_EVERY),
                Err(_) => (futures::stream::pending().boxed(), limits::RELIST_EVERY),
            };
            let mut events = events.fuse();
            loop {
                if let Err(error) = self.look().await {
                    tracing::debug!(%error, "runtime was not listed");
                }
                if SWEEP_EVERY <= swept.elapsed() {
                    swept = tokio::time::Instant::now();
                    if let Err(error) = self.sweep().await {
                        tracing::debug!(%error, "leftovers were not swept");
                    }
                }
                tokio::select! {
                    () = drain.cancelled() => return,
                    event = events.next() => match event {
                        None => break,
                        Some(event) if matches!(event.kind, RuntimeEventKind::Created | RuntimeEventKind::Started) => {}
                        Some(_) => {}
                    },
                    () = self.look.notified() => {}
                    () = tokio::time::sleep(every) => {}
                }
            }
            // The stream ended: the runtime restarted.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn look(&self) -> Result<(), RuntimeError> {
        let everything = BTreeMap::new();
        let sandboxes = self.context.runtime.list_sandboxes(&everything).await?;
        let containers = self.context.runtime.list_containers(&everything).await?;
        let running = containers.into_iter().filter(|container| container.state == ContainerState::Running);
        let seen = Arc::new(Seen {
            ready_sandboxes: sandboxes.into_iter().filter(|sandbox| sandbox.ready).map(|sandbox| sandbox.id).collect(),
            running: running.map(|container| container.id).collect(),
        });
        let handles: Vec<Handle> =
            self.pods.workers.read().expect("no holder of this lock panics").values().cloned().collect();
        for handle in handles {
            // A worker that is busy sees the next listing.
            let _ = handle.commands.try_send(Command::Seen(seen.clone()));
        }
        Ok(())
    }

    /// Sandboxes, folders and cgroups of pods that the API does not know, or that are over, go.
    async fn sweep(&self) -> Result<(), RuntimeError> {
        let gvr = Gvr::new("", "v1", "pods");
        let stream = self.context.view.snapshot().stream(&gvr);
        if !stream.synced {
            return Ok(());
        }
        let known: std::collections::BTreeSet<SmolStr> =
            stream.iter().map(|object| object.header.uid.clone()).collect();
        let busy = |uid: &str| self.pods.get(uid).is_some_and(|handle| !handle.view.borrow().over);
        let stays = |uid: &str| busy(uid) || (known.contains(uid) && self.pods.get(uid).is_none());
        for sandbox in self.context.runtime.list_sandboxes(&BTreeMap::new()).await? {
            let Some(uid) = sandbox.labels.get(labels::POD_UID).filter(|uid| !stays(uid)) else { continue };
            tracing::info!(sandbox = %sandbox.id, uid, "removing a sandbox that belongs to no pod");
            self.context.runtime.stop_sandbox(&sandbox.id).await?;
            self.context.runtime.remove_sandbox(&sandbox.id).await?;
        }
        let root = &self.context.volumes.pods_root;
        let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
        let mut uids: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        uids.extend(self.context.cgroups.pods());
        for uid in uids.into_iter().filter(|uid| !stays(uid)) {
            if let Err(error) = self.context.volumes.tear_down(&uid).await {
                tracing::warn!(uid, error = %Chain(&error), "leftover volumes stay");
            }
            let _ = self.context.cgroups.remove(&uid);
        }
        Ok(())
    }
}

async fn rotate_logs(context: Arc<Context>, pods: Pods, drain: CancellationToken) {
    loop {
        let sleep = tokio::time::sleep(limits::LOG_ROTATE_EVERY);
        if drain.run_until_cancelled(sleep).await.is_none() {
            return;
        }
        for view in pods.all() {
            let folder = context.log_directory(&crate::spec::names::PodName::of(&view.pod));
            for (name, container) in view.containers.iter().filter(|(_, container)| !container.id.is_empty()) {
                let path = folder.join(name).join(format!("{}.log", container.attempt));
                if !logs::rotate::is_due(&path) {
                    continue;
                }
                let now = context.ports.clock.now();
                if let Err(error) = logs::rotate::rotate(&*context.runtime, &container.id, &path, now).await {
                    tracing::warn!(path = %path.display(), %error, "log was not rotated");
                }
            }
        }
    }
}
