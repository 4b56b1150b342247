//! The disks below the data folder: room, inodes, and what becomes of a small write that is flushed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keeper::wrong::{What, Write};
use rustix::fs::statvfs;
use rustix::io::Errno;

use super::super::ANSWER_TIMEOUT;
use crate::layout::Layout;

/// Writes that are tried: the quickest counts, for others write as well.
const WRITES: usize = 3;
const PROBE: &str = ".write-probe";

pub async fn facts(layout: &Layout) -> Vec<What> {
    let look = folders(layout).into_iter().map(|folder| async move {
        let blocking = tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || (room(&folder), write(&folder))
        });
        let path = folder.display().to_string();
        match tokio::time::timeout(ANSWER_TIMEOUT, blocking).await {
            Ok(Ok((room, write))) => room.into_iter().chain([What::DiskWrite { path, write }]).collect(),
            Ok(Err(_)) => Vec::new(),
            Err(_) => vec![What::DiskWrite { path, write: Write::Hangs }],
        }
    });
    futures::future::join_all(look).await.into_iter().flatten().collect()
}

/// One folder for each file system of ours.
fn folders(layout: &Layout) -> Vec<PathBuf> {
    let mut devices = BTreeMap::new();
    for folder in [layout.data.clone(), layout.server(), layout.agent()] {
        if let Ok(metadata) = fs::metadata(&folder) {
            devices.entry(metadata.dev()).or_insert(folder);
        }
    }
    devices.into_values().collect()
}

fn room(folder: &Path) -> Option<What> {
    let stat = statvfs(folder).ok()?;
    Some(What::Disk {
        path: folder.display().to_string(),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        inodes_free: stat.f_favail,
    })
}

fn write(folder: &Path) -> Write {
    let mut best = None;
    for _ in 0..WRITES {
        match timed_write(folder) {
            Ok(took) => best = Some(best.map_or(took, |best: Duration| best.min(took))),
            Err(error) => return refused(&error),
        }
    }
    let millis = best.unwrap_or_default().as_millis().try_into().unwrap_or(u64::MAX);
    Write::Took { millis }
}

fn timed_write(folder: &Path) -> io::Result<Duration> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("{PROBE}-{}-{number}", std::process::id()));
    let start = Instant::now();
    let outcome = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    let took = start.elapsed();
    let _ = fs::remove_file(&path);
    outcome.map(|()| took)
}

fn refused(error: &io::Error) -> Write {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Write::Full,
        Some(Errno::ROFS) => Write::ReadOnly,
        _ => Write::Failed { why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::{facts, refused};
    use crate::layout::Layout;
    use keeper::wrong::{What, Write};
    use std::io;

    #[tokio::test]
    async fn a_folder_that_takes_writes_says_how_quickly_and_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let found = facts(&Layout::new(folder.path())).await;
        assert!(
            found.iter().any(|what| matches!(what, What::DiskWrite { write: Write::Took { .. }, .. })),
            "{found:?}"
        );
        assert!(found.iter().any(|what| matches!(what, What::Disk { total, .. } if 0 < *total)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn refusals_are_told_apart() {
        let of = |code| refused(&io::Error::from_raw_os_error(code));
        assert_eq!((of(28), of(30)), (Write::Full, Write::ReadOnly));
        assert!(matches!(of(5), Write::Failed { .. }));
    }
}
