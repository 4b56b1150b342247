//! Looks at the machine every few seconds, tells the node's conditions, and makes pods leave, one at a time.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::decide::{Amount, Observations, Starved, crossed};
use super::rank::{Candidate, Disks};
use super::{Condition, Signal, local, rank, usage};
use crate::collect::Collector;
use crate::context::Context;
use crate::limits;
use crate::machine::{self, Disk};
use crate::pod::Outcome;
use crate::pods::Pods;

pub struct Monitor {
    context: Arc<Context>,
    pods: Pods,
    collector: Collector,
    /// When images were last looked at; None until the runtime answered.
    collected: Option<Instant>,
}

/// What a look at the machine gave.
struct Look {
    seen: Observations,
    disks: Disks,
    /// The file system of images; None where the runtime does not say.
    images: Option<Disk>,
}

impl Monitor {
    pub fn new(context: Arc<Context>, pods: Pods) -> Monitor {
        let collector = Collector::new(context.clone());
        Monitor { context, pods, collector, collected: None }
    }

    pub async fn run(mut self, drain: CancellationToken) {
        loop {
            if drain.run_until_cancelled(self.turn()).await.is_none() {
                return;
            }
            if drain.run_until_cancelled(tokio::time::sleep(limits::PRESSURE_LOOK_EVERY)).await.is_none() {
                return;
            }
        }
    }

    async fn turn(&mut self) {
        let look = self.look().await;
        let starved = self.judge(&look.seen);
        if self.collected.is_none_or(|at| limits::IMAGE_GC_EVERY <= at.elapsed()) {
            // The first look learns what lies there: all of it counts as fresh, and nothing could be freed.
            let disk = look.images.filter(|_| self.collected.is_some());
            if self.collector.keep_below(disk.as_ref()).await {
                self.collected = Some(Instant::now());
            }
        }
        if !self.enforce_limits().await
            && let Some(starved) = starved
        {
            self.relieve(&starved, look.disks).await;
        }
    }

    /// What has to be won back first; tells the conditions that follow.
    fn judge(&self, seen: &Observations) -> Option<Starved> {
        let (thresholds, now) = (&self.context.config.eviction_hard, self.context.ports.clock.now());
        self.context.change_pressure(|history| history.look(thresholds, seen, now))
    }

    async fn look(&self) -> Look {
        let load = machine::load(&self.context.config.data_dir);
        let node = load.disk;
        let mut seen = Observations::from([
            (Signal::MemoryAvailable, amount(load.memory_available_bytes, load.memory_total_bytes)),
            (Signal::PidAvailable, amount(left(load.pids_max, load.pids), signed(load.pids_max))),
        ]);
        let mut disk = |bytes: Signal, inodes: Signal, disk: &Disk| {
            seen.insert(bytes, amount(signed(disk.available_bytes), signed(disk.total_bytes)));
            // Some file systems make inodes as they need them and count none.
            if 0 < disk.inodes_total {
                seen.insert(inodes, amount(signed(disk.inodes_free), signed(disk.inodes_total)));
            }
        };
        if let Some(node) = &node {
            disk(Signal::NodeFsAvailable, Signal::NodeFsInodesFree, node);
        }
        let found = self.context.runtime.image_filesystem().await.ok();
        let mountpoint = found.map(|found| found.mountpoint).filter(|path| path != Path::new(""));
        let images = mountpoint.as_ref().and_then(|path| machine::disk(path));
        if let Some(images) = &images {
            disk(Signal::ImageFsAvailable, Signal::ImageFsInodesFree, images);
        }
        let disks = if same_device(&self.context.config.data_dir, mountpoint) { Disks::One } else { Disks::Two };
        Look { seen, disks, images }
    }

    // === limits that pods set themselves ===

    /// True when a pod had to go.
    async fn enforce_limits(&self) -> bool {
        let pods: Vec<Arc<core::Pod>> = self.leavable().into_iter().filter(|pod| local::has_limits(pod)).collect();
        if pods.is_empty() {
            return false;
        }
        let mut any = false;
        for candidate in self.measured(pods).await {
            if let Some(outcome) = local::judge(&candidate.pod, &candidate.usage) {
                any |= self.evict(&candidate.pod, outcome, local::SIGNAL);
            }
        }
        any
    }

    async fn measured(&self, pods: Vec<Arc<core::Pod>>) -> Vec<Candidate> {
        let stats = self.context.meter.stats().await.unwrap_or_default();
        let usages = usage::measure(&self.context, &pods, &stats, limits::FOLDERS_KEPT_FOR_EVICTION).await;
        pods.into_iter().zip(usages).map(|(pod, usage)| Candidate { pod, usage }).collect()
    }

    /// Pods that run and are not about to end anyway.
    fn leavable(&self) -> Vec<Arc<core::Pod>> {
        let views = self.pods.all().into_iter().filter(|view| !view.over && !view.ending);
        views.map(|view| view.pod.clone()).collect()
    }

    // === a shortage of the whole node ===

    async fn relieve(&mut self, starved: &Starved, disks: Disks) {
        let (node, resource) = (self.context.config.node_name.clone(), starved.signal.resource());
        let message = format!("Attempting to reclaim {resource}");
        self.context.events.node(&node, true, "EvictionThresholdMet", &message);
        tracing::warn!(signal = starved.signal.name(), starved.available, starved.least, "the node runs short");
        if starved.signal.condition() == Condition::Disk && self.free_disk(starved).await {
            return;
        }
        let candidates = self.measured(self.leavable()).await;
        for candidate in rank::order(candidates, starved.signal, disks) {
            let outcome = rank::outcome(&candidate, starved);
            if self.evict(&candidate.pod, outcome, starved.signal.name()) {
                self.until_gone(&candidate.pod).await;
                return;
            }
        }
        tracing::error!(signal = starved.signal.name(), "no pod is left that could make room");
    }

    /// What nobody misses goes before any pod. True when that was enough.
    async fn free_disk(&mut self, starved: &Starved) -> bool {
        self.collector.free_everything(&self.pods).await;
        let look = self.look().await;
        let still = crossed(&self.context.config.eviction_hard, &look.seen);
        still.iter().all(|other| other.signal != starved.signal)
    }

    fn evict(&self, pod: &core::Pod, outcome: Outcome, signal: &'static str) -> bool {
        let meta = &pod.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        tracing::warn!(namespace, name, message = outcome.message, "pod is evicted");
        let evicted = self.pods.evict(meta.uid.as_deref().unwrap_or_default(), outcome);
        if evicted {
            self.context.counts.evicted(signal);
        }
        evicted
    }

    /// One pod at a time: what it frees may be enough.
    async fn until_gone(&self, pod: &core::Pod) {
        let Some(mut view) = self.pods.watch(pod.metadata.uid.as_deref().unwrap_or_default()) else { return };
        let gone = view.wait_for(|view| view.over);
        let _ = tokio::time::timeout(limits::EVICTION_WAIT, gone).await;
    }
}

fn amount(available: i64, capacity: i64) -> Amount {
    Amount { available, capacity }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn left(all: u64, used: u64) -> i64 {
    signed(all.saturating_sub(used))
}

fn same_device(data: &Path, images: Option<PathBuf>) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    images.is_none_or(|images| device(data) == device(&images))
}
