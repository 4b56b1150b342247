//! The embedded engine under kill -9, power cuts and a full disk. The judge is always outside: what a child process said
//! it was told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use admit::Expect;
use base::Revision;
use store::{CommitId, Engine, WriteError};

use crate::lab::{batch, commit, put, rows};

const CHILD_FOLDER: &str = "EVENKEEL_TEST_CHILD_FOLDER";

/// Not a test: the writer that gets killed. Prints `name revision` for every acknowledged write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_writer() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let folder = PathBuf::from(folder);
    // Never synced: shows whether a simulated power cut really drops what was not.
    std::fs::write(folder.join("unsynced"), vec![7; 1 << 16]).unwrap();
    let engine = store::sqlite::open(&folder.join("state.db")).unwrap();
    let start = engine.read_barrier().await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8_u128 {
        writers.spawn(write_for_ever(engine.clone(), format!("{start}-{writer}"), writer));
    }
    writers.join_all().await;
}

async fn write_for_ever(engine: Arc<dyn Engine>, prefix: String, id: u128) {
    let filling = "x".repeat(700);
    for count in 0.. {
        let name = format!("{prefix}-{count}");
        let revision = commit(&engine, id, put(&name, Expect::Absent, &filling)).await;
        println!("acknowledged {name} {revision}");
        if count % 8 == 7 {
            let old = format!("{prefix}-{}", count - 7);
            let newer = commit(&engine, id, put(&old, Expect::At(last_of(&engine, &old).await), "short")).await;
            println!("acknowledged {old} {newer}");
        }
    }
}

async fn last_of(engine: &Arc<dyn Engine>, name: &str) -> Revision {
    let wrong = batch(vec![put(name, Expect::Absent, "")]);
    match engine.commit(CommitId(0), wrong).await {
        Err(WriteError::Conflict { current: Some(current), .. }) => current,
        other => panic!("{other:?}"),
    }
}

struct Writer {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn start(folder: &Path) -> Writer {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sqlite_faults::child_writer", "--nocapture", "--test-threads=1"]);
        command.env(CHILD_FOLDER, folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Writer { child, lines }
    }

