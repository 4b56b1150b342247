//! The copies of the state: one that differs, one that is held up by its own clean-up.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::eventually;
use serde_json::{Value, json};

use crate::Fault;
use crate::world::{AT_ONCE, At, NOTICED, PASSED, QUOTA_BYTES, WELL, World};

pub const FAULTS: [Fault; 2] = [
    Fault { numbers: &[33], name: "clean_up_stalls", run: stalls },
    Fault { numbers: &[9], name: "copy_differs", run: differs },
];

const HERE: At = At::Server(0);
/// Its folder is on the disk of the whole machine.
const THERE: At = At::Server(1);
/// The one with a disk of its own.
const WITH_DISK: At = At::Server(2);
/// In the object that a disk turns a byte of.
const MARKER: &[u8] = b"a value that all copies have until a disk turns one byte of it";
/// Objects of this size fill the database up to where its free pages matter.
const FILLER_BYTES: usize = 900_000;
/// So many stay, and are what a clean-up has to write.
const KEPT: usize = 8;
/// So many at most are deleted again, and are the room that it gives back.
const DELETED_MAX: usize = 70;
/// Hundredths of the quota from which free pages matter, and a little more.
const NEAR_QUOTA_PERCENT: u64 = 80;
const NEARER_PERCENT: u64 = 82;
/// Seconds; more than a clean-up may take.
const STALLED: u32 = 7;
/// Two looks of the one that looks after etcd, and a clean-up of each follower.
const CLEANED: Duration = Duration::from_secs(120);

/// Much is deleted, and the disk of one copy is slow while that copy gives the room back. To know, and not to act on.
fn stalls(world: &mut World) -> anyhow::Result<()> {
    world.rack.lead(0)?;
    let kubectl = world.kubectl();
    world.rack.forget_history()?;
    eventually("what was before is cleaned up", CLEANED, || {
        let fullest = fill_percents(world)?.into_iter().max();
        ensure!(fullest < Some(NEAR_QUOTA_PERCENT), "{fullest:?} % of the quota");
        Ok(())
    })?;
    kubectl.ok("create namespace filler")?;
    // Few: what is forgotten beside them has them written anew, and the file grows by as much.
    let kept: Vec<Value> = (0..KEPT).map(|number| filler(&format!("kept-{number}"))).collect();
    kubectl.ok_fed("create -f -", &json!({"apiVersion": "v1", "kind": "List", "items": kept}).to_string())?;
    let mut deleted = 0;
    while fill_percents(world)?.into_iter().min() < Some(NEARER_PERCENT) {
        ensure!(deleted < DELETED_MAX, "{deleted} objects do not fill the database");
        kubectl.ok_fed("create -f -", &filler("deleted").to_string())?;
        // What was deleted stays as history.
        kubectl.ok("-n filler delete configmap deleted")?;
        deleted += 1;
    }
    let disk = world.rack.servers[2].disk().folder.display().to_string();
    // What a clean-up writes beside the database says that it has begun.
    let begun = format!("ls {disk}/db/etcd/data/member/snap/db.tmp* >/dev/null 2>&1");
    let stall = format!("until {begun}; do sleep 0.01; done; fsfreeze -f {disk}; sleep {STALLED}; fsfreeze -u {disk}");
    let disk_stalls = world.host(WITH_DISK).tool("sh")?.spawn_with(&["-c", &stall])?;
    let said = world.rack.forget_history().and_then(|()| world.tells(HERE, "DEFRAG_STALL", CLEANED));
    drop(disk_stalls);
    kubectl.ok("delete namespace filler --wait=false --ignore-not-found")?;
    let sentence = said?;
    ensure!(sentence.contains(world.name(WITH_DISK)), "whose clean-up it was: {sentence}");
    world.is_well(PASSED)
}

fn filler(name: &str) -> Value {
    let metadata = json!({"name": name, "namespace": "filler"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"z": "z".repeat(FILLER_BYTES)}})
}

/// How near each copy is to where writes stop.
fn fill_percents(world: &World) -> anyhow::Result<Vec<u64>> {
    let percent = |bytes: u64| bytes * 100 / u64::from(QUOTA_BYTES);
    Ok(world.rack.database_bytes()?.into_iter().map(percent).collect())
}

/// Bytes of one copy are others than were written, and whoever reads that copy alone does not notice. The machine is
/// told to leave, and joins again.
fn differs(world: &mut World) -> anyhow::Result<()> {
    let kubectl = world.kubectl();
    let value = format!("--from-literal=value={}", String::from_utf8_lossy(MARKER));
    kubectl.ok_with(&["create", "configmap", "marker", &value])?;
    let path = world.data(THERE).join("server/db/etcd/data/member/snap/db");
    eventually("it is in the copy", AT_ONCE, || {
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        ensure!(!places(&bytes).is_empty(), "not there");
        Ok(())
    })?;
    world.power_cut(THERE)?;
    let places = places(&fs::read(&path)?);
    let file = File::options().write(true).open(&path)?;
    for place in &places {
        file.write_all_at(b"A", *place as u64)?;
    }
    // The one that looks after etcd sees it away before the record does.
    let silent = format!("wait node/{} --for=condition=Ready=Unknown --timeout=90s", world.name(THERE));
    kubectl.ok(&silent)?;
    world.power_on(THERE)?;
    world.start_program(THERE)?;
    let cause = world.says(HERE, "STORE_CORRUPT", NOTICED)?;
    ensure!(cause.on == THERE && cause.command == "evenkeel leave", "{cause:?}");
    let said = world.follow(&cause)?;
    ensure!(said.code == Some(0) && !places.is_empty(), "{said:?}");
    kubectl.ok("delete configmap marker")?;
    world.rejoin(1)?;
    world.is_well(WELL)
}

fn places(bytes: &[u8]) -> Vec<usize> {
    let last = bytes.len().saturating_sub(MARKER.len());
    (0..last).filter(|at| bytes[*at..].starts_with(MARKER)).collect()
}
