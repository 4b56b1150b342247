//! A program of Debian's that a case runs on a simulated host: started, killed, started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Host, eventually};

/// It goes with its host.
pub struct Daemon<'a> {
    host: &'a Host,
    line: String,
    folder: PathBuf,
    child: Option<Child>,
}

impl<'a> Daemon<'a> {
    /// Starts a command line; its output goes to `NAME.log` in the folder.
    pub fn start(host: &'a Host, folder: &Path, name: &str, line: &str) -> anyhow::Result<Daemon<'a>> {
        fs::create_dir_all(folder)?;
        let folder = folder.join(name);
        let mut daemon = Daemon { host, line: line.to_owned(), folder, child: None };
        daemon.again()?;
        Ok(daemon)
    }

    pub fn again(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.line);
        let base = self.folder.display();
        // Outside the namespace its id would be another.
        let line = format!("echo $$ > {base}.pid; exec {} >> {base}.log 2>&1", self.line);
        self.child = Some(self.host.tool("sh")?.spawn_with(&["-c", &line])?);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        let pid = fs::read_to_string(format!("{}.pid", self.folder.display()))?;
        self.host.tool("kill")?.ok(&format!("-9 {}", pid.trim()))?;
        child.wait().map(drop).context("wait for its end")
    }

    /// Waits until a port of the host takes connections.
    pub fn listens(&self, port: u16) -> anyhow::Result<()> {
        let address = format!("{}:{port}", self.host.address);
        let what = format!("{address} takes connections");
        let log = || fs::read_to_string(format!("{}.log", self.folder.display())).unwrap_or_default();
        eventually(&what, Duration::from_secs(30), || Ok(std::net::TcpStream::connect(&address).map(drop)?))
            .with_context(log)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.kill()
        {
            eprintln!("{error:#}");
        }
    }
}
