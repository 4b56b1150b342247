//! The performance figures: builds for release, then lets a process of its own put the load on.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::process::{cargo, run};
use crate::{host, images, tools};

/// Prints one JSON object with the figures; progress goes to standard error.
pub fn bench() -> anyhow::Result<()> {
    host::require(&[&host::NODE_PACKAGES[..], &host::BUILD_PACKAGES].concat())?;
    tools::all()?;
    images::build()?;
    run(&cargo(), &["build", "--locked", "--release", "--package", "evenkeel", "--package", "e2e", "--bins"])?;
    let binary = std::env::current_dir()?.join("target/release/evenkeel");
    let mut command = Command::new("target/release/bench");
    command.env("EVENKEEL_BIN", binary).stdin(Stdio::null());
    let status = command.status().context("start the load")?;
    if !status.success() {
        bail!("the load ended with {status}");
    }
    Ok(())
}
