//! What pods take of memory and disk: the runtime's statistics, their logs, their scratch volumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use crate::context::Context;
use crate::runtime::{ContainerStats, labels};
use crate::spec::names::PodName;

/// Bytes of a block in `st_blocks`, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// Room and inodes that files take on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Du {
    pub bytes: i64,
    pub inodes: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Working set.
    pub memory_bytes: i64,
    /// Writable layer.
    pub layer: Du,
    pub logs: Du,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    pub containers: BTreeMap<String, ContainerUsage>,
    /// Volumes of the node's own disk, by name.
    pub empty_dirs: BTreeMap<String, Du>,
    pub processes: i64,
    /// When logs and volumes were walked.
    pub walked: Option<Timestamp>,
}

/// What lies in a pod's folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// By container.
    logs: BTreeMap<String, Du>,
    empty_dirs: BTreeMap<String, Du>,
    walked: Option<Timestamp>,
}

impl Du {
    fn add(&mut self, other: Du) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

impl PodUsage {
    /// Layers, logs and scratch volumes.
    pub fn storage(&self) -> Du {
        let mut total = Du::default();
        self.containers.values().for_each(|one| {
            total.add(one.layer);
            total.add(one.logs);
        });
        self.empty_dirs.values().for_each(|one| total.add(*one));
        total
    }
}

/// What everything below a path takes, without leaving its file system. What vanishes meanwhile takes nothing.
pub fn du(path: &Path) -> Du {
    let mut total = Du::default();
    let Ok(top) = fs::symlink_metadata(path) else { return total };
    let mut open = vec![path.to_path_buf()];
    while let Some(at) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&at) else { continue };
        if meta.dev() != top.dev() {
            continue;
        }
        total.add(Du { bytes: i64::try_from(meta.blocks() * BLOCK_BYTES).unwrap_or(i64::MAX), inodes: 1 });
        if meta.is_dir() {
            open.extend(fs::read_dir(&at).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    total
}

/// Names and folders of a pod's `emptyDir` volumes that lie on disk.
fn scratch(context: &Context, pod: &core::Pod) -> Vec<(String, PathBuf)> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let on_disk = volumes.filter(|volume| {
        volume.empty_dir.as_ref().is_some_and(|empty| empty.medium.as_deref().unwrap_or_default().is_empty())
    });
    on_disk.map(|volume| (volume.name.clone(), context.volumes.empty_dir_path(uid, &volume.name))).collect()
}

/// Walks a pod's folders where nobody did within `span`.
async fn files(context: &Context, pod: &core::Pod, span: Duration) -> Files {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let (logs, scratch) = (context.log_directory(&PodName::of(pod)), scratch(context, pod));
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let names: Vec<String> = containers.map(|container| container.name.clone()).collect();
    let clock = context.ports.clock.clone();
    let walk = move || Files {
        walked: Some(clock.now()),
        logs: names.into_iter().map(|name| (name.clone(), du(&logs.join(name)))).collect(),
        empty_dirs: scratch.into_iter().map(|(name, path)| (name, du(&path))).collect(),
    };
    context.meter.folders.get(uid, span, walk).await
}

/// Measures pods; what their folders hold may be `span` old.
pub async fn measure(
    context: &Context,
    pods: &[Arc<core::Pod>],
    stats: &[ContainerStats],
    span: Duration,
) -> Vec<PodUsage> {
    let mut by_uid: BTreeMap<&str, Vec<&ContainerStats>> = BTreeMap::new();
    for one in stats {
        let uid = one.labels.get(labels::POD_UID).map(String::as_str).unwrap_or_default();
        by_uid.entry(uid).or_default().push(one);
    }
    let mut measured = Vec::new();
    for pod in pods {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let Files { logs, empty_dirs, walked } = files(context, pod, span).await;
        let processes = context.cgroups.processes(uid);
        let mut usage = PodUsage { containers: BTreeMap::new(), empty_dirs, processes, walked };
        for (name, logs) in logs {
            usage.containers.insert(name, ContainerUsage { logs, ..ContainerUsage::default() });
        }
        for one in by_uid.get(uid).into_iter().flatten() {
            let name = one.labels.get(labels::CONTAINER_NAME).unwrap_or(&one.name);
            let container = usage.containers.entry(name.clone()).or_default();
            container.memory_bytes += signed(one.memory_working_set_bytes);
            container.layer.add(Du { bytes: signed(one.layer_used_bytes), inodes: signed(one.layer_inodes_used) });
        }
        measured.push(usage);
    }
    measured
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_folders_and_links_are_counted_once_each() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let found = du(dir.path());
        assert_eq!(found.inodes, 4);
        assert!((100_000..1_000_000).contains(&found.bytes), "{found:?}");
        assert_eq!(du(&dir.path().join("none")), Du::default());
    }
}
