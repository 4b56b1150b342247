//! The names of the cluster as a child of the node: a process of its own, so that a name that was known goes on being
//! answered whatever becomes of the agent (docs/adr/0011).
//!
//! The agent binds the sockets, gives them to the process and keeps duplicates. A process that is replaced, or that
//! died, leaves them to the next one, which takes them when it knows all names.

mod process;

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use base::Chain;
use container::child::{self, Kind, Known, Process, Replacement, Spec};
use ipnet::IpNet;
use net::DnsConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

pub use process::run;

use crate::layout::Layout;
use crate::pki;
use crate::wire::endpoints::KnownServers;

const NAME: &str = "names";
/// Longest path of a Unix socket: `sun_path` less its terminator.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// First letters of the files of one edition: settings and control socket.
const EDITION_FILES: &str = "edition-";
/// Digits of an edition: enough to tell the few apart that a node ever sees.
const EDITION_DIGITS: usize = 12;
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Where nobody else serves, questions wait this long for a complete view: less than resolvers give up after. Then names
/// elsewhere are forwarded, and the cluster's own are refused until they are known.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for a process that was found: it serves already and says so at once, also on a busy machine. Longer than it
/// may take to get sockets that the agent before did not live to give.
const FOUND_TIMEOUT: Duration = Duration::from_secs(12);

const _: () = assert!(COMPLETE_TIMEOUT.as_secs() < FOUND_TIMEOUT.as_secs());

/// What the process is told, in a file. No secret is in it: keys are read from their own files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Where it looks for the API.
    pub known: KnownServers,
    /// The folder with the node's client certificate and whom it trusts, followed when they change.
    pub tls: PathBuf,
    pub dns: DnsConfig,
    /// Ranges of pods and Services: questions about their addresses do not leave the node.
    pub ranges: Vec<IpNet>,
}

/// The process that serves names, as this agent wants it.
pub struct Names {
    folder: PathBuf,
    program: PathBuf,
    cgroup: String,
    /// Link of the addresses.
    link: String,
    settings: Settings,
    /// Duplicates of the sockets, so that no end of the process closes them.
    held: Mutex<Vec<OwnedFd>>,
}

/// Stops the process that serves names. True where there was one.
pub async fn stop(layout: &Layout) -> Result<bool> {
    let stopped = child::stop(NAME, &record(&layout.names()), async { None }).await;
    tidy(&layout.names(), None);
    stopped.context("stop the process of names")
}

/// Whether this machine serves names, and the process that does.
pub fn serving(layout: &Layout) -> Option<Option<u32>> {
    let record = record(&layout.names());
    record.exists().then(|| child::running(&record))
}

fn record(folder: &Path) -> PathBuf {
    folder.join("names.json")
}

