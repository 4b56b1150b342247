//! Cables, switches, firewalls, names and addresses.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Options, eventually, pause};

use crate::Fault;
use crate::world::{AT_ONCE, At, NOTICED, PASSED, RESOLV_CONF, WELL, World};

pub const FAULTS: [Fault; 13] = [
    Fault { numbers: &[14], name: "one_way", run: one_way },
    Fault { numbers: &[14], name: "path_cut", run: path_cut },
    Fault { numbers: &[13], name: "cut_off", run: cut_off },
    Fault { numbers: &[15], name: "packet_loss", run: loss },
    Fault { numbers: &[16], name: "narrow_path", run: narrow },
    Fault { numbers: &[17], name: "upstream_names_down", run: upstream },
    Fault { numbers: &[19], name: "conntrack_full", run: conntrack },
    Fault { numbers: &[20], name: "address_twice", run: duplicate },
    Fault { numbers: &[22], name: "rules_lost", run: rules },
    Fault { numbers: &[22], name: "route_lost", run: route },
    Fault { numbers: &[45], name: "address_changed", run: renumbered },
    Fault { numbers: &[10], name: "link_flaps", run: flaps },
    Fault { numbers: &[12], name: "switch_down", run: switch },
];

const HERE: At = At::Server(0);
const THERE: At = At::Server(1);
/// The rule lies in a table of its own, so that it goes as a whole.
const TABLE: &str = "inet injected";

/// A chain at a hook of the host's firewall.
fn drops(world: &World, at: At, hook: &str, rule: &str) -> anyhow::Result<()> {
    let chain = format!("add table {TABLE}; add chain {TABLE} c {{ type filter hook {hook} priority -300; }}");
    world.sh(at, &format!("nft '{chain}; add rule {TABLE} c {rule} drop'")).map(drop)
}

fn allows(world: &World, at: At) -> anyhow::Result<()> {
    world.ok(at, &format!("nft delete table {TABLE}")).map(drop)
}

/// New connections are refused in one direction.
fn one_way(world: &mut World) -> anyhow::Result<()> {
    let from = world.host(HERE).address.clone();
    drops(world, THERE, "input", &format!("ip saddr {from} tcp flags syn / fin,syn,rst,ack"))?;
    // A third one hears both sides.
    let cause = world.says(At::Server(2), "ONE_WAY_PARTITION", NOTICED);
    let said = cause.and_then(|cause| world.follow(&cause));
    allows(world, THERE)?;
    let said = said?;
    ensure!(said.out.contains(&from), "the rule is not in {said:?}");
    world.is_well(WELL)
}

/// Packets are lost in one direction.
fn path_cut(world: &mut World) -> anyhow::Result<()> {
    let from = world.host(HERE).address.clone();
    drops(world, THERE, "input", &format!("ip saddr {from}"))?;
    let cause = world.says(At::Server(2), "PATH_CUT", NOTICED);
    let said = cause.and_then(|cause| world.follow(&cause));
    allows(world, THERE)?;
    said?;
    world.is_well(WELL)
}

/// Others cannot tell it from one that is off; the machine itself can.
fn cut_off(world: &mut World) -> anyhow::Result<()> {
    world.host(THERE).unplug()?;
    let others = world.says(HERE, "NODE_DOWN", NOTICED);
    let own = world.says(THERE, "NODE_PARTITIONED", AT_ONCE);
    let said = own.and_then(|cause| world.follow(&cause));
    world.host(THERE).plug()?;
    others?;
    ensure!(said?.out.contains("eth0"));
    world.is_well(WELL)
}

fn loss(world: &mut World) -> anyhow::Result<()> {
    // On one path, so that it is clear which one is to be told.
    let from = world.host(HERE).address.clone();
    drops(world, At::Agent, "input", &format!("ip saddr {from} numgen random mod 100 < 10"))?;
    let cause = world.says(HERE, "PACKET_LOSS", NOTICED);
    let said = cause.and_then(|cause| world.follow(&cause));
    allows(world, At::Agent)?;
    said?;
    world.is_well(WELL)
}

fn narrow(world: &mut World) -> anyhow::Result<()> {
    world.host(At::Agent).take_at_most(1400)?;
    let cause = world.says(HERE, "MTU_MISMATCH", NOTICED);
    let said = cause.and_then(|cause| world.follow(&cause));
    world.host(At::Agent).take_at_most(1500)?;
    said?;
    world.is_well(WELL)
}

/// A server of names beyond the cluster that falls silent.
fn upstream(world: &mut World) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("172.31.77.1:53").context("the address that hosts see of this machine")?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let answers = AtomicBool::new(true);
    world.sh(THERE, &format!("echo nameserver 172.31.77.1 > {RESOLV_CONF}"))?;
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| serve(&socket, &answers));
        let outcome = world.is_well(WELL);
        answers.store(false, Ordering::Relaxed);
        outcome
    });
    let cause = outcome.and_then(|()| world.says(HERE, "UPSTREAM_NAMES_DOWN", AT_ONCE));
    let said = cause.and_then(|cause| world.follow(&cause));
    world.sh(THERE, &format!("rm {RESOLV_CONF}"))?;
    let said = said?;
    ensure!(said.out.contains("nameserver"), "{said:?}");
    world.is_well(WELL)
}

/// Says of every name that there is none.
fn serve(socket: &UdpSocket, answers: &AtomicBool) {
    let mut packet = [0; 512];
    while answers.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut packet)
            && 4 <= length
        {
            (packet[2], packet[3]) = (0x81, 0x83);
            let _ = socket.send_to(&packet[..length], from);
        }
    }
}

