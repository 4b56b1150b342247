//! Starting, finding again and stopping the one containerd process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::{Config, LOG_BYTES_MAX, READY_TIMEOUT, SOCKET_PATH_BYTES_MAX, STOP_TIMEOUT, Version, VersionError, cgroup};
use crate::cri::Cri;
use crate::sys::{self, Identity, Process};

const PROBE_INTERVAL: Duration = Duration::from_millis(25);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const TAIL_LINES: usize = 3;
const TAIL_BYTES_MAX: u64 = 64 << 10;

/// What a running containerd was started as; read by the next agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    process: Identity,
    socket: PathBuf,
    cgroups: Vec<PathBuf>,
}

/// A containerd that answered.
#[derive(Debug)]
pub(super) struct Running {
    pub process: Process,
    /// Ours to reap when this agent started it.
    pub child: Option<Child>,
    pub adopted: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("ask containerd for its version")]
    Version(#[from] VersionError),
    #[error("socket path {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes; choose a shorter data folder")]
    LongSocket { path: PathBuf },
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
    #[error("containerd ended at once; the end of {log}: {tail}")]
    Ended { log: PathBuf, tail: String },
    #[error("containerd did not answer on {socket} within {READY_TIMEOUT:?}; the end of {log}: {tail}")]
    Silent { socket: PathBuf, log: PathBuf, tail: String },
    #[error("{socket} is served by process {pid}, which cannot be watched")]
    Foreign {
        socket: PathBuf,
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("replace the running containerd")]
    Stop(#[from] StopError),
}

#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("signal containerd, process {pid}")]
    Signal {
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("containerd, process {pid}, does not end")]
    Stuck { pid: u32 },
}

/// Adopts the running containerd or starts one, and waits until it answers.
///
/// One whose settings file differs from what it should be is replaced; its containers do not notice.
pub(super) async fn ensure(config: &Config) -> Result<Running, StartError> {
    let socket = config.socket();
    if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(StartError::LongSocket { path: socket });
    }
    let text = config.settings.render(Version::of(&config.program).await?);
    if let Some(process) = find(config).await? {
        let same = fs::read_to_string(config.settings_file()).is_ok_and(|old| old == text);
        if same && ready(config, &process).await.is_ok() {
            return Ok(Running { process, child: None, adopted: true });
        }
        tracing::info!(pid = process.identity.pid, same_settings = same, "replacing containerd, containers stay");
        end(&process).await?;
    }
    prepare(config, &text)?;
    let (process, child) = spawn(config)?;
    remember(config, &process)?;
    ready(config, &process).await?;
    Ok(Running { process, child: Some(child), adopted: false })
}

/// Stops containerd if it runs; containers go on without it. True where there was one to stop.
pub async fn stop(config: &Config) -> Result<bool, StopError> {
    let process = find(config).await.ok().flatten();
    if let Some(process) = &process {
        end(process).await?;
    }
    if let Some(record) = recall(config) {
        cgroup::leave(&record.cgroups);
    }
    let _ = fs::remove_file(config.record_file());
    Ok(process.is_some())
}

/// The containerd of this configuration: by the record, else by who listens on the socket.
async fn find(config: &Config) -> Result<Option<Process>, StartError> {
    if let Some(record) = recall(config).filter(|record| record.socket == config.socket())
        && let Some(process) = Process::reopen(&record.process)
    {
        return Ok(Some(process));
    }
    let socket = config.socket();
    let Ok(stream) = UnixStream::connect(&socket).await else { return Ok(None) };
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
    let Some(pid) = pid else { return Ok(None) };
    let process = Process::open(pid).map_err(|source| StartError::Foreign { socket, pid, source })?;
    Ok(Some(process))
}

fn recall(config: &Config) -> Option<Record> {
    serde_json::from_slice(&fs::read(config.record_file()).ok()?).ok()
}

fn remember(config: &Config, process: &Process) -> Result<(), StartError> {
    let cgroups = cgroup::settle(process.identity.pid, &config.cgroup);
    let record = Record { process: process.identity.clone(), socket: config.socket(), cgroups };
    let text = serde_json::to_vec(&record).expect("a record is JSON");
    let path = config.record_file();
    // Losing this file costs nothing but the question to the socket, so it is not flushed to disk.
    let part = path.with_extension("json.part");
    let write = fs::write(&part, text).and_then(|()| fs::rename(&part, &path));
    write.map_err(|source| StartError::File { action: "write", path, source })
}

fn prepare(config: &Config, text: &str) -> Result<(), StartError> {
    let settings = &config.settings;
    let log = config.log.parent().unwrap_or(Path::new("/"));
    for folder in [&config.folder, &settings.root, &settings.state, &settings.cni_networks, &settings.registry_hosts] {
        let make = fs::create_dir_all(folder);
        make.map_err(|source| StartError::File { action: "make", path: folder.clone(), source })?;
    }
    fs::create_dir_all(log).map_err(|source| StartError::File { action: "make", path: log.to_path_buf(), source })?;
    // The file may hold registry passwords.
    let path = config.settings_file();
    write_private(&path, text).map_err(|source| StartError::File { action: "write", path, source })
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    fs::rename(&part, path)
}

fn spawn(config: &Config) -> Result<(Process, Child), StartError> {
    let log = open_log(&config.log).map_err(|source| StartError::File {
        action: "open",
        path: config.log.clone(),
        source,
    })?;
    let fail = |source| StartError::Spawn { program: config.program.clone(), source };
    let mut command = Command::new(&config.program);
    command.arg("--config").arg(config.settings_file()).env("PATH", search_path(&config.program)).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(fail)?).stderr(log);
    sys::own_session(&mut command);
    let mut child = command.spawn().map_err(fail)?;
    match Process::open(child.id()) {
        Ok(process) => Ok((process, child)),
        Err(_) => {
            let _ = child.wait();
            Err(ended(config))
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|meta| LOG_BYTES_MAX < meta.len()) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// The folder of the program first, for its shim; then ours; then where runc and mount helpers usually are.
fn search_path(program: &Path) -> std::ffi::OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let first = program.parent().map(Path::to_path_buf).into_iter();
    let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let folders = first.chain(std::env::split_paths(&own)).chain(usual.iter().map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(own)
}

/// Waits for the first CRI answer.
async fn ready(config: &Config, process: &Process) -> Result<(), StartError> {
    let socket = config.socket();
    let deadline = Instant::now() + READY_TIMEOUT;
    let cri = Cri::connect(&socket);
    let answer = async {
        while !tokio::time::timeout(PROBE_TIMEOUT, cri.version()).await.is_ok_and(|reply| reply.is_ok()) {
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    };
    tokio::select! {
        () = process.ended() => Err(ended(config)),
        reply = tokio::time::timeout_at(deadline, answer) => {
            reply.map_err(|_| StartError::Silent { socket, log: config.log.clone(), tail: tail(&config.log) })
        }
    }
}

async fn end(process: &Process) -> Result<(), StopError> {
    let pid = process.identity.pid;
    for signal in [Signal::TERM, Signal::KILL] {
        match process.signal(signal) {
            // The process ended between the look and the signal.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(()),
            result => result.map_err(|source| StopError::Signal { pid, source })?,
        }
        if tokio::time::timeout(STOP_TIMEOUT, process.ended()).await.is_ok() {
            return Ok(());
        }
    }
    Err(StopError::Stuck { pid })
}

fn ended(config: &Config) -> StartError {
    StartError::Ended { log: config.log.clone(), tail: tail(&config.log) }
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
