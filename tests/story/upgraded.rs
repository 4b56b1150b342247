//! All three servers are brought to a newer build, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::Tool;

use crate::card::Card;
use crate::world::World;

/// How long each node is looked at before the next one; people take minutes.
const BAKE: &str = "2s";
const BAKES: Duration = Duration::from_secs(3 * 2);
/// Of the whole run, apart from that.
const ACTIVE_S: f64 = 120.0;

pub fn there_and_back(world: &mut World) -> anyhow::Result<Card> {
    let mut card = Card::new("upgrade");
    world.calm()?;
    let newer = newer(world)?;
    let begin = Instant::now();
    let said = world.rack.servers[0].succeeds(&format!("upgrade --yes --bake={BAKE} --to={}", newer.display()))?;
    ensure!(said.contains("finished"), "{said}");
    card.at_most("upgrade_s", begin.elapsed().saturating_sub(BAKES).as_secs_f64(), ACTIVE_S);
    for server in &world.rack.servers {
        ensure!(fs::read(&server.binary)? == fs::read(&newer)?, "{} runs the old program", server.host.name);
    }
    let again = Instant::now();
    world.rack.servers[0].succeeds(&format!("back --yes --bake={BAKE}"))?;
    card.at_most("back_s", again.elapsed().saturating_sub(BAKES).as_secs_f64(), ACTIVE_S);
    world.is_whole(0)?;
    let tally = world.judge.since(begin);
    card.at_most("http_requests_failed", tally.failed as f64, 0.0);
    if let Some(last) = tally.last {
        eprintln!("   the last error: {last}");
    }
    card.note("rows_verified", world.judge.verify()? as f64);
    Ok(card)
}

/// Another build of the same version: the same program with another content.
fn newer(world: &World) -> anyhow::Result<PathBuf> {
    let path = Path::new(&world.rack.servers[0].data).join("newer");
    let mut program = fs::read(&world.rack.servers[0].binary)?;
    program.extend_from_slice(b"newer");
    fs::write(&path, program)?;
    Tool::new("chmod").ok(&format!("755 {}", path.display()))?;
    Ok(path)
}