/// The kernel's table belongs to the whole machine: what a host reads of it is another file.
fn conntrack(world: &mut World) -> anyhow::Result<()> {
    let folder = "/proc/sys/net/netfilter";
    let lines = format!(
        "echo 250000 > /run/count && echo 262144 > /run/max && mount --bind /run/count {folder}/nf_conntrack_count && \
         mount --bind /run/max {folder}/nf_conntrack_max"
    );
    world.sh(THERE, &lines)?;
    let cause = world.says(HERE, "CONNTRACK_FULL", AT_ONCE);
    let said = cause.and_then(|cause| world.follow(&cause));
    let well = said.and_then(|_| world.is_well(WELL));
    world.sh(THERE, &format!("umount {folder}/nf_conntrack_count {folder}/nf_conntrack_max"))?;
    well
}

/// A second holder of the virtual address.
fn duplicate(world: &mut World) -> anyhow::Result<()> {
    let address = format!("172.31.77.{}", 10 + Options::lane("", 19).host);
    let holds =
        |at: &At| world.ok(*at, "ip -4 address show dev eth0").is_ok_and(|said| said.contains(&format!("{address}/")));
    let all = [At::Server(0), At::Server(1), At::Server(2)];
    let other = all.into_iter().find(|at| !holds(at)).context("all have the address")?;
    world.ok(other, &format!("ip address add {address}/24 dev eth0"))?;
    let asked = all.into_iter().find(|at| *at != other).context("there are three")?;
    world.alike = true;
    let said = world.says(asked, "VIP_DUPLICATE", AT_ONCE).and_then(|cause| {
        ensure!(cause.on == other, "the one without the lease gives it up: {cause:?}");
        world.follow(&cause)
    });
    if said.as_ref().is_ok_and(|said| said.code == Some(0)) {
        return world.is_well(WELL);
    }
    world.ok(other, &format!("ip address del {address}/24 dev eth0"))?;
    anyhow::bail!("{said:?}")
}

fn rules(world: &mut World) -> anyhow::Result<()> {
    let tables = world.ok(THERE, "nft list tables")?;
    let table =
        tables.lines().find(|line| line.contains("evenkeel") || line.contains("evk")).context("no table of ours")?;
    world.ok(THERE, &format!("nft delete {table}"))?;
    let cause = world.says(HERE, "RULES_LOST", AT_ONCE)?;
    world.follow(&cause)?;
    world.is_well(WELL)
}

fn route(world: &mut World) -> anyhow::Result<()> {
    let range = world.kubectl().ok(&format!("get node {} -o jsonpath={{.spec.podCIDR}}", world.name(HERE)))?;
    // The agent makes it again by itself; what takes it away each time is a package that thinks it knows better.
    world.sh(
        THERE,
        &format!("(while [ ! -e /run/rest ]; do ip route del {range} 2>/dev/null; sleep 0.2; done) >/dev/null 2>&1 &"),
    )?;
    let cause = world.says(HERE, "RULES_LOST", AT_ONCE);
    world.ok(THERE, "touch /run/rest")?;
    world.follow(&cause?)?;
    let well = world.is_well(WELL);
    world.ok(THERE, "rm /run/rest")?;
    well
}

/// An update gave the machine another address.
fn renumbered(world: &mut World) -> anyhow::Result<()> {
    let old = world.host(At::Agent).address.clone();
    let new = format!("172.31.77.{}", 10 + Options::lane("", 18).host);
    world.agent.command.retain(|word| !word.starts_with("--node-ip="));
    // The kernel takes later addresses of a subnet away with the first one.
    let change = |from: &str, to: &str| {
        format!(
            "ip address del {from}/24 dev eth0; ip address add {to}/24 dev eth0; ip route replace default via 172.31.77.1"
        )
    };
    world.sh(At::Agent, &change(&old, &new))?;
    let others = world.says(HERE, "NODE_DOWN", NOTICED);
    let cause = others.and_then(|_| world.says(At::Agent, "ADDRESS_CHANGED", AT_ONCE));
    let well = cause.and_then(|cause| world.follow(&cause)).and_then(|_| world.is_well(WELL));
    world.sh(At::Agent, &change(&new, &old))?;
    world.agent.command.push(format!("--node-ip={old}"));
    world.agent.start_again()?;
    well?;
    world.is_well(WELL)
}

fn flaps(world: &mut World) -> anyhow::Result<()> {
    for _ in 0..4 {
        world.host(At::Agent).unplug()?;
        pause(Duration::from_millis(700));
        world.host(At::Agent).plug()?;
        pause(Duration::from_millis(700));
    }
    let cause = world.says(HERE, "NIC_FLAP", NOTICED)?;
    let said = world.follow(&cause)?;
    ensure!(said.code == Some(0), "{said:?}");
    world.is_well(PASSED)?;
    world.kubectl().ok(&format!("uncordon {}", world.name(At::Agent))).map(drop)
}

/// All links at once, for a moment.
fn switch(world: &mut World) -> anyhow::Result<()> {
    let all = [At::Server(0), At::Server(1), At::Server(2), At::Agent];
    for at in all {
        world.host(at).unplug()?;
    }
    let dark = world.says(HERE, "NODE_PARTITIONED", AT_ONCE);
    for at in all {
        world.host(at).plug()?;
    }
    dark?;
    // Who is reached again says so one after the other.
    eventually("all are named", NOTICED, || {
        let (_, said) = world.wrong(HERE, &[])?;
        let sentence = said["cause"]["sentence"].as_str().unwrap_or_default();
        ensure!(all.iter().all(|at| sentence.contains(world.name(*at))), "{sentence}");
        Ok(())
    })?;
    let cause = world.says(HERE, "SWITCH_DOWN", AT_ONCE)?;
    world.follow(&cause)?;
    world.is_well(PASSED)
}
