//! The cgroups of one instance of `evenkeel`. A power cut of a simulated host leaves them, empty, on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::tool::Tool;
use crate::wait::eventually;

const ROOT: &str = "/sys/fs/cgroup";
/// Killed processes leave their cgroup when they are reaped.
const REAPED_BOUND: Duration = Duration::from_secs(10);

/// The folders of this instance in every hierarchy. Its name is made of its data folder's.
pub fn cgroups(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let hash = Tool::new("sha256sum").call(&[], &data.display().to_string())?.succeeded()?;
    let mine = format!("evenkeel-{}", hash.get(..8).context("sha256sum printed no hash")?);
    let mut found = Vec::new();
    for hierarchy in fs::read_dir(ROOT).with_context(|| format!("read {ROOT}"))? {
        let Ok(entries) = fs::read_dir(hierarchy?.path()) else { continue };
        let named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&mine));
        found.extend(named.map(|entry| entry.path()));
    }
    Ok(found)
}

/// Removes them, once nothing runs in them any more.
pub(crate) fn remove_cgroups(data: &Path) -> anyhow::Result<()> {
    eventually("the cgroups are empty", REAPED_BOUND, || cgroups(data)?.iter().try_for_each(|folder| remove(folder)))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?.flatten() {
        // The files of a cgroup are the kernel's: they go with their folder.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
