//! An etcd that believes it is its cluster's only member, for a moment and for this process alone: on a copy, to see what
//! would come, or on the member's own data, which makes it true.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::Chain;
use store::etcd::Config;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::wire::etcd::{Settings, program, tls_flags};

/// A large state on a slow disk.
const SERVES_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
const ENDS_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Forced {
    child: Child,
    pub config: Config,
}

// === impl Forced ===

impl Forced {
    /// Starts it on a data folder that no other etcd uses, and waits until it answers.
    pub async fn start(settings: &Settings, data: &Path, log: &Path) -> Result<Forced> {
        // etcd would begin an empty cluster there.
        let wal = data.join("member/wal");
        ensure!(wal.is_dir(), "{} is not there: this is no member's data", wal.display());
        let (client, peer) = (free_port()?, free_port()?);
        let url = |port: u16| format!("https://{}", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let config = settings.reaching(vec![url(client)])?;
        let own = [
            ("name", settings.name.clone()),
            ("data-dir", data.display().to_string()),
            ("force-new-cluster", "true".to_owned()),
            ("listen-client-urls", url(client)),
            ("advertise-client-urls", url(client)),
            ("listen-peer-urls", url(peer)),
            ("logger", "zap".to_owned()),
            ("log-outputs", "stderr".to_owned()),
        ];
        let flags = own.into_iter().chain(tls_flags(&settings.layout.server_tls()));
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new(program()?);
        command.args(flags.map(|(name, value)| format!("--{name}={value}")));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let child = command.spawn().context("start etcd")?;
        let mut forced = Forced { child, config };
        forced.serves().await.with_context(|| format!("its log is {}", log.display()))?;
        Ok(forced)
    }

    async fn serves(&mut self) -> Result<()> {
        let deadline = Instant::now() + SERVES_TIMEOUT;
        loop {
            let Err(failure) = store::etcd::reach(&self.config).await else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!("etcd does not start from this data: it ended with {status}");
            }
            if deadline <= Instant::now() {
                bail!("etcd does not answer within {} s: {}", SERVES_TIMEOUT.as_secs(), Chain(&failure));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it in good order.
    pub async fn end(mut self) -> Result<()> {
        if let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("stop etcd")?;
        }
        if tokio::time::timeout(ENDS_TIMEOUT, self.child.wait()).await.is_err() {
            self.child.kill().await.context("kill etcd")?;
        }
        Ok(())
    }
}

/// A port that is free now. Only this machine's loopback is listened on.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).context("a port")?.port())
}
