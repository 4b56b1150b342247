//! Moves a child out of the agent's cgroup, so that what limits or ends the agent does not touch it.
//!
//! Best effort: a machine where cgroups cannot be made still runs containers. Where the agent sits in a cgroup that was
//! delegated to it (a systemd unit), the new one lies below that; at the root it lies at the root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// v1 hierarchies whose membership decides about resources or about what is killed together.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "name=systemd"];

/// Moves `pid` and answers the folders it is in now.
pub fn settle(pid: u32, name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut moved = Vec::new();
    for folder in folders(&mounts, &own, name) {
        match enter(&folder, pid) {
            Ok(()) => moved.push(folder),
            Err(error) => tracing::debug!(folder = %folder.display(), err = %error, "a child stays in this cgroup"),
        }
    }
    moved
}

/// Removes folders that are empty again.
pub fn leave(folders: &[PathBuf]) {
    for folder in folders {
        let _ = fs::remove_dir(folder);
    }
}

fn enter(folder: &Path, pid: u32) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::write(folder.join("cgroup.procs"), pid.to_string()),
    }
}

/// Where a child belongs, per hierarchy. Several v1 controllers may share one mount, which then comes once.
fn folders(mounts: &str, own: &str, name: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let wanted = controllers.is_empty() || controllers.split(',').any(|one| CONTROLLERS.contains(&one));
        let Some(mount) = mount_of(mounts, controllers).filter(|_| wanted) else { continue };
        let own = path.trim_start_matches('/');
        // An agent that was itself started from this cgroup must not nest a second one.
        let parent = own.strip_suffix(name).map_or(own, |rest| rest.trim_end_matches('/'));
        let folder = mount.join(parent).join(name);
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The mount point of a hierarchy, by the controllers that `/proc/self/cgroup` names; none is v2.
fn mount_of(mounts: &str, controllers: &str) -> Option<PathBuf> {
    let found = mounts.lines().find(|line| {
        let Some((_, tail)) = line.split_once(" - ") else { return false };
        let mut tail = tail.split(' ');
        let (kind, options) = (tail.next().unwrap_or_default(), tail.nth(1).unwrap_or_default());
        let all = || controllers.split(',').all(|one| options.split(',').any(|option| option == one));
        if controllers.is_empty() { kind == "cgroup2" } else { kind == "cgroup" && all() }
    })?;
    found.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                          31 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                          32 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n";

    #[test]
    fn one_folder_per_hierarchy_below_our_own() {
        let own = "4:cpu,cpuacct:/\n3:memory:/unit\n2:blkio:/\n0::/unit/x-containerd\n";
        let paths: Vec<_> = folders(MOUNTS, own, "x-containerd").iter().map(|p| p.display().to_string()).collect();
        assert_eq!(
            paths,
            [
                "/sys/fs/cgroup/cpu,cpuacct/x-containerd",
                "/sys/fs/cgroup/memory/unit/x-containerd",
                "/sys/fs/cgroup/unified/unit/x-containerd"
            ]
        );
    }
}
