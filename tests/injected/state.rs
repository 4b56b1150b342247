//! The state: its copies, its leader, its room, its backups.

use std::fs;

use anyhow::{Context, ensure};
use e2e::{Tool, eventually};
use serde_json::json;

use crate::Fault;
use crate::world::{AT_ONCE, At, BACKUPS, NOTICED, PASSED, WELL, World};

pub const FAULTS: [Fault; 7] = [
    Fault { numbers: &[30], name: "quorum_at_risk", run: at_risk },
    Fault { numbers: &[31], name: "servers_stopped", run: stopped },
    Fault { numbers: &[35], name: "leader_flaps", run: leaders },
    Fault { numbers: &[32], name: "store_full", run: full },
    Fault { numbers: &[36], name: "backup_failed", run: backup },
    Fault { numbers: &[37], name: "backup_unrestorable", run: unrestorable },
    Fault { numbers: &[38], name: "bundle_too_new", run: too_new },
];

const HERE: At = At::Server(0);
const THERE: At = At::Server(1);
/// Objects of this size fill the database: so many not yet, so many surely.
const FILLER_BYTES: usize = 900_000;
const FILLERS_MIN: usize = 58;
const FILLERS_MAX: usize = 72;

/// One copy is killed and kept from being started again by what lies in its place; its machine is well.
fn at_risk(world: &mut World) -> anyhow::Result<()> {
    let program = world.ok(THERE, "which etcd")?.trim().to_owned();
    world.ok(THERE, &format!("mount --bind /bin/false {program}"))?;
    let pid = world.ok(THERE, "pgrep -x etcd")?;
    world.ok(THERE, &format!("kill -9 {}", pid.trim()))?;
    let cause = world.says(HERE, "QUORUM_AT_RISK", NOTICED);
    world.ok(THERE, &format!("umount {program}"))?;
    world.follow(&cause?)?;
    world.is_well(WELL)
}

/// Two of three stop, and their machines are alive: seen from the third, and from the agent.
fn stopped(world: &mut World) -> anyhow::Result<()> {
    for at in [THERE, At::Server(2)] {
        let stop = format!("evenkeel stop --pods --data-dir={}", world.data(at).display());
        let said = world.run(at, &stop)?;
        ensure!(said.code == Some(0), "{said:?}");
    }
    world.says(HERE, "SERVERS_STOPPED", NOTICED)?;
    let cause = world.says(At::Agent, "SERVERS_STOPPED", AT_ONCE)?;
    world.follow(&cause)?;
    // With two of three back the last one is a machine without its program.
    let cause = world.says(HERE, "AGENT_DEAD", NOTICED)?;
    world.follow(&cause)?;
    world.is_well(WELL)
}

fn leaders(world: &mut World) -> anyhow::Result<()> {
    for server in [0, 1, 2, 0, 1, 2] {
        world.rack.lead(server)?;
    }
    let cause = world.says(HERE, "LEADER_FLAPPING", NOTICED)?;
    world.follow(&cause)?;
    world.is_well(PASSED)
}

/// Some program makes objects without end. Told while they can still be deleted: at the limit nothing can.
fn full(world: &mut World) -> anyhow::Result<()> {
    let kubectl = world.kubectl();
    let file = world.data(HERE).join("filler");
    fs::write(&file, "z".repeat(FILLER_BYTES))?;
    kubectl.ok("create namespace filler")?;
    for number in 0..FILLERS_MAX {
        kubectl.ok(&format!("-n filler create configmap filler-{number} --from-file={}", file.display()))?;
        if FILLERS_MIN <= number && world.wrong(THERE, &[])?.1["cause"]["code"] == "STORE_FULL" {
            break;
        }
    }
    let cause = world.says(THERE, "STORE_FULL", AT_ONCE)?;
    let said = world.follow(&cause)?;
    ensure!(said.out.contains("configmaps"), "{said:?}");
    kubectl.ok("delete namespace filler --wait=false")?;
    fs::remove_file(file)?;
    // Its history goes by itself, in a while.
    eventually("what was deleted is gone", WELL, || {
        kubectl.ok("get namespace filler --ignore-not-found").and_then(|said| {
            ensure!(said.is_empty(), "{said}");
            Ok(())
        })
    })?;
    world.rack.forget_history()?;
    world.is_well(PASSED)
}

/// The second disk that backups go to takes none.
fn backup(world: &mut World) -> anyhow::Result<()> {
    let made = world.run(HERE, "evenkeel backup")?;
    ensure!(made.code == Some(0), "{made:?}");
    for number in 0..3 {
        world.sh(At::Server(number), &format!("mkdir -p {BACKUPS} && mount -t tmpfs -o ro,size=4k none {BACKUPS}"))?;
    }
    let failed = world.run(HERE, "evenkeel backup")?;
    let cause = world.says(THERE, "BACKUP_FAILED", NOTICED);
    for number in 0..3 {
        world.ok(At::Server(number), &format!("umount {BACKUPS}"))?;
    }
    let said = world.follow(&cause?)?;
    ensure!(said.code == Some(0) && failed.code != Some(1), "{failed:?}, then {said:?}");
    world.is_well(WELL)
}

/// The newest bundle was changed where it lies.
fn unrestorable(world: &mut World) -> anyhow::Result<()> {
    let made = world.run(HERE, "evenkeel backup")?;
    ensure!(made.code == Some(0), "{made:?}");
    // In the middle of each, wherever it lies.
    let damage = "for file in DATA/backups/* BACKUPS/*; do test -f $file || continue; size=$(stat -c %s $file); \
                  dd if=/dev/zero of=$file bs=1 count=64 seek=$((size / 2)) conv=notrunc 2>/dev/null; done";
    for number in 0..3 {
        let at = At::Server(number);
        let data = world.data(at).display().to_string();
        world.sh(at, &damage.replace("DATA", &data).replace("BACKUPS", BACKUPS))?;
    }
    let proven = world.run(HERE, "evenkeel backup prove")?;
    ensure!(proven.code == Some(1), "{proven:?}");
    let cause = world.says(THERE, "BACKUP_UNRESTORABLE", NOTICED)?;
    let said = world.follow(&cause)?;
    ensure!(said.code == Some(0), "{said:?}");
    world.is_well(WELL)
}

/// Answered where it is refused: nothing else ever learns of it.
fn too_new(world: &mut World) -> anyhow::Result<()> {
    let folder = world.data(HERE).join("too-new");
    fs::create_dir_all(&folder)?;
    let manifest = json!({"format": 1_000_000, "program": "99.0.0"}).to_string();
    fs::write(folder.join("manifest.json"), manifest)?;
    Tool::new("tar").ok(&format!("-C {0} -cf {0}/bundle manifest.json", folder.display()))?;
    let said = world.run(HERE, &format!("evenkeel restore {}/bundle", folder.display()))?;
    fs::remove_dir_all(folder).context("tidy up")?;
    ensure!(said.code == Some(1), "{said:?}");
    for part in ["version 99.0.0 made this bundle", "nothing was touched, take a newer one"] {
        ensure!(said.out.contains(part), "{said:?}");
    }
    Ok(())
}
