//! The system calls of this crate: sessions, process handles, process identity.
//!
//! JUSTIFICATION for `unsafe`: `std::process::Command` has no stable way to start a child in a session of its own, and
//! tokio cannot check that a descriptor it is told to poll stays the same.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, setsid, waitpid};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// Capability number of `CAP_SYS_RESOURCE` (capabilities(7)).
const CAP_SYS_RESOURCE: u32 = 24;
/// `OVERLAYFS_SUPER_MAGIC` of statfs(2).
const OVERLAY_MAGIC: rustix::fs::FsWord = 0x794c_7630;
/// Field of `/proc/PID/stat` with the start time, counted from after the command name (proc(5): field 22).
const STAT_START_TIME: usize = 19;

/// One process for ever: pids are used again, but not with the same start time in the same boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks after boot.
    pub started: u64,
    pub boot: String,
}

/// A handle on a living process, child or not: its end can be awaited and signals reach no successor of its pid.
#[derive(Debug)]
pub struct Process {
    pub identity: Identity,
    fd: AsyncFd<OwnedFd>,
}

/// Makes the child of `command` the leader of a session of its own, so that no signal to ours reaches it.
pub fn own_session(command: &mut Command) {
    // SAFETY: the closure runs in the child between fork and exec and makes one async-signal-safe system call.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            Ok(())
        });
    }
}

/// True where `oom_score_adj` can be lowered and hard limits raised.
pub fn has_sys_resource() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    bits & (1 << CAP_SYS_RESOURCE) != 0
}

/// True where a folder lies on an overlay file system.
pub fn is_overlay(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|stat| stat.f_type == OVERLAY_MAGIC)
}

/// The processes of this machine.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

// === impl Process ===

impl Process {
    /// Takes a handle on `pid`. The handle comes first, so the identity read afterwards is that of the handle's process
    /// or the process is already gone.
    pub fn open(pid: u32) -> io::Result<Process> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a pid"))?;
        let fd = pidfd_open(number, PidfdFlags::NONBLOCK)?;
        let identity = Identity { pid, started: start_time(pid)?, boot: boot_id()? };
        // SAFETY: an `OwnedFd` keeps its descriptor open and the same until it is dropped, which `AsyncFd` does after
        // leaving the poller.
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
        Ok(Process { identity, fd })
    }

    /// Takes a handle on exactly this process; None where it is gone.
    pub fn reopen(identity: &Identity) -> Option<Process> {
        Process::open(identity.pid).ok().filter(|process| process.identity == *identity)
    }

    /// Returns when the process has ended.
    pub async fn ended(&self) {
        // A pidfd is readable from the end of its process on. An error means that it cannot be polled: gone as well.
        let _ = self.fd.readable().await.map(|mut ready| ready.retain_ready());
    }

    /// Takes the status of an ended process that is a child of this one all the same: this program executed itself since.
    pub fn reap(&self) -> Option<String> {
        let pid = i32::try_from(self.identity.pid).ok().and_then(Pid::from_raw);
        let status = waitpid(pid, WaitOptions::NOHANG).ok().flatten();
        status.map(|(_, status)| format!("{status:?}"))
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.fd.get_ref(), signal)?)
    }
}

/// When a process started. A zombie counts as gone.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "unreadable process status");
    // The command name may hold anything but ends at the last parenthesis.
    let (_, rest) = stat.rsplit_once(") ").ok_or_else(odd)?;
    if rest.starts_with('Z') || rest.starts_with('X') {
        return Err(io::Error::new(io::ErrorKind::NotFound, "process has ended"));
    }
    rest.split(' ').nth(STAT_START_TIME).and_then(|text| text.parse().ok()).ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[tokio::test]
    async fn a_handle_sees_the_end_and_no_successor() {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null());
        own_session(&mut command);
        let mut child = command.spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        let later = Identity { started: process.identity.started + 1, ..process.identity.clone() };
        assert!(Process::reopen(&later).is_none());
        process.signal(Signal::KILL).unwrap();
        process.ended().await;
        assert!(Process::reopen(&process.identity).is_none(), "a zombie is gone");
        child.wait().unwrap();
    }
}
