//! Starting, finding again, replacing and ending the one process of a child.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::record::Record;
use super::{Kind, Known, LOG_BYTES_MAX, READY_TIMEOUT, Replacement, STOP_TIMEOUT, Spec, cgroup};
use crate::sys::{self, Process};

const TAIL_LINES: usize = 3;
/// In a child's environment: where it is written down, and its program. Nothing is written yet when it starts, so an
/// agent that ends just then would leave a child that nobody knows; and children of the child inherit the variable.
const MARK: &str = "EVENKEEL_CHILD";
const TAIL_BYTES_MAX: u64 = 64 << 10;

/// A child that is well.
#[derive(Debug)]
pub(super) struct Running {
    pub known: Known,
    /// Ours to reap when this agent started it.
    pub child: Option<Child>,
    pub adopted: bool,
    /// It should be replaced, which did not come about.
    pub outdated: bool,
    /// Its output.
    pub log: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("prepare {name}")]
    Prepare {
        name: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("start {program}")]
    Spawn {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{name} ended at once; the end of {log}: {tail}")]
    Ended { name: &'static str, log: PathBuf, tail: String },
    #[error("{name} is not ready after {after:?}; the end of {log}: {tail}")]
    Silent { name: &'static str, after: Duration, log: PathBuf, tail: String },
    #[error("{name} is process {pid}, which cannot be watched")]
    Foreign {
        name: &'static str,
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("replace the running {name}")]
    Replace {
        name: &'static str,
        #[source]
        source: StopError,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("signal {name}, process {pid}")]
    Signal {
        name: &'static str,
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("{name}, process {pid}, does not end")]
    Stuck { name: &'static str, pid: u32 },
    #[error("watch {name}, process {pid}")]
    Foreign {
        name: &'static str,
        pid: u32,
        #[source]
        source: io::Error,
    },
}

/// Adopts the running child or starts one, and waits until it is well.
///
/// One that was started as something else than what is wanted now is replaced.
pub(super) async fn ensure<K: Kind>(kind: &K) -> Result<Running, StartError> {
    let name = kind.name();
    let wanted = kind.wanted().await;
    let spec = wanted.map_err(|source| StartError::Prepare { name, source })?;
    let found =
        find(name, &kind.record(), kind.stray()).await.map_err(|source| StartError::Replace { name, source })?;
    let Some(found) = found else { return fresh(kind, &spec).await };
    let same = found.edition == spec.edition && spec.files.iter().all(|(path, text)| holds(path, text));
    if same {
        match ready(kind, &spec, (&found, None), kind.found_timeout()).await {
            Ok(()) => return Ok(Running { known: found, child: None, adopted: true, outdated: false, log: spec.log }),
            Err(error) => tracing::warn!(err = %base::Chain(&error), "the {name} that was found is not well"),
        }
    }
    tracing::info!(pid = found.process.identity.pid, same_settings = same, "replacing {name}");
    // One that does not answer hands nothing over, and serves nobody meanwhile.
    if !same && kind.replacement() == Replacement::Beside && kind.answers(&found).await {
        return beside(kind, &spec, found).await;
    }
    end(name, &found.process).await.map_err(|source| StartError::Replace { name, source })?;
    fresh(kind, &spec).await
}

/// Starts a child where none runs.
async fn fresh<K: Kind>(kind: &K, spec: &Spec) -> Result<Running, StartError> {
    prepare(spec)?;
    let (process, child) = spawn(kind, spec)?;
    let known = Known { process, edition: spec.edition.clone() };
    remember(&kind.record(), spec, &known, None)?;
    ready(kind, spec, (&known, None), READY_TIMEOUT).await?;
    Ok(Running { known, child: Some(child), adopted: false, outdated: false, log: spec.log.clone() })
}

/// Starts a child beside the old one, which ends when the new one is well, and stays where it does not get well.
///
/// The record names both at any time, so that whatever becomes of this agent the next one ends one of them.
async fn beside<K: Kind>(kind: &K, spec: &Spec, old: Known) -> Result<Running, StartError> {
    let (name, record) = (kind.name(), kind.record());
    let replace = |source| StartError::Replace { name, source };
    prepare(spec)?;
    let (process, mut child) = match spawn(kind, spec) {
        Ok(spawned) => spawned,
        Err(error) => return Ok(stays(name, spec, old, &error)),
    };
    let new = Known { process, edition: spec.edition.clone() };
    remember(&record, spec, &old, Some(&new))?;
    if let Err(error) = ready(kind, spec, (&new, Some(&old)), READY_TIMEOUT).await {
        end(name, &new.process).await.map_err(replace)?;
        let _ = child.wait();
        remember(&record, spec, &old, None)?;
        return Ok(stays(name, spec, old, &error));
    }
    remember(&record, spec, &new, Some(&old))?;
    end(name, &old.process).await.map_err(replace)?;
    remember(&record, spec, &new, None)?;
    Ok(Running { known: new, child: Some(child), adopted: false, outdated: false, log: spec.log.clone() })
}

fn stays(name: &'static str, spec: &Spec, old: Known, error: &StartError) -> Running {
    tracing::warn!(err = %base::Chain(error), "{name} was not replaced, the old one stays");
    Running { known: old, child: None, adopted: true, outdated: true, log: spec.log.clone() }
}

/// Ends the child that a record tells of, or else this process. True where there was one to end.
pub async fn stop(
    name: &'static str,
    record: &Path,
    stray: impl Future<Output = Option<u32>>,
) -> Result<bool, StopError> {
    let found = find(name, record, stray).await?;
    if let Some(found) = &found {
        end(name, &found.process).await?;
    }
    if let Some(known) = Record::read(record) {
        cgroup::leave(&known.cgroups);
    }
    let _ = fs::remove_file(record);
    Ok(found.is_some())
}

/// The one child: by the record, else the stray. Ends the other where a replacement was cut short, and one that was
/// started and never written down: as what is not known.
async fn find(
    name: &'static str,
    record: &Path,
    stray: impl Future<Output = Option<u32>>,
) -> Result<Option<Known>, StopError> {
    if let Some(record) = Record::read(record) {
        if let Some(other) = record.other.as_ref().and_then(Process::reopen) {
            end(name, &other).await?;
        }
        if let Some(process) = Process::reopen(&record.process) {
            return Ok(Some(Known { process, edition: record.edition }));
        }
    }
    if let Some(pid) = stray.await {
        let process = Process::open(pid).map_err(|source| StopError::Foreign { name, pid, source })?;
        return Ok(Some(Known { process, edition: String::new() }));
    }
    end_unrecorded(name, record).await?;
    Ok(None)
}

fn remember(path: &Path, spec: &Spec, known: &Known, other: Option<&Known>) -> Result<(), StartError> {
    let settle = |known: &Known| cgroup::settle(known.process.identity.pid, &spec.cgroup);
    let cgroups = settle(known);
    let other = other.map(|other| {
        settle(other);
        other.process.identity.clone()
    });
    let record = Record { process: known.process.identity.clone(), edition: known.edition.clone(), cgroups, other };
    record.write(path).map_err(|source| StartError::File { action: "write", path: path.to_path_buf(), source })
}

fn prepare(spec: &Spec) -> Result<(), StartError> {
    let log = spec.log.parent().map(Path::to_path_buf);
    for folder in spec.folders.iter().chain(&log) {
        let make = fs::create_dir_all(folder);
        make.map_err(|source| StartError::File { action: "make", path: folder.clone(), source })?;
    }
    for (path, text) in &spec.files {
        let written = write_private(path, text);
        written.map_err(|source| StartError::File { action: "write", path: path.clone(), source })?;
    }
    Ok(())
}

fn holds(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|old| old == text)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    fs::rename(&part, path)
}

/// Ends children that were started and never written down, where none is that runs.
pub async fn end_unrecorded(name: &'static str, record: &Path) -> Result<(), StopError> {
    let mut known = Record::read(record).into_iter().flat_map(|record| [Some(record.process), record.other]).flatten();
    if known.any(|identity| Process::reopen(&identity).is_some()) {
        return Ok(());
    }
    for process in sys::processes().into_iter().filter(|pid| is_marked(*pid, record)).map(Process::open) {
        // One that cannot be opened has just ended.
        let Ok(process) = process else { continue };
        tracing::warn!(pid = process.identity.pid, "ending a {name} that was never written down");
        end(name, &process).await?;
    }
    Ok(())
}

/// What marks the child that this record will tell of.
fn mark(record: &Path, program: &Path) -> OsString {
    let mut mark = record.as_os_str().to_owned();
    mark.push("|");
    mark.push(program);
    mark
}

/// True for a child of that record, and for nothing that inherited its environment only.
fn is_marked(pid: u32, record: &Path) -> bool {
    let parts = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = parts("cmdline");
    let Some(program) = line.split(|byte| *byte == 0).next().filter(|program| !program.is_empty()) else {
        return false;
    };
    let marked = [MARK.as_bytes(), b"=", mark(record, Path::new(OsStr::from_bytes(program))).as_bytes()].concat();
    parts("environ").split(|byte| *byte == 0).any(|entry| entry == marked)
}

fn spawn<K: Kind>(kind: &K, spec: &Spec) -> Result<(Process, Child), StartError> {
    let (name, record) = (kind.name(), kind.record());
    let log = open_log(&spec.log);
    let log = log.map_err(|source| StartError::File { action: "open", path: spec.log.clone(), source })?;
    let fail = |source| StartError::Spawn { program: spec.program.clone(), source };
    let mut command = Command::new(&spec.program);
    command.args(&spec.arguments).env("PATH", search_path(&spec.program)).env(MARK, mark(&record, &spec.program));
    command.current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(fail)?).stderr(log);
    sys::own_session(&mut command);
    let mut child = command.spawn().map_err(fail)?;
    match Process::open(child.id()) {
        Ok(process) => Ok((process, child)),
        Err(_) => {
            let _ = child.wait();
            Err(ended(name, spec))
        }
    }
}

/// Puts a log aside that grew too large, also under a child that writes to it: it appends, so it goes on at the start.
pub(super) fn bound_log(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|meta| LOG_BYTES_MAX < meta.len()) {
        fs::copy(path, path.with_extension("log.1"))?;
        File::options().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

fn open_log(path: &Path) -> io::Result<File> {
    bound_log(path)?;
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// The folder of the program first, then ours, then where programs usually are.
fn search_path(program: &Path) -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let first = program.parent().map(Path::to_path_buf).into_iter();
    let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let folders = first.chain(std::env::split_paths(&own)).chain(usual.iter().map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(own)
}

/// Waits until the child is well, for a bounded time and no longer than it lives.
async fn ready<K: Kind>(
    kind: &K,
    spec: &Spec,
    (child, before): (&Known, Option<&Known>),
    within: Duration,
) -> Result<(), StartError> {
    let (name, log) = (kind.name(), &spec.log);
    tokio::select! {
        () = child.process.ended() => Err(ended(name, spec)),
        well = tokio::time::timeout(within, kind.ready(child, before)) => {
            well.map_err(|_| StartError::Silent { name, after: within, log: log.clone(), tail: tail(log) })
        }
    }
}

async fn end(name: &'static str, process: &Process) -> Result<(), StopError> {
    let pid = process.identity.pid;
    for signal in [Signal::TERM, Signal::KILL] {
        match process.signal(signal) {
            // The process ended between the look and the signal.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(()),
            result => result.map_err(|source| StopError::Signal { name, pid, source })?,
        }
        if tokio::time::timeout(STOP_TIMEOUT, process.ended()).await.is_ok() {
            // Until then it keeps its cgroup.
            process.reap();
            return Ok(());
        }
    }
    Err(StopError::Stuck { name, pid })
}

fn ended(name: &'static str, spec: &Spec) -> StartError {
    StartError::Ended { name, log: spec.log.clone(), tail: tail(&spec.log) }
}

/// The last lines of the log, for people.
fn tail(log: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let from = file.metadata()?.len().saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().rev().take(TAIL_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_put_aside_under_the_child_that_writes_it() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("child.log");
        let mut log = open_log(&path).unwrap();
        log.set_len(LOG_BYTES_MAX).unwrap();
        bound_log(&path).unwrap();
        assert!(!folder.path().join("child.log.1").exists(), "it is not too large yet");
        log.write_all(b"one\n").unwrap();
        bound_log(&path).unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(tail(&path), "two");
        assert_eq!(fs::metadata(folder.path().join("child.log.1")).unwrap().len(), LOG_BYTES_MAX + 4);
    }
}
