//! Would a program start with these settings? The program itself is asked, as it would be started: its words, its
//! environment, its configuration files, with the settings over the files.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keeper::Settings;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::cli::{self, Command as Asked};
use crate::wire::agreed::ClusterFlags;

/// The command that a program is asked with.
pub const COMMAND: &str = "keeper-rehearse";
/// A program that does not answer within this time would not start either.
const TIMEOUT: Duration = Duration::from_secs(20);
/// More than the settings of a node may be.
const INPUT_BYTES_MAX: u64 = 1 << 20;
/// What it may say.
const WHY_BYTES_MAX: usize = 1024;

/// Asks the program at this path.
pub async fn ask(program: &Path, settings: &Settings) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(COMMAND).arg("--").args(std::env::args_os().skip(1));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let answered = async {
        let mut child = command.spawn().context("it cannot be run")?;
        let mut input = child.stdin.take().context("it takes no input")?;
        // One that ends without reading says why.
        let _ = input.write_all(&serde_json::to_vec(settings)?).await;
        drop(input);
        Ok::<_, anyhow::Error>(child.wait_with_output().await?)
    };
    let output = tokio::time::timeout(TIMEOUT, answered).await.context("it does not answer when it is asked")??;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(WHY_BYTES_MAX)]).into_owned();
    bail!("{}", said.trim().trim_start_matches("evenkeel: "))
}

/// The answer of this program, on its standard error and by its exit code. `words`: what it would be started with.
pub fn answer(words: &[String]) -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin().take(INPUT_BYTES_MAX).read_to_end(&mut input).context("read the settings")?;
    rehearse(words, &serde_json::from_slice(&input).context("read the settings")?)
}

fn rehearse(words: &[String], settings: &Settings) -> Result<()> {
    match cli::started(words, settings)? {
        Asked::Server(mut args) => match ClusterFlags::noted(&args.common.layout())? {
            Some(flags) => flags.adopt(&mut args),
            None => Ok(()),
        },
        Asked::Agent(_) => Ok(()),
        _ => {
            ensure!(settings.is_empty(), "only a server or an agent has settings");
            Ok(())
        }
    }
}
