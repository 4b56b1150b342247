//! The disks below the data folder: room, inodes, and what becomes of a small write that is flushed.
//!
//! A write that does not come back cannot be taken back either: it holds its thread, and a process with such a thread
//! does not end. So a program that is to end has the writes tried by a process of its own, and one that stays tries one
//! at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keeper::wrong::{What, Write};
use rustix::fs::statvfs;
use rustix::io::Errno;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::super::ANSWER_TIMEOUT;
use crate::layout::Layout;

/// Writes that are tried: the quickest counts, for others write as well.
const WRITES: usize = 3;
/// What ext4 notes of an I/O error, its own number for it.
const EXT4_EIO: &str = "2";
/// The command of this program that tries a folder.
pub const PROBE_COMMAND: &str = "disk-probe";
const PROBE: &str = ".write-probe";

/// Folders in which a write of this process has not come back yet.
static WAITING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// With a `prober` the writes are tried by that program.
pub async fn facts(layout: &Layout, prober: Option<&Path>) -> Vec<What> {
    let look = folders(layout).into_iter().map(|folder| async move {
        let mut found = Vec::new();
        let all = async {
            match prober {
                Some(program) => apart(program, &folder, &mut found).await,
                None => within(&folder, &mut found).await,
            }
        };
        // What was told until then counts.
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, all).await;
        judged(&folder, found)
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

/// Tried in a thread of this process, unless one waits there already.
async fn within(folder: &Path, found: &mut Vec<What>) {
    let Some(turn) = Turn::take(folder) else { return };
    let (tell, mut told) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking(move || {
        // Who asked may have gone.
        probe(&turn.0, |what| drop(tell.send(what)));
        drop(turn);
    });
    while let Some(what) = told.recv().await {
        found.push(what);
    }
}

/// Tried by a process that is left alone where it hangs.
async fn apart(program: &Path, folder: &Path, found: &mut Vec<What>) {
    let mut command = Command::new(program);
    command.arg(PROBE_COMMAND).arg(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return };
    let Some(stdout) = child.stdout.take() else { return };
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        found.extend(serde_json::from_str::<What>(&line));
    }
}

/// What `evenkeel disk-probe` does: each thing as soon as it is known, in a line.
pub fn tell(folder: &Path) {
    probe(folder, |what| {
        let line = serde_json::to_string(&what).expect("facts are plain data");
        // Nobody listens any more: nothing is lost.
        let _ = writeln!(io::stdout(), "{line}");
    });
}

fn probe(folder: &Path, mut tell: impl FnMut(What)) {
    room(folder).into_iter().for_each(&mut tell);
    for _ in 0..WRITES {
        let write = timed_write(folder)
            .map_or_else(|error| refused(folder, &error), |took| Write::Took { millis: millis(took) });
        tell(What::DiskWrite { path: folder.display().to_string(), write });
    }
}

/// Room as it is, and one word on the writes: what was refused, else the quickest, else that none came back.
fn judged(folder: &Path, found: Vec<What>) -> Vec<What> {
    let (mut facts, mut quickest, mut bad) = (Vec::new(), None, None);
    for what in found {
        match what {
            What::DiskWrite { write: Write::Took { millis }, .. } => {
                quickest = Some(quickest.map_or(millis, |known: u64| known.min(millis)));
            }
            What::DiskWrite { write, .. } => bad = Some(write),
            other => facts.push(other),
        }
    }
    let took = quickest.map(|millis| Write::Took { millis });
    let write = bad.or(took).unwrap_or(Write::Hangs);
    facts.push(What::DiskWrite { path: folder.display().to_string(), write });
    facts
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

fn millis(span: Duration) -> u64 {
    span.as_millis().try_into().unwrap_or(u64::MAX)
}

fn refused(folder: &Path, error: &io::Error) -> Write {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Write::Full,
        // The error that it was.
        Some(Errno::ROFS) if was_io_error(folder) => Write::Failed { why: io::Error::from(Errno::IO).to_string() },
        Some(Errno::ROFS) => Write::ReadOnly,
        _ => Write::Failed { why: error.to_string() },
    }
}

/// Whether the kernel made the file system read-only because its disk failed: ext4 keeps the reason, others go on
/// answering with the error itself.
fn was_io_error(folder: &Path) -> bool {
    let Ok(device) = fs::metadata(folder).map(|metadata| metadata.dev()) else { return false };
    let block = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let name = fs::read_link(block).ok().and_then(|link| Some(link.file_name()?.to_owned()));
    let noted = name.map(|name| Path::new("/sys/fs/ext4").join(name).join("last_error_errcode"));
    noted.and_then(|path| fs::read_to_string(path).ok()).is_some_and(|code| code.trim() == EXT4_EIO)
}

/// The one writer of a folder.
struct Turn(PathBuf);

// === impl Turn ===

impl Turn {
    fn take(folder: &Path) -> Option<Turn> {
        let taken = WAITING.lock().expect("no holder of this lock panics").insert(folder.to_path_buf());
        taken.then(|| Turn(folder.to_path_buf()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        WAITING.lock().expect("no holder of this lock panics").remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Turn, facts, refused};
    use crate::layout::Layout;
    use keeper::wrong::{What, Write};
    use std::io;

    #[tokio::test]
    async fn a_folder_that_takes_writes_says_how_quickly_and_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let found = facts(&Layout::new(folder.path()), None).await;
        assert!(
            found.iter().any(|what| matches!(what, What::DiskWrite { write: Write::Took { .. }, .. })),
            "{found:?}"
        );
        assert!(found.iter().any(|what| matches!(what, What::Disk { total, .. } if 0 < *total)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn where_a_write_waits_no_second_one_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let waits = Turn::take(folder.path()).unwrap();
        let found = facts(&Layout::new(folder.path()), None).await;
        assert!(matches!(&found[..], [What::DiskWrite { write: Write::Hangs, .. }]), "{found:?}");
        drop(waits);
        assert_eq!(facts(&Layout::new(folder.path()), None).await.len(), 2);
    }

    #[test]
    fn refusals_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let of = |code| refused(folder.path(), &io::Error::from_raw_os_error(code));
        assert_eq!((of(28), of(30)), (Write::Full, Write::ReadOnly));
        assert!(matches!(of(5), Write::Failed { .. }));
    }
}
