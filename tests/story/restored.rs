//! All three hosts are lost with their disks. What is left is the bundle, the recovery kit, and the dump that the
//! application's people made of their database: bundles hold no volumes, and say so.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use e2e::{Tool, eventually, saas};

use crate::card::Card;
use crate::world::World;

const SERVING_S: f64 = 60.0;
const JOINED_S: f64 = 120.0;
const DATABASE_BOUND: Duration = Duration::from_secs(240);
/// Rows of this long are stored after the dump, and lost as declared.
const AFTER: Duration = Duration::from_secs(5);

pub fn from_nothing(world: &mut World) -> anyhow::Result<Card> {
    let mut card = Card::new("restore");
    world.calm()?;
    let kept = keep(world)?;
    let all: Vec<usize> = (0..world.rack.servers.len()).collect();
    world.judge.is_well(AFTER, DATABASE_BOUND)?;
    world.judge.hold();
    let begin = world.vanish(&all)?;
    let first = &mut world.rack.servers[0];
    first.wipe()?;
    first.host.plug()?;
    first.host.power_on()?;
    let (bundle, kit) = (kept.bundle.display(), kept.kit.display());
    let said = first.succeeds(&format!("restore --file={bundle} --secret-file={kit}"))?;
    ensure!(said.contains("not restored: the content of volume"), "it says of volumes: {said}");
    first.start_server()?;
    card.at_most("serving_s", begin.elapsed().as_secs_f64(), SERVING_S);
    let arguments = world.rack.servers[0].joining()?;
    for server in 1..world.rack.servers.len() {
        world.rack.servers[server].start_blank(arguments.clone())?;
    }
    world.rack.serves(0, 3)?;
    card.at_most("joined_s", begin.elapsed().as_secs_f64(), JOINED_S);
    filled(&world.rack.servers[0].kubectl(), &kept.dump)?;
    card.note("database_s", begin.elapsed().as_secs_f64());
    card.note("rows_lost_as_declared", world.judge.restored()? as f64);
    world.judge.go_on();
    world.is_whole(0)?;
    card.note("whole_s", begin.elapsed().as_secs_f64());
    card.note("rows_verified", world.judge.verify()? as f64);
    Ok(card)
}

struct Kept {
    bundle: PathBuf,
    kit: PathBuf,
    dump: String,
}

/// The dump is the declared restore point of rows, the bundle the one of the cluster.
fn keep(world: &World) -> anyhow::Result<Kept> {
    let server = &world.rack.servers[0];
    world.judge.hold();
    let dump = saas::dump(&server.kubectl())?;
    world.judge.declare_restore_point();
    world.judge.go_on();
    let bundle = world.folder.join("bundle");
    server.succeeds(&format!("backup --file={}", bundle.display()))?;
    Ok(Kept { bundle, kit: world.kit.clone(), dump })
}

/// The databases come up empty; the rows of the dump take the place of what is there.
fn filled(kubectl: &Tool, dump: &str) -> anyhow::Result<()> {
    eventually("the application has made its table", DATABASE_BOUND, || {
        saas::sql(kubectl, "postgres-0", "saas", "SELECT count(*) FROM items").map(drop)
    })?;
    saas::sql(kubectl, "postgres-0", "saas", &format!("TRUNCATE items;\n{dump}")).map(drop)
}
