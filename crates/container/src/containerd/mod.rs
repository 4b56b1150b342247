//! A containerd of our own: configured, started once, adopted ever after, watched, stopped on request only.
//!
//! Containers outlive the agent, so containerd does too: it runs in a session and a cgroup of its own, without a
//! parent-death signal, its output in a file. A starting agent finds it again by what the last one wrote down (pid and
//! start time) or by asking the socket who listens, and only starts one where there is none.

mod cgroup;
mod process;
mod settings;
mod supervise;
mod version;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use process::{StartError, StopError, stop};
pub use settings::Settings;
pub(crate) use settings::quote;
pub use supervise::{Containerd, Status};
pub use version::{Version, VersionError};

/// Longest path of a Unix socket: `sun_path` less its terminator.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest wait from the start of containerd to its first CRI answer.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time containerd gets to end before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Size at which the log is put aside when containerd is started; one old file is kept.
pub const LOG_BYTES_MAX: u64 = 32 << 20;

/// Everything needed to run containerd. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Config {
    /// The program; its folder is put first in the search path, so that its shim goes with it.
    pub program: PathBuf,
    /// `containerd.json`, `config.toml` and the log live here, beside root and state.
    pub folder: PathBuf,
    /// The output of containerd.
    pub log: PathBuf,
    /// The last part of the cgroup containerd is moved to; unique per instance of ours on one machine.
    pub cgroup: String,
    pub settings: Settings,
}

// === impl Config ===

impl Config {
    /// The usual layout under `folder`, the program found in the search path.
    pub fn new(folder: &Path, instance: &str, sandbox_image: &str) -> Config {
        let program = find_program("containerd").unwrap_or_else(|| PathBuf::from("containerd"));
        Config {
            program,
            folder: folder.to_path_buf(),
            log: folder.join("containerd.log"),
            cgroup: format!("{instance}-containerd"),
            settings: Settings::new(folder, sandbox_image),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.settings.socket()
    }

    pub(crate) fn settings_file(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    pub(crate) fn record_file(&self) -> PathBuf {
        self.folder.join("containerd.json")
    }
}

/// Finds a program in the search path and in the folders that services often lack in theirs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let folders = std::env::split_paths(&path).chain(usual.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}
