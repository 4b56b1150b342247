//! The cgroups above the containers: `ROOT/[burstable|besteffort]/podUID`, made and removed by the node.
//!
//! Works on v1 (a hierarchy per controller) and v2 (one). What a machine refuses is noted and left: a pod without a
//! limit of its own runs, its containers still have theirs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;

use crate::spec::qos::{self, Qos};
use crate::spec::resources::{self, CPU_PERIOD_US};

#[derive(Clone, Debug)]
pub struct Cgroups {
    mounts: Hierarchies,
    /// Every hierarchy of the machine: the runtime makes folders in more of them than the node does.
    all: Vec<PathBuf>,
    /// `/kubepods`.
    root: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchies {
    V1(Vec<(String, PathBuf)>),
    V2(PathBuf),
}

/// v1 controllers the node makes folders in.
const V1_CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "memory", "pids", "cpuset", "blkio", "devices", "freezer", "hugetlb"];
const V2_CONTROLLERS: &str = "+cpu +memory +pids +cpuset +io +hugetlb";

impl Cgroups {
    pub fn detect(root: &str) -> Cgroups {
        Cgroups::at(Path::new("/sys/fs/cgroup"), root)
    }

    fn at(base: &Path, root: &str) -> Cgroups {
        let mounts = if base.join("cgroup.controllers").exists() {
            Hierarchies::V2(base.to_path_buf())
        } else {
            let found = V1_CONTROLLERS.iter().map(|name| ((*name).to_owned(), base.join(name)));
            let mut found: Vec<_> = found.filter(|(_, path)| path.is_dir()).collect();
            // cpu and cpuacct are often one mount under two names.
            found.dedup_by(|a, b| fs::canonicalize(&a.1).ok() == fs::canonicalize(&b.1).ok());
            Hierarchies::V1(found)
        };
        let all = match &mounts {
            Hierarchies::V2(mount) => vec![mount.clone()],
            Hierarchies::V1(_) => {
                let entries = fs::read_dir(base).into_iter().flatten().flatten();
                entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
            }
        };
        Cgroups { mounts, all, root: root.trim_end_matches('/').to_owned() }
    }

    /// The parent of a pod's containers, as the runtime is told.
    pub fn pod_parent(&self, pod: &core::Pod) -> String {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.pod_path(qos::class(pod), uid)
    }

    fn pod_path(&self, qos: Qos, uid: &str) -> String {
        match qos {
            Qos::Guaranteed => format!("{}/pod{uid}", self.root),
            Qos::Burstable => format!("{}/burstable/pod{uid}", self.root),
            Qos::BestEffort => format!("{}/besteffort/pod{uid}", self.root),
        }
    }

    /// Makes the pod's cgroup and sets what the pod as a whole may use.
    pub fn create(&self, pod: &core::Pod) -> io::Result<()> {
        let path = self.pod_parent(pod);
        match &self.mounts {
            Hierarchies::V1(mounts) => {
                for (controller, mount) in mounts {
                    let folder = below(mount, &path);
                    fs::create_dir_all(&folder)?;
                    if controller == "cpuset" {
                        inherit_cpuset(mount, &path);
                    }
                }
            }
            Hierarchies::V2(mount) => {
                fs::create_dir_all(below(mount, &path))?;
                let mut at = mount.clone();
                set(&at.join("cgroup.subtree_control"), V2_CONTROLLERS);
                for part in path.trim_start_matches('/').split('/') {
                    at = at.join(part);
                    enable_v2(&at);
                }
            }
        }
        self.fit(pod);
        Ok(())
    }

    /// Sets what the pod as a whole may use.
    pub fn fit(&self, pod: &core::Pod) {
        if let Some(spec) = &pod.spec {
            let (cpu, quota, memory) = whole(spec);
            self.limit(&self.pod_parent(pod), resources::shares(cpu), quota, memory);
        }
    }

