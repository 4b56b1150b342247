//! The disk of a server's folder: full, without inodes, read-only, slow, silent.

use anyhow::ensure;
use e2e::eventually;

use crate::Fault;
use crate::world::{AT_ONCE, At, NOTICED, WELL, World};

pub const FAULTS: [Fault; 5] = [
    Fault { numbers: &[1], name: "disk_full", run: full },
    Fault { numbers: &[2], name: "inodes_full", run: inodes },
    Fault { numbers: &[6], name: "disk_slow", run: slow },
    Fault { numbers: &[5], name: "disk_hangs", run: hangs },
    Fault { numbers: &[4], name: "disk_readonly", run: readonly },
];

const HERE: At = At::Server(0);
/// The one with a disk of its own.
const THERE: At = At::Server(2);

/// Freezes a file system and thaws it by turns (FIFREEZE, FITHAW). In one process: between two programs quick writes slip
/// through.
const SLOW: &str = "open F, \"<\", $ARGV[0] or die; \
                    until (-e \"/run/rest\") { ioctl F, 0xC0045877, 0; select undef, undef, undef, 0.15; ioctl F, 0xC0045878, 0 }";

fn folder(world: &World) -> String {
    world.data(THERE).join("server").display().to_string()
}

fn full(world: &mut World) -> anyhow::Result<()> {
    let folder = folder(world);
    // All but a few megabytes.
    let fill =
        format!("free=$(df -k --output=avail {folder} | tail -n 1); fallocate -l $((free - 6000))k {folder}/filler");
    world.sh(THERE, &fill)?;
    let outcome = world.says(HERE, "DISK_FULL", AT_ONCE);
    let outcome = outcome.and_then(|_| world.says(THERE, "DISK_FULL", AT_ONCE));
    let said = outcome.and_then(|cause| world.follow(&cause));
    world.ok(THERE, &format!("rm {folder}/filler"))?;
    let said = said?;
    ensure!(said.out.contains(&folder), "{said:?}");
    world.is_well(WELL)
}

fn inodes(world: &mut World) -> anyhow::Result<()> {
    let folder = folder(world);
    let fill = format!(
        "mkdir {folder}/many; free=$(df --output=iavail {folder} | tail -n 1); \
         seq $((free - 20)) | sed 's#^#{folder}/many/#' | xargs touch"
    );
    world.sh(THERE, &fill)?;
    let cause = world.says(HERE, "INODES_FULL", AT_ONCE);
    let said = cause.and_then(|cause| world.follow(&cause));
    world.ok(THERE, &format!("rm -r {folder}/many"))?;
    let said = said?;
    ensure!(said.out.contains("many"), "{said:?}");
    world.is_well(WELL)
}

/// Each flushed write waits for two turns or more.
fn slow(world: &mut World) -> anyhow::Result<()> {
    let folder = world.rack.servers[2].disk().folder.display().to_string();
    world.sh(THERE, &format!("perl -e '{SLOW}' {folder} >/dev/null 2>&1 &"))?;
    let cause = world.says(HERE, "STORE_SLOW_DISK", NOTICED);
    let said = cause.and_then(|cause| world.follow(&cause));
    world.ok(THERE, "touch /run/rest")?;
    eventually("the disk goes on", AT_ONCE, || world.sh(THERE, "! pgrep -x perl").map(drop))?;
    world.ok(THERE, "rm /run/rest")?;
    said?;
    world.is_well(WELL)
}

/// Writers wait for ever, and the one that asks must not.
fn hangs(world: &mut World) -> anyhow::Result<()> {
    let disk = world.rack.servers[2].disk();
    let folder = disk.folder.display().to_string();
    // Whatever becomes of this case, the disk answers again.
    let undo = world.host(THERE).tool("sh")?.spawn_with(&["-c", &format!("sleep 100; fsfreeze -u {folder}")])?;
    disk.freeze(world.host(THERE))?;
    let outcome = world.says(HERE, "DISK_HANG", NOTICED);
    let outcome = outcome.and_then(|_| world.says(THERE, "DISK_HANG", AT_ONCE));
    let said = outcome.and_then(|cause| world.follow(&cause));
    drop(undo);
    said?;
    world.is_well(WELL)
}

/// The kernel gave up writing, as after an I/O error; only mounting it anew ends that.
fn readonly(world: &mut World) -> anyhow::Result<()> {
    world.ok(THERE, &format!("mount -o remount,abort {}", folder(world)))?;
    let outcome = world.says(HERE, "DISK_READONLY", NOTICED);
    let outcome = outcome.and_then(|_| world.says(THERE, "DISK_READONLY", AT_ONCE));
    let said = outcome.and_then(|cause| world.follow(&cause));
    world.reboot(THERE)?;
    said?;
    world.is_well(WELL)
}
