//! The first thing a server or agent does: become the program on trial, where one is.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use base::{Chain, Clock};
use tracing::{error, info, warn};

use super::gates::told;
use super::trial::{Choice, on_trial};
use super::{Home, Trial, program};
use crate::layout::Layout;
use crate::wire::SystemClock;
use crate::wire::restart::Restart;

/// Returns in the program that is to run. A trial that cannot be read is no trial.
pub fn choose(layout: &Layout) -> Result<()> {
    let home = Home::new(layout);
    let trial = match home.trial() {
        Ok(Some(trial)) => trial,
        Ok(None) => return Ok(()),
        Err(failure) => {
            error!(error = %Chain(failure.as_ref()), "the open trial is given up");
            return home.end_trial();
        }
    };
    match trial.choose(on_trial(), SystemClock.now()) {
        Choice::Stay => Ok(()),
        Choice::GiveUp { why } => {
            warn!(to = %told(&trial.to), %why, "back to the installed program");
            trial.give_up(&home, &why)
        }
        Choice::Try { starts } => {
            let counted = Trial { starts, ..trial };
            home.set_trial(&counted)?;
            become_it(layout, &home, &counted)
        }
    }
}

/// The last thing a process does that was asked to make room: its work is drained. Returns only where nothing can be run.
pub fn leave(layout: &Layout, restart: &Restart) -> Result<()> {
    let home = Home::new(layout);
    if let Some(trial) = home.trial()?.filter(|trial| !trial.is_this()) {
        become_it(layout, &home, &trial)?;
    }
    Err(restart.execute()).context("start again")
}

/// Becomes the program on trial, under the eyes of the old one. Where it cannot be run, goes on as what is installed.
fn become_it(layout: &Layout, home: &Home, trial: &Trial) -> Result<()> {
    info!(to = %told(&trial.to), start = trial.starts, "on trial");
    if let Err(failure) = watched(layout, trial) {
        trial.give_up(home, &format!("nobody would look on: {failure:#}"))?;
        return Ok(());
    }
    let failure = exec(trial);
    trial.give_up(home, &format!("it cannot be run: {failure}"))
}

/// Does not return where the program can be run.
fn exec(trial: &Trial) -> io::Error {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(&trial.program);
    let (variable, value) = trial.mark();
    command.env(variable, value);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).exec()
}

/// Starts the process that looks on: the previous program, which detaches itself.
fn watched(layout: &Layout, trial: &Trial) -> Result<()> {
    let previous: &Path = if trial.previous.exists() { &trial.previous } else { &program::path()? };
    let mut command = Command::new(previous);
    command.arg("keeper-watch").arg("--data-dir").arg(&layout.data).arg("--");
    let status = command.args(std::env::args_os().skip(1)).stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("run {}", previous.display()))?;
    anyhow::ensure!(status.success(), "{} ended with {status}", previous.display());
    Ok(())
}