    /// Room for containers that are about to get more: the larger of what is and what is to be.
    pub fn grow(&self, pod: &core::Pod) {
        let Some(spec) = &pod.spec else { return };
        let path = self.pod_parent(pod);
        let (cpu, quota, memory) = whole(spec);
        let number = |file: &str| {
            let mount = self.controller(file.split('.').next().unwrap_or_default())?;
            let text = fs::read_to_string(below(mount, &path).join(file)).ok()?;
            text.split_whitespace().next()?.parse::<i64>().ok()
        };
        let (quota_file, memory_file) = match &self.mounts {
            Hierarchies::V1(_) => ("cpu.cfs_quota_us", "memory.limit_in_bytes"),
            Hierarchies::V2(_) => ("cpu.max", "memory.max"),
        };
        // No number means no limit, which is room enough.
        let larger = |file: &str, wanted: i64| number(file).filter(|have| 0 < *have).map(|have| have.max(wanted));
        let quota = quota.and_then(|quota| larger(quota_file, quota));
        let memory = memory.and_then(|memory| larger(memory_file, memory));
        self.limit(&path, resources::shares(cpu), quota, memory);
    }

    fn controller(&self, name: &str) -> Option<&PathBuf> {
        match &self.mounts {
            Hierarchies::V1(mounts) => mounts.iter().find(|(have, _)| have == name).map(|(_, mount)| mount),
            Hierarchies::V2(mount) => Some(mount),
        }
    }

    fn limit(&self, path: &str, shares: i64, quota: Option<i64>, memory: Option<i64>) {
        match &self.mounts {
            Hierarchies::V1(mounts) => {
                for (controller, mount) in mounts {
                    let at = below(mount, path);
                    match controller.as_str() {
                        "cpu" => {
                            set(&at.join("cpu.shares"), &shares.to_string());
                            if let Some(quota) = quota {
                                set(&at.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string());
                                set(&at.join("cpu.cfs_quota_us"), &quota.to_string());
                            }
                        }
                        "memory" => {
                            set(&at.join("memory.use_hierarchy"), "1");
                            if let Some(memory) = memory {
                                set(&at.join("memory.limit_in_bytes"), &memory.to_string());
                            }
                        }
                        _ => {}
                    }
                }
            }
            Hierarchies::V2(mount) => {
                let at = below(mount, path);
                let weight = 1 + (shares - 2) * 9999 / 262_142;
                set(&at.join("cpu.weight"), &weight.to_string());
                if let Some(quota) = quota {
                    set(&at.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"));
                }
                if let Some(memory) = memory {
                    set(&at.join("memory.max"), &memory.to_string());
                }
            }
        }
    }

    /// Processes and threads of a pod; 0 where the machine does not count them.
    pub fn processes(&self, uid: &str) -> i64 {
        let mount = self.controller("pids");
        let paths = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort].map(|qos| self.pod_path(qos, uid));
        let counts = paths.iter().filter_map(|path| fs::read_to_string(below(mount?, path).join("pids.current")).ok());
        counts.filter_map(|text| text.trim().parse::<i64>().ok()).sum()
    }

    /// Removes what is left of a pod's cgroups, whatever its class was. Folders that still hold processes stay.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let path = self.pod_path(qos, uid);
            for mount in &self.all {
                remove_tree(&below(mount, &path))?;
            }
        }
        Ok(())
    }

    /// Removes the root of all pods in every hierarchy, when no pod runs any more. Folders that hold processes stay.
    pub fn remove_root(&self) -> io::Result<()> {
        if self.root.is_empty() {
            return Ok(());
        }
        let removed = self.all.iter().map(|mount| remove_tree(&below(mount, &self.root)));
        removed.fold(Ok(()), io::Result::and)
    }

    /// Pods that have a cgroup: used to find what an earlier process left behind.
    pub fn pods(&self) -> Vec<String> {
        let mount = match &self.mounts {
            Hierarchies::V1(mounts) => mounts.first().map(|(_, mount)| mount.clone()),
            Hierarchies::V2(mount) => Some(mount.clone()),
        };
        let Some(mount) = mount else { return Vec::new() };
        let parents = ["", "/burstable", "/besteffort"].map(|sub| below(&mount, &format!("{}{sub}", self.root)));
        let entries = parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter_map(|name| name.strip_prefix("pod").map(str::to_owned)).collect()
    }
}

