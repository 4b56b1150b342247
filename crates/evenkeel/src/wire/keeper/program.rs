//! What a program says of itself, and which one this process is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keeper::{Digest, Release};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// Format of what is stored, as this program writes it. A greater one takes hold when a run is finalised.
pub const LEVEL: u32 = 1;
/// The oldest format that this program reads and writes.
pub const LEVEL_MIN: u32 = 1;
/// A program that does not say what it is within this time is not run.
const ABOUT_TIMEOUT: Duration = Duration::from_secs(30);
const VERSION_BYTES_MAX: usize = 64;

/// `evenkeel version --json`. Fields may be added, none goes: older programs ask newer ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    pub version: String,
    pub kubernetes: String,
    pub level: u32,
    pub level_min: u32,
}

// === impl About ===

impl About {
    pub fn own() -> About {
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes: crate::KUBERNETES_VERSION.to_owned(),
            level: LEVEL,
            level_min: LEVEL_MIN,
        }
    }

    /// Runs a program to hear what it is: one that cannot say so would not do its work either.
    pub async fn of(program: &Path) -> Result<About> {
        let mut command = Command::new(program);
        command.args(["version", "--json"]).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(ABOUT_TIMEOUT, command.output()).await;
        let output = output.context("it does not answer when it is asked for its version")?;
        let output = output.context("it cannot be run on this machine")?;
        ensure!(output.status.success(), "asked for its version it ended with {}", output.status);
        let about: About =
            serde_json::from_slice(&output.stdout).context("asked for its version it said no version")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
        let named = !about.version.is_empty() && about.version.len() <= VERSION_BYTES_MAX;
        ensure!(named && about.version.bytes().all(plain), "{:?} is no version", about.version);
        Ok(about)
    }
}

/// The file this process runs from.
pub fn path() -> Result<PathBuf> {
    std::env::current_exe().context("find this program")
}

/// What runs here. Reads the whole program once.
pub async fn own() -> Result<Release> {
    // Also where the file was replaced since.
    let read = || Digest::of_reader(File::open("/proc/self/exe")?);
    let program = tokio::task::spawn_blocking(read).await?.context("read this program")?;
    Ok(Release { version: env!("CARGO_PKG_VERSION").into(), program })
}
