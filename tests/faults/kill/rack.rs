//! `kill -9` of random processes of three servers: of Evenkeel, etcd, containerd and names, wherever chance points,
//! under writes. The outside log is the judge of what was acknowledged; others look at leases and at pods.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, Endpoint, Rack, Tool, eventually, pause};

use super::leaders::Leaders;
use super::pairs::Pairs;
use super::record::Record;
use super::watcher::Watcher;
use super::writers::{self, Pace};
use super::{Chance, POD, container};
use crate::seed;

const NAME: &str = "kills3";
const HOST: u8 = 50;
/// Twenty writes a second.
const PERIOD: Duration = Duration::from_millis(50);
const WRITERS: usize = 6;
/// Kills between two looks of the judge.
const EPOCH_KILLS: u64 = 10;
/// How long nobody may get an answer after kills, also on a machine that others keep busy.
const STALL_BOUND: Duration = Duration::from_secs(90);
const LIVELY: Duration = Duration::from_secs(1);
const MOMENT_SPREAD_MS: u64 = 900;
/// Of four kills one comes without waiting for what the last one did.
const HASTE: u64 = 4;
/// A process may just be starting again.
const FOUND_BOUND: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Victim {
    Server,
    Etcd,
    Containerd,
    Names,
}

const VICTIMS: [Victim; 4] = [Victim::Server, Victim::Etcd, Victim::Containerd, Victim::Names];

/// What all threads share.
struct Watched<'a> {
    endpoints: &'a [Endpoint],
    record: &'a Record,
    pace: &'a Pace,
    watchers: &'a [Watcher],
    leaders: &'a Leaders,
    pairs: &'a Pairs,
}

pub fn loses_nothing(_: &()) -> anyhow::Result<()> {
    let kills: u64 = std::env::var("EVENKEEL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut rack = Rack::start(NAME, HOST)?;
    rack.fill()?;
    let kubectl = rack.servers[0].kubectl();
    kubectl.ok("create namespace kill")?;
    let names = still(&rack, &kubectl)?;
    let before = containers(&kubectl, &names)?;
    let endpoints = rack.servers.iter().map(|server| Endpoint::of(&server.kubectl())).collect::<Result<Vec<_>, _>>()?;
    let (record, pace, stop) = (Record::default(), Pace::default(), AtomicBool::new(false));
    let watchers: Vec<Watcher> = endpoints.iter().map(|_| Watcher::default()).collect();
    let (leaders, pairs) = (Leaders::default(), Pairs::default());
    thread::scope(|scope| {
        let (endpoints, record, pace, stop) = (endpoints.as_slice(), &record, &pace, &stop);
        let (leaders, pairs) = (&leaders, &pairs);
        for (watcher, endpoint) in watchers.iter().zip(endpoints) {
            scope.spawn(move || watcher.run(endpoint, stop));
        }
        for number in 0..WRITERS {
            scope.spawn(move || writers::run(endpoints, number, record, pace, stop));
        }
        scope.spawn(move || leaders.run(endpoints, stop));
        scope.spawn(move || pairs.run(endpoints, stop));
        let watched = Watched { endpoints, record, pace, watchers: &watchers, leaders, pairs };
        let outcome = epochs(&mut rack, kills, &watched);
        pace.close();
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    println!("{kills} kills over three hosts: {}; {}; {}", record.summary(), leaders.told(), pairs.told());
    rack.whole(0)?;
    let after = containers(&kubectl, &names)?;
    ensure!(before == after, "pods were restarted: {before:?} became {after:?}");
    Ok(())
}

/// A pod on every host that nothing here gives a reason to restart.
fn still(rack: &Rack, kubectl: &Tool) -> anyhow::Result<Vec<String>> {
    let names: Vec<String> = rack.servers.iter().map(|server| format!("still-{}", server.host.name)).collect();
    for (name, server) in names.iter().zip(&rack.servers) {
        let pod = POD.replace("\"still\"", &format!("\"{name}\""));
        let pod = pod.replace("\"containers\"", &format!("\"nodeName\":\"{}\",\"containers\"", server.host.name));
        kubectl.ok_fed("create -f -", &pod)?;
    }
    kubectl.ok("-n kill wait pod --all --for=condition=Ready --timeout=90s")?;
    Ok(names)
}

fn containers(kubectl: &Tool, names: &[String]) -> anyhow::Result<Vec<String>> {
    names.iter().map(|name| container(kubectl, name)).collect()
}

fn epochs(rack: &mut Rack, kills: u64, watched: &Watched<'_>) -> anyhow::Result<()> {
    let mut chance = Chance(seed());
    let mut longest = Duration::ZERO;
    let mut done = 0;
    while done < kills {
        let until = kills.min(done + EPOCH_KILLS);
        watched.pairs.begin(&rack.servers[0].kubectl(), done)?;
        watched.pace.open(PERIOD);
        while done < until {
            let haste = chance.below(HASTE) == 0;
            pause(Duration::from_millis(chance.below(MOMENT_SPREAD_MS)));
            let host = usize::try_from(chance.below(3))?;
            let victim = VICTIMS[usize::try_from(chance.below(4))?];
            let begin = Instant::now();
            kill(&mut rack.servers[host], victim)
                .with_context(|| format!("kill {} ({victim:?} of host {host})", done + 1))?;
            if !haste {
                eventually("writes go on", STALL_BOUND, || {
                    ensure!(watched.pace.acknowledged_within(LIVELY) > 0, "nothing was acknowledged");
                    Ok(())
                })
                .with_context(|| format!("after kill {} ({victim:?} of host {host})", done + 1))?;
                longest = longest.max(begin.elapsed());
            }
            done += 1;
        }
        watched.pace.close();
        judged(rack, watched).with_context(|| format!("after kill {done}"))?;
        println!("{done} kills, {}, at most {:.1} s for one", watched.record.summary(), longest.as_secs_f64());
    }
    Ok(())
}

/// Everybody who looks on is asked; nobody writes meanwhile.
fn judged(rack: &Rack, watched: &Watched<'_>) -> anyhow::Result<()> {
    for (endpoint, server) in watched.endpoints.iter().zip(&rack.servers) {
        eventually("the server answers", STALL_BOUND, || server.readyz())?;
        watched.record.judge(endpoint).with_context(|| format!("as {} sees it", server.host.name))?;
    }
    watched.watchers.iter().try_for_each(|watcher| watcher.judge(watched.record))?;
    watched.leaders.judge()?;
    watched.pairs.judge(&rack.servers[0].kubectl())
}

/// Returns once the process is dead. What keeps it starts it again; of the server itself that is us.
fn kill(server: &mut Cluster, victim: Victim) -> anyhow::Result<()> {
    let search = match victim {
        Victim::Server => {
            server.kill_server()?;
            return server.start_server();
        }
        Victim::Etcd => "-x etcd",
        Victim::Containerd => "-x containerd",
        Victim::Names => "-f evenkeel.names",
    };
    let pids = eventually("the victim is found", FOUND_BOUND, || server.host.tool("pgrep")?.ok(search))?;
    let pid = pids.lines().next().context("no process")?;
    // It may have been about to end.
    let _ = server.host.tool("kill")?.ok(&format!("-9 {pid}"));
    Ok(())
}
