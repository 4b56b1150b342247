//! Programs of a machine that end, freeze, or are locked out.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::Value;

use crate::Fault;
use crate::world::{AT_ONCE, At, NOTICED, PASSED, WELL, World};

pub const FAULTS: [Fault; 10] = [
    Fault { numbers: &[46], name: "agent_dead", run: dead },
    Fault { numbers: &[46], name: "agent_hung", run: hung },
    Fault { numbers: &[46], name: "server_hung", run: server_hung },
    Fault { numbers: &[46], name: "server_stopped", run: stopped },
    Fault { numbers: &[46], name: "runtime_down", run: runtime },
    Fault { numbers: &[17], name: "names_down", run: names },
    Fault { numbers: &[50], name: "cpu_starved", run: starved },
    Fault { numbers: &[26], name: "certificate_expiring", run: expiring },
    Fault { numbers: &[27], name: "certificate_expired", run: expired },
    Fault { numbers: &[28], name: "authority_expiring", run: authority },
];

const DAY: Duration = Duration::from_secs(86_400);
/// Longer than a timer may be late, shorter than a node may be silent.
const TAKEN: Duration = Duration::from_secs(14);

fn dead(world: &mut World) -> anyhow::Result<()> {
    world.kill_program(At::Agent);
    let cause = world.says(At::Server(1), "AGENT_DEAD", NOTICED)?;
    ensure!(cause.on == At::Agent);
    world.follow(&cause)?;
    world.is_well(WELL)
}

fn hung(world: &mut World) -> anyhow::Result<()> {
    world.agent.signal("STOP")?;
    let cause = world.says(At::Server(1), "AGENT_HUNG", NOTICED)?;
    world.follow(&cause)?;
    world.is_well(WELL)
}

/// Seen from another server, and from the machine itself.
fn server_hung(world: &mut World) -> anyhow::Result<()> {
    world.rack.servers[1].freeze_server()?;
    let cause = world.says(At::Server(0), "AGENT_HUNG", NOTICED)?;
    ensure!(cause.on == At::Server(1));
    world.follow(&cause)?;
    world.is_well(WELL)
}

fn stopped(world: &mut World) -> anyhow::Result<()> {
    world.rack.servers[1].stop_server()?;
    world.says(At::Server(0), "AGENT_DEAD", NOTICED)?;
    let cause = world.says(At::Server(1), "SERVER_STOPPED", AT_ONCE)?;
    world.follow(&cause)?;
    world.is_well(WELL)
}

/// Killed, and kept from being started again by what lies in its place.
fn runtime(world: &mut World) -> anyhow::Result<()> {
    let there = At::Server(1);
    let program = world.ok(there, "which containerd")?.trim().to_owned();
    world.ok(there, &format!("mount --bind /bin/false {program}"))?;
    let pids = world.ok(there, "pgrep -x containerd")?;
    world.ok(there, &format!("kill -9 {}", pids.lines().next().context("containerd runs")?))?;
    let cause = world.says(At::Server(0), "RUNTIME_DOWN", NOTICED);
    world.ok(there, &format!("umount {program}"))?;
    world.follow(&cause?)?;
    world.is_well(WELL)
}

fn names(world: &mut World) -> anyhow::Result<()> {
    let there = At::Server(1);
    let record = fs::read_to_string(world.data(there).join("agent/names/names.json"))?;
    let record: Value = serde_json::from_str(&record)?;
    let pid = record["process"]["pid"].as_u64().context("names run")?;
    world.ok(there, &format!("kill -STOP {pid}"))?;
    let cause = world.says(At::Server(0), "NAMES_DOWN", AT_ONCE)?;
    world.follow(&cause)?;
    world.is_well(WELL)
}

/// Others take the processor that it is bound to for some seconds; it has no share of its own. Threads that end meanwhile
/// need neither.
fn starved(world: &mut World) -> anyhow::Result<()> {
    let all = world.sh(At::Agent, "taskset -p 1")?;
    let all = all.rsplit(' ').next().unwrap_or_default().trim().to_owned();
    let agent = world.ok(At::Agent, "pgrep -f -o evenkeel.agent.--server")?.trim().to_owned();
    world.sh(At::Agent, &format!("chrt --idle -a -p 0 {agent}; taskset -a -p 1 {agent}; true"))?;
    let busy = format!("nice -n -39 timeout {} taskset 1 sh -c 'while :; do :; done'", TAKEN.as_secs());
    let taken = world.sh(At::Agent, &format!("{busy} & {busy} & {busy} & wait"));
    world.sh(At::Agent, &format!("chrt --other -a -p 0 {agent}; taskset -a -p {all} {agent}; true"))?;
    taken?;
    let cause = world.says(At::Server(1), "CPU_STARVED", AT_ONCE)?;
    world.follow(&cause)?;
    world.is_well(PASSED)
}

/// A certificate of `days` more, of ten days in all.
fn certificate(name: &str, days: i32, ca: bool) -> anyhow::Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    let now = SystemTime::now();
    let ends = if days < 0 { now - DAY * days.unsigned_abs() } else { now + DAY * days.unsigned_abs() };
    (params.not_before, params.not_after) = ((now - 10 * DAY).into(), ends.into());
    params.distinguished_name.push(DnType::CommonName, name);
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    Ok(params.self_signed(&KeyPair::generate()?)?.pem())
}

/// One that nobody renews any more.
fn expiring(world: &mut World) -> anyhow::Result<()> {
    let path = world.data(At::Agent).join("agent/tls/by-hand.crt");
    fs::write(&path, certificate("by-hand", 1, false)?)?;
    let cause = world.says(At::Server(1), "CERT_EXPIRING", AT_ONCE)?;
    world.follow(&cause)?;
    fs::remove_file(path)?;
    world.is_well(WELL)
}

/// The node's own: its program proves itself with its key and gets another.
fn expired(world: &mut World) -> anyhow::Result<()> {
    let path = world.data(At::Agent).join("agent/tls/node-client.crt");
    let name = format!("system:node:{}", world.name(At::Agent));
    fs::write(&path, certificate(&name, -1, false)?)?;
    let cause = world.says(At::Server(1), "CERT_EXPIRED", AT_ONCE)?;
    world.follow(&cause)?;
    world.is_well(WELL)
}

fn authority(world: &mut World) -> anyhow::Result<()> {
    let path = world.data(At::Server(1)).join("server/tls/old-ca.crt");
    fs::write(&path, certificate("old", 100, true)?)?;
    let cause = world.says(At::Server(0), "CA_EXPIRING", AT_ONCE)?;
    world.follow(&cause)?;
    fs::remove_file(path)?;
    world.is_well(WELL)
}
