//! A proof from outside: a process of its own restores the bundle, and says what it found.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::Clock;
use keeper::backup::{Check, Evidence, Outcome};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::wire::SystemClock;

/// A restore that takes longer is none that anybody waits for.
const PROOF_TIMEOUT: Duration = Duration::from_secs(900);
/// Of what a process that failed had to say, the end.
const SAID_BYTES_MAX: usize = 2000;

/// What the process found.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub checks: Vec<Check>,
    pub packets: Option<u64>,
    pub not_covered: Vec<String>,
}

/// What is proven, where, and for whom.
pub struct Proof<'a> {
    pub bundle: &'a Path,
    /// How the bundle is called where it came from.
    pub name: String,
    /// File with the secret that opens it.
    pub secret: &'a Path,
    /// Folder that is made for it and removed.
    pub scratch: PathBuf,
    pub by: String,
}

// === impl Proof ===

impl Proof<'_> {
    /// Runs it to its end. A proof that could not be tried is one that failed, with the reason as its only check.
    pub async fn run(self) -> Result<Evidence> {
        let at = SystemClock.now();
        empty(&self.scratch)?;
        let reported = tokio::time::timeout(PROOF_TIMEOUT, self.report()).await;
        fs::remove_dir_all(&self.scratch).with_context(|| format!("remove {}", self.scratch.display()))?;
        let reported = reported.unwrap_or_else(|_| bail!("it took longer than {} s", PROOF_TIMEOUT.as_secs()));
        let millis = u64::try_from(SystemClock.now().duration_since(at).as_millis()).unwrap_or_default();
        let report = reported.unwrap_or_else(|failure| Report {
            checks: vec![Check {
                name: "scratch".to_owned(),
                outcome: Outcome::Failed,
                said: format!("{failure:#}"),
                millis,
            }],
            packets: None,
            not_covered: Vec::new(),
        });
        let passed = report.checks.iter().all(|check| check.outcome != Outcome::Failed);
        let Report { checks, packets, not_covered } = report;
        Ok(Evidence { at, by: self.by, bundle: self.name, passed, millis, checks, packets, not_covered })
    }

    async fn report(&self) -> Result<Report> {
        // The program as it runs, also after its file was replaced.
        let mut command = Command::new("/proc/self/exe");
        command.arg("scratch").arg("--bundle").arg(self.bundle).arg("--secret-file").arg(self.secret);
        command.arg("--folder").arg(&self.scratch).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = command.output().await.context("start the scratch control plane")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let start = said.len().saturating_sub(SAID_BYTES_MAX);
        let tail = said.get(start..).unwrap_or_default().trim();
        ensure!(output.status.success(), "the scratch control plane ended with {}: {tail}", output.status);
        serde_json::from_slice(&output.stdout).context("read what the scratch control plane reported")
    }
}

/// An empty folder for nobody else's eyes, whatever a proof that was cut short has left there.
pub fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make {}", folder.display()))
}
