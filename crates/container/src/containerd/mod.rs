//! A containerd of our own: configured, started once, adopted ever after, watched, stopped on request only.
//!
//! Containers outlive the agent, so containerd does too: it is a [`child`](crate::child). Where no record tells of it, the
//! socket does.

mod kind;
mod settings;
mod version;

use std::path::{Path, PathBuf};

use tokio::sync::watch;

pub use kind::{ConfigError, stop};
pub use settings::Settings;
pub(crate) use settings::quote;
pub use version::{Version, VersionError};

use crate::child::{StartError, Status, Supervised};
use crate::cri::Cri;
use crate::images::Importer;

/// Longest path of a Unix socket: `sun_path` less its terminator.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

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

/// The one owner of a containerd process.
#[derive(Debug)]
pub struct Containerd {
    child: Supervised<Config>,
}

// === impl Containerd ===

impl Containerd {
    /// Adopts or starts containerd; returns when it answers.
    pub async fn start(config: Config) -> Result<Containerd, StartError> {
        let mut child = Supervised::new(config);
        child.start().await?;
        Ok(Containerd { child })
    }

    pub fn socket(&self) -> PathBuf {
        self.child.kind().socket()
    }

    pub fn cri(&self) -> Cri {
        Cri::connect(self.socket())
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.child.status()
    }

    /// The files it was started with, as they are written.
    pub async fn files(&self) -> Result<Vec<(PathBuf, String)>, ConfigError> {
        Ok(self.child.kind().spec().await?.files)
    }

    /// What imports image files into this containerd; None where its command line tool is not installed.
    pub fn importer(&self) -> Option<Importer> {
        let config = self.child.kind();
        let beside = config.program.with_file_name("ctr");
        let tool = if beside.is_file() { Some(beside) } else { find_program("ctr") }?;
        Some(Importer::new(tool, self.socket(), &config.settings.snapshotter))
    }

    /// Restarts containerd whenever it ends. Returns on drain and leaves it running.
    pub async fn run(self, drain: impl Future<Output = ()>) {
        self.child.run(drain).await;
    }
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
