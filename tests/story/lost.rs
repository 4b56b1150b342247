//! A host loses its power under load; then another machine takes its place.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{eventually, printed};

use crate::card::Card;
use crate::world::World;

/// How long clients may see errors when a host dies.
const ERRORS_S: f64 = 10.0;
/// From the command until the new machine is verified.
const REPLACE_S: f64 = 120.0;
/// Longer than the node lifecycle takes: it must do no harm either.
const AFTERWARDS: Duration = Duration::from_secs(75);
const CALM_BOUND: Duration = Duration::from_secs(180);
const BOUND: Duration = Duration::from_secs(120);

/// The power of a host is cut that runs neither database.
pub fn dies(world: &mut World) -> anyhow::Result<Card> {
    let mut card = Card::new("dies");
    world.calm()?;
    let begin = vanish(world)?;
    world.judge.is_well(AFTERWARDS, CALM_BOUND)?;
    let tally = world.judge.since(begin);
    card.at_most("http_errors_s", tally.errors_until.as_secs_f64(), ERRORS_S);
    card.note("http_requests_failed", tally.failed as f64);
    card.note("rows_stored", tally.stored as f64);
    if let Some(last) = tally.last {
        eprintln!("   the last error: {last}");
    }
    card.note("rows_verified", world.judge.verify()? as f64);
    Ok(card)
}

fn vanish(world: &mut World) -> anyhow::Result<Instant> {
    let kubectl = world.rack.servers[0].kubectl();
    let busy = [world.server_of(&kubectl, "postgres-0")?, world.server_of(&kubectl, "postgres-standby-0")?];
    let idle = (0..world.rack.servers.len()).find(|server| !busy.contains(server));
    let victim = idle.ok_or_else(|| anyhow::anyhow!("the databases are on {busy:?}"))?;
    eprintln!("   the power of {} is cut", world.rack.servers[victim].host.name);
    world.dead = Some(victim);
    world.vanish(&[victim])
}

/// A blank machine takes the place of the dead one, by the command that `replace` prints.
pub fn replaced(world: &mut World) -> anyhow::Result<Card> {
    let mut card = Card::new("replace");
    if world.dead.is_none() {
        vanish(world)?;
    }
    let Some(dead) = world.dead.take() else { anyhow::bail!("nobody is dead") };
    let through = (dead + 1) % world.rack.servers.len();
    let words = format!("replace {}", world.rack.servers[dead].host.name);
    world.rack.serves(through, 2)?;
    eventually("the margin is gone", BOUND, || {
        let dry = world.rack.servers[through].succeeds(&format!("{words} --dry-run"))?;
        ensure!(dry.contains("2 of 3 servers are there, 0 more"), "{dry}");
        Ok(())
    })?;
    let begin = Instant::now();
    let said = world.rack.servers[through].succeeds(&format!("{words} --no-wait"))?;
    let command = printed(&said, "server")?;
    let arguments = command.split_whitespace().skip(1).map(str::to_owned).collect();
    world.rack.servers[dead].start_blank(arguments)?;
    let told = world.rack.servers[through].succeeds(&format!("{words} --timeout=5m"))?;
    eprint!("{told}");
    card.at_most("replace_s", begin.elapsed().as_secs_f64(), REPLACE_S);
    world.is_whole(through)?;
    card.note("whole_s", begin.elapsed().as_secs_f64());
    let tally = world.judge.since(begin);
    card.at_most("http_requests_failed", tally.failed as f64, 0.0);
    if let Some(last) = tally.last {
        eprintln!("   the last error: {last}");
    }
    card.note("rows_verified", world.judge.verify()? as f64);
    Ok(card)
}
