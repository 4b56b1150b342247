//! `kill -9` of random processes of three servers: of Evenkeel, etcd, containerd and names, wherever chance points,
//! under writes. The outside log is the judge of what was acknowledged; others look at leases and at pods.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Endpoint, Options, Rack, Tool, eventually};

use super::hunt::{Hunt, Hunter};
use super::leaders::Leaders;
use super::pairs::Pairs;
use super::record::Record;
use super::watcher::Watcher;
use super::writers::{self, Pace};
use super::{Chance, POD, container};
use crate::seed;

const NAME: &str = "kills3";
const HOST: u8 = 54;
/// Twenty writes a second.
const PERIOD: Duration = Duration::from_millis(50);
const WRITERS: usize = 6;
/// Kills between two looks of the judge.
const EPOCH_KILLS: u64 = 20;
/// How long a server may take after kills, also on a machine that others keep busy.
const READY_BOUND: Duration = Duration::from_secs(120);

/// Who looks on.
#[derive(Default)]
struct Watched {
    record: Record,
    pace: Pace,
    watchers: [Watcher; 3],
    leaders: Leaders,
    pairs: Pairs,
    stop: AtomicBool,
}

/// Pods that nothing here gives a reason to restart, one on every host, and their containers.
struct Still {
    names: Vec<String>,
    containers: Vec<String>,
}

pub fn loses_nothing(_: &()) -> anyhow::Result<()> {
    let kills: u64 = std::env::var("EVENKEEL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let options = Options { small_images: true, ..Options::default() };
    let mut rack = Rack::start_with(NAME, HOST, options)?;
    let outcome = killed(&mut rack, kills);
    if outcome.is_err() {
        rack.keep_logs("kills3-failed")?;
    }
    outcome
}

fn killed(rack: &mut Rack, kills: u64) -> anyhow::Result<()> {
    rack.fill()?;
    let kubectl = rack.servers[0].kubectl();
    kubectl.ok("create namespace kill")?;
    let still = Still::start(rack, &kubectl)?;
    let endpoints = rack.servers.iter().map(|server| Endpoint::of(&server.kubectl())).collect::<Result<Vec<_>, _>>()?;
    let watched = Watched::default();
    thread::scope(|scope| {
        let (endpoints, watched) = (endpoints.as_slice(), &watched);
        for (watcher, endpoint) in watched.watchers.iter().zip(endpoints) {
            scope.spawn(move || watcher.run(endpoint, &watched.stop));
        }
        for number in 0..WRITERS {
            scope.spawn(move || writers::run(endpoints, number, &watched.record, &watched.pace, &watched.stop));
        }
        scope.spawn(move || watched.leaders.run(endpoints, &watched.stop));
        scope.spawn(move || watched.pairs.run(endpoints, &watched.stop));
        let outcome = epochs(rack, kills, watched, &still);
        watched.pace.close();
        watched.stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    rack.whole(0)?;
    still.runs(&kubectl)?;
    let told: Vec<String> = watched.watchers.iter().map(Watcher::told).collect();
    println!("{kills} kills over three hosts: {}", watched.record.summary());
    println!("{}", watched.leaders.told());
    println!("{}; no pod was restarted that nothing was done to", watched.pairs.told());
    println!("watchers: {}", told.join(", "));
    Ok(())
}

/// Kills, and after some of them the judge looks.
fn epochs(rack: &mut Rack, kills: u64, watched: &Watched, still: &Still) -> anyhow::Result<()> {
    let mut chances: Vec<Chance> = (0..rack.servers.len() as u64).map(|host| Chance(seed() + host)).collect();
    let hunt = Hunt::new(&watched.pace);
    let (begin, mut done) = (Instant::now(), 0);
    while done < kills {
        let more = EPOCH_KILLS.min(kills - done);
        watched.pairs.begin(&rack.servers[0].kubectl(), done)?;
        watched.pace.open(PERIOD);
        hunt.allow(more);
        hunters(rack, &hunt, &mut chances).with_context(|| format!("after kill {done}"))?;
        done += more;
        watched.pace.close();
        judged(rack, watched, still).with_context(|| format!("after kill {done}"))?;
        let took = begin.elapsed().as_secs_f64();
        println!("{done} kills in {took:.0} s, {:.1} s each: {}", took / done as f64, watched.record.summary());
        println!("   {}; longest without an answer {:.1} s", hunt.told(), watched.pace.longest().as_secs_f64());
    }
    Ok(())
}

fn hunters(rack: &mut Rack, hunt: &Hunt<'_>, chances: &mut [Chance]) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let hosts = rack.servers.iter_mut().zip(chances);
        let hunters = hosts.map(|(server, chance)| scope.spawn(|| Hunter { hunt, server, chance }.run()));
        let hunters: Vec<_> = hunters.collect();
        let outcomes = hunters.into_iter().map(|hunter| hunter.join().expect("hunters do not panic"));
        // All of them are waited for.
        outcomes.collect::<Vec<anyhow::Result<()>>>().into_iter().collect()
    })
}

/// Everybody who looks on is asked; nobody writes meanwhile.
fn judged(rack: &Rack, watched: &Watched, still: &Still) -> anyhow::Result<()> {
    for server in &rack.servers {
        let name = &server.host.name;
        eventually(&format!("{name} answers"), READY_BOUND, || server.readyz())?;
        let endpoint = Endpoint::read(&server.kubeconfig())?;
        watched.record.judge(&endpoint).with_context(|| format!("as {name} sees it"))?;
    }
    watched.watchers.iter().try_for_each(|watcher| watcher.judge(&watched.record))?;
    watched.leaders.judge()?;
    let kubectl = rack.servers[0].kubectl();
    still.runs(&kubectl)?;
    watched.pairs.judge(&kubectl)
}

// === impl Still ===

impl Still {
    fn start(rack: &Rack, kubectl: &Tool) -> anyhow::Result<Still> {
        let names: Vec<String> = rack.servers.iter().map(|server| format!("still-{}", server.host.name)).collect();
        for (name, server) in names.iter().zip(&rack.servers) {
            let pod = POD.replace("\"still\"", &format!("\"{name}\""));
            let pod = pod.replace("\"containers\"", &format!("\"nodeName\":\"{}\",\"containers\"", server.host.name));
            kubectl.ok_fed("create -f -", &pod)?;
        }
        kubectl.ok("-n kill wait pod --all --for=condition=Ready --timeout=120s")?;
        let containers = containers(kubectl, &names)?;
        Ok(Still { names, containers })
    }

    /// The containers are those of the beginning.
    fn runs(&self, kubectl: &Tool) -> anyhow::Result<()> {
        let now = containers(kubectl, &self.names)?;
        ensure!(self.containers == now, "pods were restarted: {:?} became {now:?}", self.containers);
        Ok(())
    }
}

fn containers(kubectl: &Tool, names: &[String]) -> anyhow::Result<Vec<String>> {
    names.iter().map(|name| container(kubectl, name)).collect()
}
