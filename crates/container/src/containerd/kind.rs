//! What is particular about containerd as a child: its settings file, who serves its socket, and when it answers.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;

use super::{Config, SOCKET_PATH_BYTES_MAX, Version, VersionError};
use crate::child::{Kind, Known, Spec, StopError, stop as stop_child};
use crate::cri::Cri;

const NAME: &str = "containerd";
const PROBE_INTERVAL: Duration = Duration::from_millis(25);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What keeps containerd from being started at all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("ask containerd for its version")]
    Version(#[from] VersionError),
    #[error("socket path {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes; choose a shorter data folder")]
    LongSocket { path: PathBuf },
}

// === impl Config ===

impl Kind for Config {
    fn name(&self) -> &'static str {
        NAME
    }

    fn record(&self) -> PathBuf {
        self.record_file()
    }

    async fn wanted(&self) -> Result<Spec, Box<dyn Error + Send + Sync>> {
        Ok(self.spec().await?)
    }

    /// Whoever serves the socket.
    async fn stray(&self) -> Option<u32> {
        let stream = UnixStream::connect(self.socket()).await.ok()?;
        stream.peer_cred().ok()?.pid().and_then(|pid| u32::try_from(pid).ok())
    }

    /// Waits for the first CRI answer.
    async fn ready(&self, _: &Known, _: Option<&Known>) {
        let cri = Cri::connect(self.socket());
        while !tokio::time::timeout(PROBE_TIMEOUT, cri.version()).await.is_ok_and(|reply| reply.is_ok()) {
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }
}

impl Config {
    pub(super) async fn spec(&self) -> Result<Spec, ConfigError> {
        let socket = self.socket();
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(ConfigError::LongSocket { path: socket });
        }
        let text = self.settings.render(Version::of(&self.program).await?);
        let settings = &self.settings;
        let folders = [&self.folder, &settings.root, &settings.state, &settings.cni_networks, &settings.registry_hosts];
        Ok(Spec {
            program: self.program.clone(),
            arguments: vec!["--config".into(), self.settings_file().into()],
            folders: folders.map(Clone::clone).to_vec(),
            // The file may hold registry passwords.
            files: vec![(self.settings_file(), text)],
            edition: String::new(),
            log: self.log.clone(),
            cgroup: self.cgroup.clone(),
        })
    }
}

/// Stops containerd if it runs; containers go on without it. True where there was one to stop.
pub async fn stop(config: &Config) -> Result<bool, StopError> {
    stop_child(NAME, &config.record_file(), config.stray()).await
}
