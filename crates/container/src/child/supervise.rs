//! Keeps a child running: waits for its end, starts it again with growing pauses, publishes how it is.

use std::path::Path;
use std::time::Duration;

use base::Chain;
use tokio::sync::watch;
use tokio::time::Instant;

use super::process::{self, Running, StartError};
use super::{Kind, Known, LOG_LOOK, SILENCES_MAX};

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest an agent that ends waits for a start that is under way: what the child is only given at the end of it (the
/// sockets of names) would be lost.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// A run of this length shows that the last trouble is over.
const STEADY: Duration = Duration::from_secs(60);

/// How a child is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Running { pid: u32, adopted: bool, restarts: u32 },
    Down { error: String, retry_in: Duration },
}

/// The one owner of a child.
#[derive(Debug)]
pub struct Supervised<K> {
    kind: K,
    running: Option<Running>,
    /// A start was tried: those after it are restarts.
    tried: bool,
    restarts: u32,
    status: watch::Sender<Status>,
}

// === impl Supervised ===

impl<K: Kind> Supervised<K> {
    /// Nothing runs yet: [`Supervised::start`] starts or finds it, or else [`Supervised::run`] does.
    pub fn new(kind: K) -> Supervised<K> {
        let status = Status::Down { error: "not started yet".to_owned(), retry_in: Duration::ZERO };
        Supervised { kind, running: None, tried: false, restarts: 0, status: watch::Sender::new(status) }
    }

    /// Adopts or starts the child; returns when it is well.
    pub async fn start(&mut self) -> Result<(), StartError> {
        self.tried = true;
        let running = process::ensure(&self.kind).await?;
        let pid = running.known.process.identity.pid;
        tracing::info!(pid, adopted = running.adopted, "{} is ready", self.kind.name());
        self.publish(&running);
        self.running = Some(running);
        Ok(())
    }

    pub fn kind(&self) -> &K {
        &self.kind
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Starts the child where it does not run, whenever it ends, and replaces it where that failed before. Returns on
    /// drain and leaves it running; a start that is under way is brought to its end, for a bounded time.
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
                () = tokio::time::sleep(pause(self.restarts)) => {}
            }
            let mut restart = std::pin::pin!(self.restart());
            tokio::select! { biased;
                () = &mut drain => {
                    let _ = tokio::time::timeout(FINISH_TIMEOUT, restart).await;
                    return;
                }
                () = &mut restart => {}
            }
        }
    }

    /// Waits for the end of the child, or for the time to try once more to replace it, or until it was silent for so long
    /// that it is to be found again as by an agent that starts: one that does not get well then is replaced.
    async fn ended(&mut self) {
        let Some(running) = &self.running else { return };
        let again = async {
            match running.outdated {
                true => tokio::time::sleep(PAUSE_MAX).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = running.known.process.ended() => {}
            () = again => return,
            () = self.silent(&running.known) => return,
            () = self.bound_log(&running.log) => {}
        }
        let Some(mut running) = self.running.take() else { return };
        let exit = match &mut running.child {
            Some(child) => child.wait().ok().map(|status| status.to_string()),
            None => running.known.process.reap(),
        };
        tracing::warn!(pid = running.known.process.identity.pid, exit = ?exit, "{} ended", self.kind.name());
    }

    async fn silent(&self, child: &Known) {
        let (name, pid, mut silences) = (self.kind.name(), child.process.identity.pid, 0);
        while silences < SILENCES_MAX {
            tokio::time::sleep(self.kind.ask_every()).await;
            silences = if self.kind.answers(child).await { 0 } else { silences + 1 };
            if 0 < silences {
                tracing::warn!(pid, silences, "{name} does not answer");
            }
        }
    }

    async fn bound_log(&self, log: &Path) {
        loop {
            tokio::time::sleep(LOG_LOOK).await;
            if let Err(error) = process::bound_log(log) {
                tracing::warn!(log = %log.display(), err = %error, "the log of {} grows", self.kind.name());
            }
        }
    }

    async fn restart(&mut self) {
        self.restarts = self.restarts.saturating_add(u32::from(self.tried));
        if let Err(error) = self.start().await {
            let error = Chain(&error).to_string();
            tracing::error!(err = %error, "{} does not start", self.kind.name());
            let retry_in = pause(self.restarts);
            self.status.send_replace(Status::Down { error, retry_in });
        }
    }

    fn publish(&self, running: &Running) {
        let (pid, adopted, restarts) = (running.known.process.identity.pid, running.adopted, self.restarts);
        self.status.send_replace(Status::Running { pid, adopted, restarts });
    }
}

/// None before the first restart: whoever needs the child waits for it.
fn pause(restarts: u32) -> Duration {
    match restarts {
        0 => Duration::ZERO,
        more => PAUSE_MIN.saturating_mul(1 << (more - 1).min(10)).min(PAUSE_MAX),
    }
}
