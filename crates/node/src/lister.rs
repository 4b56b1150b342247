//! From the runtime to the workers: what runs, told to all; and what belongs to nobody, removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::Gvr;
use base::{Chain, SmolStr};
use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::limits;
use crate::pod::worker::{Command, Seen};
use crate::pods::Pods;
use crate::runtime::{ContainerState, RuntimeError, RuntimeEventKind, labels};
use crate::spec::names::PodName;

/// How often runtime leftovers of pods that nobody knows are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

pub struct Lister {
    context: Arc<Context>,
    pods: Pods,
    look: Arc<Notify>,
}

impl Lister {
    pub fn new(context: Arc<Context>, pods: Pods, look: Arc<Notify>) -> Lister {
        Lister { context, pods, look }
    }

    pub async fn run(self, drain: CancellationToken) {
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
        for handle in self.pods.handles() {
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
        // Logs stay as long as somebody can ask for them.
        let has_record = |uid: &str| known.contains(uid) || self.pods.get(uid).is_some();
        let logs = std::fs::read_dir(&self.context.config.log_dir).into_iter().flatten().flatten();
        for folder in logs {
            let name = folder.file_name().to_string_lossy().into_owned();
            if PodName::uid_of_log_folder(&name).is_some_and(|uid| !has_record(uid))
                && let Err(error) = std::fs::remove_dir_all(folder.path())
            {
                tracing::warn!(folder = name, %error, "leftover logs stay");
            }
        }
        Ok(())
    }
}
