//! `evenkeel keeper-watch`: the old program looks on while another one is on trial in its place.
//!
//! It knows nothing of clusters. A trial that is still open when its time is over has failed, whatever the reason: it is
//! given up, what runs is ended, and the installed program starts again. Where no service manager starts a program that
//! ended, this process does, for as long as the trial lasts; the installed program counts its starts.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use base::Clock;
use rustix::process::{Pid, Signal, kill_process, setsid, test_kill_process};
use tokio::time::Instant;
use tracing::{info, warn};

use super::gates::told;
use super::{Home, Trial, program};
use crate::layout::Layout;
use crate::wire::{SystemClock, pid};

const LOOK: Duration = Duration::from_millis(200);
/// A service manager of any kind has started it again by then.
const GONE_MAX: Duration = Duration::from_secs(4);
/// What drains has this long.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// systemd sets it for what it starts, and starts it again.
const SERVICE_VARIABLE: &str = "INVOCATION_ID";

/// `arguments`: of the program that is looked at.
pub async fn run(layout: Layout, detached: bool, arguments: Vec<OsString>) -> Result<()> {
    if !detached {
        return detach(&layout, &arguments);
    }
    // Only its own end ends it.
    setsid().context("a session of its own")?;
    let home = Home::new(&layout);
    let folder = home.folder.join("watch");
    let _lock = match store::DataLock::acquire(&folder) {
        Ok(lock) => lock,
        Err(store::LockError::Held { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let Some(trial) = home.trial()? else { return Ok(()) };
    let managed = std::env::var_os(SERVICE_VARIABLE).is_some();
    let start = || if managed { Ok(()) } else { start(&trial, &arguments) };
    let mut gone = None;
    while is_open(&home, &trial)? {
        tokio::time::sleep(LOOK).await;
        if trial.until <= SystemClock.now() {
            let why = "it was not well when its time was over";
            warn!(to = %told(&trial.to), why, "back to the installed program");
            trial.give_up(&home, why)?;
            end(&layout).await?;
            return start();
        }
        gone = match pid::running(&layout) {
            Some(_) => None,
            None => gone.or(Some(Instant::now())),
        };
        if gone.is_some_and(|since: Instant| GONE_MAX <= since.elapsed()) {
            start()?;
            gone = None;
        }
    }
    Ok(())
}

fn is_open(home: &Home, trial: &Trial) -> Result<bool> {
    Ok(home.trial()?.is_some_and(|open| open.attempt == trial.attempt && open.to == trial.to))
}

/// As a service manager would; it becomes the program on trial itself, where that is still to be tried.
fn start(trial: &Trial, arguments: &[OsString]) -> Result<()> {
    info!(program = %trial.installed.display(), "starting it again");
    let mut command = Command::new(&trial.installed);
    command.args(arguments).stdin(Stdio::null());
    command.spawn().with_context(|| format!("start {}", trial.installed.display())).map(drop)
}

/// Starts this again as nobody's child: who is looked at becomes another program, which would not wait for it.
fn detach(layout: &Layout, arguments: &[OsString]) -> Result<()> {
    let mut command = Command::new(program::path()?);
    command.args(["keeper-watch", "--detached", "--data-dir"]).arg(&layout.data).arg("--").args(arguments);
    command.stdin(Stdio::null()).spawn().context("look on").map(drop)
}

/// Ends what runs, with time to drain.
async fn end(layout: &Layout) -> Result<()> {
    let Some(running) = pid::running(layout) else { return Ok(()) };
    let target = i32::try_from(running).ok().and_then(Pid::from_raw).context("a process id")?;
    kill_process(target, Signal::TERM).context("signal the program on trial")?;
    let gone = async {
        while pid::running(layout) == Some(running) && test_kill_process(target).is_ok() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(END_TIMEOUT, gone).await.is_err() {
        kill_process(target, Signal::KILL).context("kill the program on trial")?;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
