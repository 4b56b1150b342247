//! Two hosts are lost for good, the one with the second database among them: the survivor goes on alone, then two new
//! machines join it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{eventually, printed, saas};

use crate::card::Card;
use crate::world::World;

const BOUND: Duration = Duration::from_secs(120);
const WRITES_BOUND: Duration = Duration::from_secs(240);
/// What a person does about a second database that does not come back: commits wait for it no longer.
const ALONE: &str = "ALTER SYSTEM RESET synchronous_standby_names;\nSELECT pg_reload_conf();\n";

pub fn recovered(world: &mut World) -> anyhow::Result<Card> {
    let mut card = Card::new("quorum");
    world.calm()?;
    let survivor = world.server_of(&world.rack.servers[0].kubectl(), "postgres-0")?;
    let lost: Vec<usize> = (0..world.rack.servers.len()).filter(|server| *server != survivor).collect();
    eprintln!("   only {} is left", world.rack.servers[survivor].host.name);
    let begin = world.vanish(&lost)?;
    let said = eventually("the loss is seen", BOUND, || {
        let said = world.rack.servers[survivor].call("recover quorum")?;
        ensure!(said.code == 2, "{said:?}");
        Ok(said.stdout)
    })?;
    card.note("assessed_s", begin.elapsed().as_secs_f64());
    world.rack.servers[survivor].succeeds(&printed(&said, "recover quorum")?)?;
    card.note("api_back_s", begin.elapsed().as_secs_f64());
    let kubectl = world.rack.servers[survivor].kubectl();
    eventually("the database's pod is reached", BOUND, || saas::sql(&kubectl, "postgres-0", "postgres", ALONE))?;
    let asked = Instant::now();
    eventually("rows are stored again", WRITES_BOUND, || {
        ensure!(world.judge.since(asked).stored > 0, "none yet");
        Ok(())
    })?;
    card.note("first_row_s", begin.elapsed().as_secs_f64());
    world.judge.is_well(Duration::from_secs(5), WRITES_BOUND)?;
    let tally = world.judge.since(begin);
    card.note("http_errors_s", tally.errors_until.as_secs_f64());
    card.note("rows_verified_alone", world.judge.verify()? as f64);
    joined(world, survivor, &lost)?;
    card.note("whole_s", begin.elapsed().as_secs_f64());
    card.note("rows_verified", world.judge.verify()? as f64);
    Ok(card)
}

fn joined(world: &mut World, survivor: usize, lost: &[usize]) -> anyhow::Result<()> {
    let arguments = world.rack.servers[survivor].joining()?;
    for server in lost {
        eprintln!("   a new machine joins as {}", world.rack.servers[*server].host.name);
        world.rack.servers[*server].start_blank(arguments.clone())?;
    }
    world.is_whole(survivor)
}
