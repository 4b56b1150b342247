//! The simulation: many seeds of the whole control plane in one thread, built so that a seed says everything.

use std::process::Command;

use crate::process::{cargo, succeed};

/// A build folder of its own: the flag would rebuild everything else.
const TARGET: &str = "target/sim";

/// Runs `seeds` seeds from `from` on; fails when one of them broke a promise.
pub fn run(seeds: u64, from: u64) -> anyhow::Result<()> {
    let mut build = Command::new(cargo());
    build.args(["build", "--locked", "--profile", "sim", "--package", "sim", "--target-dir", TARGET]);
    // The order in which tasks are woken is drawn from the seed only with it.
    succeed(build.env("RUSTFLAGS", "--cfg tokio_unstable"))?;
    let mut program = Command::new(format!("{TARGET}/sim/sim"));
    succeed(program.args(["--seeds", &seeds.to_string(), "--from", &from.to_string()]))
}
