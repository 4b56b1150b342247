//! The one place that runs `nft`: a transaction comes as text on its standard input.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longest run of one transaction.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(60);
const MESSAGE_BYTES_MAX: usize = 2000;

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
    if output.status.success() {
        return Ok(());
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
