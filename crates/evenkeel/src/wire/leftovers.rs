//! What containerd keeps outside its own folders, whatever it is told: results of plugin calls, and folders of sockets.
//! Removed when the last pod is gone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

/// Where its CNI library remembers calls: `NETWORK-SANDBOX-INTERFACE`. A pod that was killed with its machine stays there.
const RESULTS: &str = "/var/lib/cni/results";
const LOOPBACK: &str = "cni-loopback-";
/// Shared by every containerd of the machine, so only ever removed empty; children first.
const FOLDERS: [&str; 4] =
    ["/run/containerd/runc/k8s.io", "/run/containerd/runc", "/run/containerd/s", "/run/containerd"];

pub fn remove(instance: &str) -> Result<()> {
    results(Path::new(RESULTS), instance).with_context(|| format!("clean {RESULTS}"))?;
    for folder in FOLDERS {
        // One that is in use is not empty.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

fn results(folder: &Path, instance: &str) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let prefix = format!("{instance}-");
    // The default instance's name begins those of all others, whose next part is no sandbox.
    let sandbox = |name: &str| {
        let (sandbox, _) = name.strip_prefix(&prefix)?.split_once('-')?;
        (sandbox.len() == SANDBOX_ID_BYTES).then(|| sandbox.to_owned())
    };
    let ours: BTreeSet<String> = names.iter().filter_map(|name| sandbox(name)).collect();
    let loopback = |name: &str| {
        let rest = name.strip_prefix(LOOPBACK).and_then(|rest| rest.split_once('-'));
        rest.is_some_and(|(sandbox, _)| ours.contains(sandbox))
    };
    for name in names.iter().filter(|name| sandbox(name).is_some() || loopback(name)) {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// containerd's ids are 32 bytes in hexadecimal.
const SANDBOX_ID_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::results;
    use std::fs;

    #[test]
    fn only_results_of_this_instance_go() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = ("a".repeat(64), "b".repeat(64));
        let names = [
            format!("evenkeel-{one}-eth0"),
            format!("cni-loopback-{one}-lo"),
            format!("evenkeel-12ab34cd-{two}-eth0"),
            format!("cni-loopback-{two}-lo"),
            "podman-x-eth0".to_owned(),
        ];
        for name in &names {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        let left = || {
            let mut left: Vec<String> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            left
        };
        results(folder.path(), "evenkeel").unwrap();
        assert_eq!(left(), [names[3].clone(), names[2].clone(), names[4].clone()]);
        results(folder.path(), "evenkeel-12ab34cd").unwrap();
        assert_eq!(left(), ["podman-x-eth0"]);
        results(&folder.path().join("none"), "evenkeel").unwrap();
    }
}
