//! Clocks. A simulated host shares its clock with the others; the agent's program is shown another one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use e2e::Agent;

use crate::Fault;
use crate::world::{AT_ONCE, At, WELL, World};

pub const FAULTS: [Fault; 2] =
    [Fault { numbers: &[24], name: "clock_skew", run: skew }, Fault { numbers: &[25], name: "clock_jump", run: jump }];

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Where the offset of the agent's clock is read from.
fn offset(data: &Path) -> PathBuf {
    data.join("clock-offset")
}

/// Has the agent's program look at a clock that can be set.
pub fn make_fakeable(agent: &mut Agent) -> anyhow::Result<()> {
    fs::write(offset(&agent.data), "+0")?;
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let library = folders.iter().map(|folder| Path::new(folder).join(LIBRARY)).find(|path| path.exists());
    let library = library.context("there is no libfaketime: apt-get install faketime")?;
    let environment = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", offset(&agent.data).display()),
        "FAKETIME_CACHE_DURATION=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    agent.command.splice(0..0, environment);
    Ok(())
}

pub fn set_right(world: &World) -> anyhow::Result<()> {
    fs::write(offset(&world.data(At::Agent)), "+0").context("set the agent's clock")
}

fn skew(world: &mut World) -> anyhow::Result<()> {
    fs::write(offset(&world.data(At::Agent)), "+3")?;
    let cause = world.says(At::Server(1), "CLOCK_SKEW", AT_ONCE)?;
    ensure!(cause.on == At::Agent);
    world.follow(&cause)?;
    world.is_well(WELL)
}

fn jump(world: &mut World) -> anyhow::Result<()> {
    fs::write(offset(&world.data(At::Agent)), "+7h")?;
    let cause = world.says(At::Server(1), "CLOCK_JUMP", AT_ONCE)?;
    ensure!(cause.on == At::Agent);
    world.follow(&cause)?;
    world.is_well(WELL)
}
