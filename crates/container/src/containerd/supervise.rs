//! Keeps containerd running: waits for its end, starts it again with growing pauses, publishes how it is.

use std::path::PathBuf;
use std::time::Duration;

use base::Chain;
use tokio::sync::watch;
use tokio::time::Instant;

use super::process::{self, Running, StartError};
use super::{Config, find_program};
use crate::cri::Cri;
use crate::images::Importer;

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A run of this length shows that the last trouble is over.
const STEADY: Duration = Duration::from_secs(60);

/// How containerd is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Running { pid: u32, adopted: bool, restarts: u32 },
    Down { error: String, retry_in: Duration },
}

/// The one owner of a containerd process.
#[derive(Debug)]
pub struct Containerd {
    config: Config,
    running: Option<Running>,
    restarts: u32,
    status: watch::Sender<Status>,
}

// === impl Containerd ===

impl Containerd {
    /// Adopts or starts containerd; returns when it answers.
    pub async fn start(config: Config) -> Result<Containerd, StartError> {
        let running = process::ensure(&config).await?;
        let status = watch::Sender::new(status_of(&running, 0));
        tracing::info!(pid = running.process.identity.pid, adopted = running.adopted, "containerd is ready");
        Ok(Containerd { config, running: Some(running), restarts: 0, status })
    }

    pub fn socket(&self) -> PathBuf {
        self.config.socket()
    }

    pub fn cri(&self) -> Cri {
        Cri::connect(self.socket())
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// What imports image files into this containerd; None where its command line tool is not installed.
    pub fn importer(&self) -> Option<Importer> {
        let beside = self.config.program.with_file_name("ctr");
        let tool = if beside.is_file() { Some(beside) } else { find_program("ctr") }?;
        Some(Importer::new(tool, self.socket(), &self.config.settings.snapshotter))
    }

    /// Restarts containerd whenever it ends. Returns on drain and leaves it running.
    pub async fn run(mut self, drain: impl Future<Output = ()>) {
        let mut drain = std::pin::pin!(drain);
        loop {
            let since = Instant::now();
            tokio::select! { biased;
                () = &mut drain => return,
                () = self.ended() => {}
            }
            if STEADY < since.elapsed() {
                self.restarts = 0;
            }
            tokio::select! { biased;
                () = &mut drain => return,
                () = self.restart() => {}
            }
        }
    }

    async fn ended(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.process.ended().await;
        let exit = running.child.as_mut().and_then(|child| child.wait().ok());
        tracing::warn!(pid = running.process.identity.pid, exit = ?exit, "containerd ended");
    }

    async fn restart(&mut self) {
        loop {
            let pause = pause(self.restarts);
            tokio::time::sleep(pause).await;
            self.restarts = self.restarts.saturating_add(1);
            match process::ensure(&self.config).await {
                Ok(running) => {
                    tracing::info!(pid = running.process.identity.pid, "containerd is back");
                    self.status.send_replace(status_of(&running, self.restarts));
                    self.running = Some(running);
                    return;
                }
                Err(error) => {
                    let error = Chain(&error).to_string();
                    tracing::error!(err = %error, "containerd does not start");
                    let retry_in = self::pause(self.restarts);
                    self.status.send_replace(Status::Down { error, retry_in });
                }
            }
        }
    }
}

fn status_of(running: &Running, restarts: u32) -> Status {
    Status::Running { pid: running.process.identity.pid, adopted: running.adopted, restarts }
}

/// None before the first restart: containers wait for it.
fn pause(restarts: u32) -> Duration {
    match restarts {
        0 => Duration::ZERO,
        more => PAUSE_MIN.saturating_mul(1 << (more - 1).min(10)).min(PAUSE_MAX),
    }
}
