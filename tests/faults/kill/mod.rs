//! `kill -9` of the server at seeded moments under 200 writes a second, with watchers that live through all of it.
//!
//! The schedule offers 200 writes a second whether they are answered or not. A kill comes at its seeded moment, but not
//! before the last half second had 90 % of its share acknowledged: so each kill is under the full load, whatever else
//! the machine does. A server that stalls, or is too slow for the schedule, never gets there and fails the case.

mod hunt;
mod leaders;
mod pairs;
pub mod rack;
mod record;
mod rounds;
mod watcher;
mod writers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Cluster, Endpoint, Tool, eventually, pause};

use crate::{Shared, seed};
use record::Record;
use watcher::Watcher;
use writers::Pace;

const PATH: &str = "/api/v1/namespaces/kill/configmaps";
/// 200 writes a second: the time between two turns of the schedule, whoever's they are.
const PERIOD: Duration = Duration::from_millis(5);
/// The load under which a kill counts: this many acknowledgements...
const ACKNOWLEDGED_MIN: usize = 90;
/// ...in this span, 90 % of what is due in it.
const LOAD_SPAN: Duration = Duration::from_millis(500);
/// How long a server may take to reach that, also on a machine that others keep busy.
const LOAD_BOUND: Duration = Duration::from_secs(20);
/// Enough that the schedule is kept while each waits for its acknowledgement.
const WRITERS: usize = 12;
const WATCHERS: usize = 3;
/// A kill comes this long after writers were let in, and at most [`MOMENT_SPREAD_MS`] later.
const MOMENT_MIN_MS: u64 = 600;
const MOMENT_SPREAD_MS: u64 = 2400;
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"still","namespace":"kill"},"spec":{
    "terminationGracePeriodSeconds":0,
    "containers":[{"name":"c","image":"evenkeel.local/busybox:1","command":["sleep","99999"]}]}}"#;

pub fn loses_nothing(shared: &Shared) -> anyhow::Result<()> {
    let mut cluster = shared.lock().expect("cases run one at a time");
    let kubectl = cluster.kubectl();
    kubectl.ok("create namespace kill")?;
    kubectl.ok_fed("create -f -", POD)?;
    kubectl.ok("-n kill wait pod/still --for=condition=Ready --timeout=60s")?;
    let before = container(&kubectl, "still")?;
    let kills: u64 = std::env::var("EVENKEEL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let endpoint = Endpoint::of(&kubectl)?;
    let (record, pace, stop) = (Record::default(), Pace::default(), AtomicBool::new(false));
    let watchers: Vec<Watcher> = (0..WATCHERS).map(|_| Watcher::default()).collect();
    thread::scope(|scope| {
        let (endpoint, record, pace, stop) = (&endpoint, &record, &pace, &stop);
        for watcher in &watchers {
            scope.spawn(move || watcher.run(endpoint, stop));
        }
        for number in 0..WRITERS {
            scope.spawn(move || writers::run(std::slice::from_ref(endpoint), number, record, pace, stop));
        }
        let outcome = rounds(&mut cluster, kills, endpoint, record, pace);
        let outcome = outcome.and_then(|()| watchers.iter().try_for_each(|watcher| watcher.judge(record)));
        pace.close();
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    let told: Vec<String> = watchers.iter().map(Watcher::told).collect();
    println!("{kills} kills: {}; watchers: {}", record.summary(), told.join(", "));
    kubectl.ok("-n kill wait pod/still --for=condition=Ready --timeout=60s")?;
    let after = container(&kubectl, "still")?;
    ensure!(before == after, "the pod was restarted: {before} became {after}");
    kubectl.ok("delete namespace kill --timeout=90s").map(drop)
}

/// Kills under the full load, restarts and judges.
fn rounds(cluster: &mut Cluster, kills: u64, endpoint: &Endpoint, record: &Record, pace: &Pace) -> anyhow::Result<()> {
    let mut chance = Chance(seed());
    for round in 1..=kills {
        pace.open(PERIOD);
        pause(Duration::from_millis(MOMENT_MIN_MS + chance.below(MOMENT_SPREAD_MS)));
        eventually("the server keeps up with 200 writes a second", LOAD_BOUND, || {
            let acknowledged = pace.acknowledged_within(LOAD_SPAN);
            ensure!(acknowledged >= ACKNOWLEDGED_MIN, "{acknowledged} acknowledgements in {LOAD_SPAN:?}");
            Ok(())
        })
        .with_context(|| format!("before kill {round}"))?;
        pace.end();
        cluster.kill_server()?;
        pace.close();
        cluster.start_server()?;
        record.judge(endpoint).with_context(|| format!("after kill {round}"))?;
    }
    println!("{:.0} writes a second while the server was up", pace.rate());
    Ok(())
}

/// Numbers that a seed repeats.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn container(kubectl: &Tool, pod: &str) -> anyhow::Result<String> {
    let path = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    kubectl.ok_with(&["-n", "kill", "get", "pod", pod, "-o", &format!("jsonpath={path}")])
}