/// Removes the files of all editions but one.
fn tidy(folder: &Path, edition: Option<&str>) {
    let own = edition.map(|edition| format!("{EDITION_FILES}{edition}."));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(EDITION_FILES) && !own.as_ref().is_some_and(|own| name.starts_with(own)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

// === impl Names ===

impl Names {
    pub fn new(layout: &Layout, network: &net::Config, settings: Settings) -> Names {
        Names {
            folder: layout.names(),
            program: network.program.clone(),
            cgroup: format!("{}-names", network.instance),
            link: network.names_link(),
            settings,
            held: Mutex::new(Vec::new()),
        }
    }

    /// The program as it lies there now, and what it is told.
    fn spec(&self) -> Result<Spec> {
        let text = serde_json::to_string_pretty(&self.settings)?;
        let program = fs::metadata(&self.program).with_context(|| self.program.display().to_string())?;
        let (inode, size, changed) = (program.ino(), program.len(), (program.mtime(), program.mtime_nsec()));
        let whole = format!("{} {inode} {size} {changed:?}\n{text}", self.program.display());
        let edition = pki::sha256_hex(whole.as_bytes())[..EDITION_DIGITS].to_owned();
        let control = self.control(&edition);
        anyhow::ensure!(
            control.as_os_str().len() <= SOCKET_PATH_BYTES_MAX,
            "socket path {} is longer than {SOCKET_PATH_BYTES_MAX} bytes; choose a shorter data folder",
            control.display()
        );
        let settings = control.with_extension("json");
        Ok(Spec {
            program: self.program.clone(),
            arguments: vec![NAME.into(), "--settings".into(), settings.clone().into()],
            folders: vec![self.folder.clone()],
            files: vec![(settings, text)],
            edition,
            log: self.folder.join("names.log"),
            cgroup: self.cgroup.clone(),
        })
    }

    fn control(&self, edition: &str) -> PathBuf {
        self.folder.join(format!("{EDITION_FILES}{edition}.sock"))
    }

    /// The sockets that are bound already, here or in the process before, where they fit; else new ones.
    async fn sockets(&self, held: &mut Vec<OwnedFd>, before: Option<&Known>) -> io::Result<()> {
        if held.is_empty()
            && let Some(before) = before
        {
            *held = net::dns::exchange(&self.control(&before.edition), &[]).await?.sockets;
        }
        if held.is_empty() {
            net::dns::put_addresses(&self.settings.dns, &self.link).await?;
        }
        *held = net::dns::bind(&self.settings.dns, std::mem::take(held))?;
        Ok(())
    }

    /// One look at the process; true when it serves.
    async fn advance(&self, child: &Known, before: Option<&Known>, since: Instant) -> io::Result<bool> {
        let control = self.control(&child.edition);
        let mut held = self.held.lock().await;
        let mut serving = net::dns::exchange(&control, &[]).await?;
        if serving.sockets.is_empty() {
            let before = before.filter(|before| Process::reopen(&before.process.identity).is_some());
            let waited = before.is_none() && COMPLETE_TIMEOUT <= since.elapsed();
            if !serving.complete && !waited {
                return Ok(false);
            }
            self.sockets(&mut held, before).await?;
            serving = net::dns::exchange(&control, &held).await?;
        }
        *held = serving.sockets;
        Ok(!held.is_empty())
    }
}

impl Kind for Names {
    fn name(&self) -> &'static str {
        NAME
    }

    fn record(&self) -> PathBuf {
        record(&self.folder)
    }

    fn replacement(&self) -> Replacement {
        Replacement::Beside
    }

    async fn wanted(&self) -> Result<Spec, Box<dyn Error + Send + Sync>> {
        Ok(self.spec()?)
    }

    fn found_timeout(&self) -> Duration {
        FOUND_TIMEOUT
    }

    async fn answers(&self, child: &Known) -> bool {
        net::dns::exchange(&self.control(&child.edition), &[]).await.is_ok()
    }

    async fn ready(&self, child: &Known, before: Option<&Known>) {
        let since = Instant::now();
        let mut told = false;
        loop {
            match self.advance(child, before, since).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if COMPLETE_TIMEOUT <= since.elapsed() && !told => {
                    told = true;
                    warn!(%error, "names are not served yet");
                }
                Err(error) => debug!(%error, "names are not served yet"),
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        // An adopted process may serve on addresses that were taken away.
        if let Err(error) = net::dns::put_addresses(&self.settings.dns, &self.link).await {
            warn!(error = %Chain(&error), "the addresses of names");
        }
        tidy(&self.folder, Some(&child.edition));
    }
}

#[cfg(test)]
mod tests {
    use super::{KnownServers, Names, Settings};
    use crate::layout::Layout;

    fn names(server: &str, program: &str) -> Names {
        let mut network = net::Config::new("n", "/data/agent".as_ref());
        network.program = program.into();
        let joined = view::Endpoint::parse(server).unwrap();
        let settings = Settings {
            known: KnownServers::new(&Layout::new("/data"), "n", None, Some(&joined)),
            tls: "/data/agent/tls".into(),
            dns: network.dns.clone().unwrap(),
            ranges: network.cluster_cidrs.clone(),
        };
        Names::new(&Layout::new("/data"), &network, settings)
    }

    #[test]
    fn another_program_or_server_is_another_edition() {
        let one = names("https://a:6443", "/bin/sh").spec().unwrap();
        assert_eq!(one.edition, names("https://a:6443", "/bin/sh").spec().unwrap().edition);
        assert_ne!(one.edition, names("https://b:6443", "/bin/sh").spec().unwrap().edition);
        assert_ne!(one.edition, names("https://a:6443", "/bin/cat").spec().unwrap().edition);
        assert!(names("https://a:6443", "/absent").spec().is_err());
    }
}