    /// Reads acknowledgements until there are `count`.
    fn acknowledged(&mut self, count: usize, into: &mut BTreeMap<String, u64>) {
        let mut seen = 0;
        while seen < count {
            let line = self.lines.next().expect("the child writes until it is killed").unwrap();
            seen += usize::from(record(&line, into));
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills the child and reads what it had said before.
    fn kill(mut self, into: &mut BTreeMap<String, u64>) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
        for line in self.lines.map_while(Result::ok) {
            record(&line, into);
        }
    }
}

fn record(line: &str, into: &mut BTreeMap<String, u64>) -> bool {
    // The test harness prints its own words on the first line.
    let Some((_, line)) = line.split_once("acknowledged ") else { return false };
    let Some((name, revision)) = line.split_once(' ') else { return false };
    let Ok(revision) = revision.parse::<u64>() else { return false };
    let newest = into.entry(name.to_owned()).or_insert(0);
    *newest = revision.max(*newest);
    true
}

/// Every acknowledged write is there, at its revision or, where a newer one was under way, a newer.
async fn judge(database: &Path, acknowledged: &BTreeMap<String, u64>) {
    let engine = store::sqlite::open(database).unwrap();
    let newest = engine.read_barrier().await.unwrap();
    let found: BTreeMap<String, u64> =
        rows(&engine).await.into_iter().map(|row| (row.place.key.name.to_string(), row.revision.0)).collect();
    for (name, revision) in acknowledged {
        let there = found.get(name).copied().unwrap_or(0);
        assert!(*revision <= there, "{name} was acknowledged at {revision} and is at {there}");
        assert!(there <= newest.0, "revisions never go back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 1..=5 {
        let mut writer = Writer::start(folder.path());
        writer.acknowledged(60 * round, &mut acknowledged);
        writer.kill(&mut acknowledged);
        judge(&folder.path().join("state.db"), &acknowledged).await;
    }
}

/// A file system in a file. What was not synced is not in the file yet: a copy of it is the disk after a power cut.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// `None`, with a line that says so, where loop mounts are not possible.
    fn mount(image: &Path, mount: &Path) -> Option<Disk> {
        std::fs::create_dir_all(mount).unwrap();
        // A long commit interval: the journal does not write on its own during the test.
        if !run("mount", &["-o", "loop,commit=300"], &[image, mount]) {
            println!("SKIPPED: no loop mounts on this machine");
            return None;
        }
        Some(Disk { image: image.to_owned(), mount: mount.to_owned() })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The engine's thread may still be closing its file.
        let start = std::time::Instant::now();
        while !run("umount", &[], &[&self.mount]) && start.elapsed() < crate::lab::PATIENCE {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) -> bool {
    let mut command = Command::new(program);
    command.args(options).args(paths).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_acknowledged() {
    let lab = tempfile::tempdir().unwrap();
    let image = lab.path().join("disk");
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    if !run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"], &[&image]) {
        println!("SKIPPED: no mkfs.ext4 on this machine");
        return;
    }
    let Some(disk) = Disk::mount(&image, &lab.path().join("before")) else { return };
    let mut acknowledged = BTreeMap::new();
    let mut writer = Writer::start(&disk.mount);
    for round in 0..3 {
        writer.acknowledged(300, &mut acknowledged);
        // The disk stands still while it is copied; acknowledgements already in the pipe count.
        writer.signal(rustix::process::Signal::STOP);
        let cut = lab.path().join(format!("cut{round}"));
        assert!(run("cp", &["--sparse=always"], &[&disk.image, &cut]));
        let after = Disk::mount(&cut, &lab.path().join("after")).expect("the first mount worked");
        let unsynced = std::fs::metadata(after.mount.join("unsynced")).map_or(0, |file| file.len());
        assert!(unsynced == 0, "the simulated cut kept {unsynced} bytes that were never synced");
        judge(&after.mount.join("state.db"), &acknowledged).await;
        writer.signal(rustix::process::Signal::CONT);
    }
    writer.kill(&mut acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers_by_itself() {
    let lab = tempfile::tempdir().unwrap();
    let mount = lab.path().join("small");
    std::fs::create_dir_all(&mount).unwrap();
    if !run("mount", &["-t", "tmpfs", "-o", "size=6m", "none"], &[&mount]) {
        println!("SKIPPED: no tmpfs mounts on this machine");
        return;
    }
    let disk = Disk { image: PathBuf::new(), mount };
    let ballast = disk.mount.join("ballast");
    std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let engine = store::sqlite::open(&disk.mount.join("state.db")).unwrap();
    let filling = "x".repeat(50_000);
    let mut written = BTreeMap::new();
    let error = loop {
        let name = format!("n{}", written.len());
        match engine.commit(CommitId(1), batch(vec![put(&name, Expect::Absent, &filling)])).await {
            Ok(revision) => written.insert(name, revision.0),
            Err(error) => break error,
        };
    };
    assert!(matches!(error, WriteError::Full), "{error:?}");
    assert!(10 < written.len());
    let first = Expect::At(Revision(written["n0"]));
    let full = engine
        .commit(CommitId(2), batch(vec![put("n0", first, &filling), put("more", Expect::Absent, &filling)]))
        .await;
    assert!(matches!(full, Err(WriteError::Full)), "{full:?}");
    // Reads go on and show exactly what was acknowledged.
    let found: BTreeMap<String, u64> =
        rows(&engine).await.into_iter().map(|row| (row.place.key.name.to_string(), row.revision.0)).collect();
    assert_eq!(found, written);
    std::fs::remove_file(&ballast).unwrap();
    let after = commit(&engine, 3, put("after", Expect::Absent, &filling)).await;
    assert!(written.values().all(|revision| *revision < after.0));
    drop(engine);
    judge(&disk.mount.join("state.db"), &written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_does_not_grow_with_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let engine = store::sqlite::open(&path).unwrap();
    let filling = "x".repeat(10_000);
    let mut expect = [Expect::Absent; 8];
    // 48 MB of updates of 80 KB of data, then deletions.
    for round in 0..600 {
        for (name, expect) in expect.iter_mut().enumerate() {
            *expect = Expect::At(commit(&engine, round, put(&format!("n{name}"), *expect, &filling)).await);
        }
    }
    drop(engine);
    let engine = store::sqlite::open(&path).unwrap();
    assert_eq!(rows(&engine).await.len(), 8);
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).map_or(0, |file| file.len());
    assert!(size("state.db") < 1 << 20, "the file has {} bytes", size("state.db"));
    assert!(size("state.db-wal") <= 40 << 20, "the log has {} bytes", size("state.db-wal"));
}
