//! The one place that runs `nft`: a transaction comes as text on its standard input.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::sys;

/// Longest run of one transaction.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(60);
const MESSAGE_BYTES_MAX: usize = 2000;
/// Everything, without what packets change.
const LIST: [&str; 3] = ["-s", "list", "ruleset"];

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("run nft; is the package nftables installed?")]
    Run(#[source] io::Error),
    #[error("nft refused the rules: {message}")]
    Refused { message: String },
    #[error("nft did not finish within {APPLY_TIMEOUT:?}")]
    Slow,
}

/// Applies a text: all of it or nothing.
pub async fn apply(text: &str) -> Result<(), NftError> {
    let mut command = Command::new(program());
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.env("LC_ALL", "C").spawn().map_err(NftError::Run)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let run = async {
        // It reads to the end before it says anything; a failure shows in its exit.
        let _ = stdin.write_all(text.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(APPLY_TIMEOUT, run).await.map_err(|_| NftError::Slow)?.map_err(NftError::Run)?;
    said(output).map(drop)
}

/// All rules of this machine, as the kernel words them.
pub async fn list() -> Result<String, NftError> {
    let mut command = Command::new(program());
    command.args(LIST).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(APPLY_TIMEOUT, command.output()).await;
    said(output.map_err(|_| NftError::Slow)?.map_err(NftError::Run)?)
}

/// How the kernel words these rules. It is asked in a network that is made for the question and holds nothing else.
pub async fn reworded(text: String) -> Result<String, NftError> {
    let ask = move || {
        let mut command = std::process::Command::new(program());
        let child = command.args(["-f", "-"]).env("LC_ALL", "C").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(NftError::Run)?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // As above: a failure shows in its exit.
        let _ = stdin.write_all(text.as_bytes());
        drop(stdin);
        said(child.wait_with_output().map_err(NftError::Run)?)?;
        let listed = std::process::Command::new(program()).args(LIST).env("LC_ALL", "C").output();
        said(listed.map_err(NftError::Run)?)
    };
    let asked = tokio::task::spawn_blocking(|| sys::in_new_network(ask)).await;
    asked.map_err(io::Error::other).flatten().map_err(NftError::Run)?
}

/// What it printed, where it succeeded.
fn said(output: Output) -> Result<String, NftError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(MESSAGE_BYTES_MAX).collect();
    Err(NftError::Refused { message })
}

/// True where the table is there.
pub async fn exists(table: &str) -> Result<bool, NftError> {
    match apply(&format!("list chains inet\nlist table inet {table}\n")).await {
        Ok(()) => Ok(true),
        Err(NftError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a table; absent is done.
pub async fn remove(table: &str) -> Result<(), NftError> {
    apply(&format!("add table inet {table}\ndelete table inet {table}\n")).await
}

/// Services often run with a search path that lacks the folder of administrators' programs.
fn program() -> PathBuf {
    let usual = ["/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft"];
    usual.iter().map(PathBuf::from).find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("nft"))
}