/// Milli cores asked for, quota and bytes of memory of a whole pod.
fn whole(spec: &core::PodSpec) -> (i64, Option<i64>, Option<i64>) {
    let (cpu, cpu_limit, memory_limit) = resources::of_pod(spec);
    let quota = cpu_limit.filter(|limit| *limit != 0).map(resources::quota);
    (cpu, quota, memory_limit.filter(|limit| *limit != 0))
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// A new cpuset is empty, and nothing may run in an empty one.
fn inherit_cpuset(mount: &Path, path: &str) {
    let mut at = mount.to_path_buf();
    for part in path.trim_start_matches('/').split('/') {
        let parent = at.clone();
        at = at.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(at.join(file)).unwrap_or_default();
            if own.trim().is_empty()
                && let Ok(value) = fs::read_to_string(parent.join(file))
            {
                set(&at.join(file), value.trim());
            }
        }
    }
}

fn enable_v2(at: &Path) {
    for controller in V2_CONTROLLERS.split(' ') {
        // One that the parent lacks must not stop the others.
        let _ = fs::write(at.join("cgroup.subtree_control"), controller);
    }
}

fn set(file: &Path, value: &str) {
    if let Err(error) = fs::write(file, value) {
        tracing::debug!(file = %file.display(), value, %error, "cgroup value was refused");
    }
}

/// cgroup folders are removed with rmdir, children first; their files go with them.
fn remove_tree(path: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str, memory: &str) -> core::Pod {
        let limits = json!({"cpu": cpu, "memory": memory});
        let spec = json!({"containers": [{"name": "a", "resources": {"limits": limits, "requests": {"cpu": "1m"}}}]});
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
    }

    /// What a pod's files hold after it was made, grew for a resize in two directions, and was fitted.
    fn check(cgroups: &Cgroups, files: [PathBuf; 2], wanted: [[&str; 2]; 3]) {
        let held = || files.clone().map(|file| fs::read_to_string(file).unwrap());
        cgroups.create(&pod("1", "2Gi")).unwrap();
        assert_eq!(held(), wanted[0]);
        let resized = pod("2", "1Gi");
        cgroups.grow(&resized);
        assert_eq!(held(), wanted[1], "nothing shrinks before its containers do");
        cgroups.fit(&resized);
        assert_eq!(held(), wanted[2]);
    }

    #[test]
    fn a_pod_grows_before_and_shrinks_after_its_containers_v1() {
        let base = tempfile::tempdir().unwrap();
        for name in ["cpu", "memory"] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        let cgroups = Cgroups::at(base.path(), "/kubepods");
        let file = |name: &str, file: &str| base.path().join(name).join("kubepods/burstable/podu").join(file);
        let files = [file("cpu", "cpu.cfs_quota_us"), file("memory", "memory.limit_in_bytes")];
        let (large, small) = ("2147483648", "1073741824");
        check(&cgroups, files, [["100000", large], ["200000", large], ["200000", small]]);
    }

    #[test]
    fn a_pod_grows_before_and_shrinks_after_its_containers_v2() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let cgroups = Cgroups::at(base.path(), "/kubepods");
        let folder = base.path().join("kubepods/burstable/podu");
        let files = [folder.join("cpu.max"), folder.join("memory.max")];
        let (large, small) = ("2147483648", "1073741824");
        check(&cgroups, files, [["100000 100000", large], ["200000 100000", large], ["200000 100000", small]]);
    }
}
