//! `kill -9` of the server at seeded moments under load.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Connection, Endpoint, Tool, pause};
use serde_json::{Value, json};

use crate::{Shared, seed};

const PATH: &str = "/api/v1/namespaces/kill/configmaps";
/// 200 writes a second from one writer, each after the other's acknowledgement.
const PERIOD: Duration = Duration::from_millis(5);
const WRITERS: usize = 2;
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"still","namespace":"kill"},"spec":{
    "terminationGracePeriodSeconds":0,
    "containers":[{"name":"c","image":"evenkeel.local/busybox:1","command":["sleep","99999"]}]}}"#;

/// What the outside client was told: name to revision.
type Log = Mutex<BTreeMap<String, u64>>;

pub fn loses_nothing(shared: &Shared) -> anyhow::Result<()> {
    let mut cluster = shared.lock().expect("cases run one at a time");
    let kubectl = cluster.kubectl();
    kubectl.ok("create namespace kill")?;
    kubectl.ok_fed("create -f -", POD)?;
    kubectl.ok("-n kill wait pod/still --for=condition=Ready --timeout=60s")?;
    let before = container(&kubectl)?;
    let kills: u64 = std::env::var("EVENKEEL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let endpoint = Endpoint::of(&kubectl)?;
    let log = Log::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (endpoint, log, stop) = (&endpoint, &log, &stop);
            scope.spawn(move || write(endpoint, writer, log, stop));
        }
        let mut moment = seed();
        let outcome = (0..kills).try_for_each(|round| {
            moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            pause(Duration::from_millis(300 + (moment >> 33) % 1200));
            let revision = newest(&log);
            cluster.kill_server()?;
            cluster.start_server()?;
            judge(&endpoint, &log, revision).with_context(|| format!("after kill {}", round + 1))
        });
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    let count = log.lock().expect("writers have ended").len();
    ensure!(count > 100, "only {count} writes were acknowledged: the load was no load");
    println!("{kills} kills, {count} acknowledged writes, all there");
    kubectl.ok("-n kill wait pod/still --for=condition=Ready --timeout=60s")?;
    let after = container(&kubectl)?;
    ensure!(before == after, "the pod was restarted: {before} became {after}");
    kubectl.ok("delete namespace kill --timeout=90s").map(drop)
}

fn container(kubectl: &Tool) -> anyhow::Result<String> {
    let path = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    kubectl.ok_with(&["-n", "kill", "get", "pod", "still", "-o", &format!("jsonpath={path}")])
}

fn newest(log: &Log) -> u64 {
    log.lock().expect("no holder of this lock panics").values().copied().max().unwrap_or_default()
}

/// Writes until told to stop; an answer that did not come is no acknowledgement.
fn write(endpoint: &Endpoint, writer: usize, log: &Log, stop: &AtomicBool) {
    let mut connection: Option<Connection> = None;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let name = format!("w{writer}-{number}");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": name}});
        let open = connection.take().or_else(|| endpoint.connect().ok());
        let Some(mut open) = open else {
            pause(PERIOD * 4);
            continue;
        };
        let Ok(answer) = open.call("POST", PATH, &body.to_string()) else { continue };
        if answer.code == 201
            && let Some(revision) = revision(&answer.body)
        {
            log.lock().expect("no holder of this lock panics").insert(name, revision);
        }
        connection = Some(open);
        pause(PERIOD);
    }
}

fn revision(body: &[u8]) -> Option<u64> {
    let tree: Value = serde_json::from_slice(body).ok()?;
    tree["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Every acknowledged write is there, the revision has not gone back, and a watcher continues or is told 410.
fn judge(endpoint: &Endpoint, log: &Log, seen: u64) -> anyhow::Result<()> {
    let acknowledged = log.lock().expect("no holder of this lock panics").clone();
    let mut connection = endpoint.connect()?;
    let list: Value = serde_json::from_slice(&connection.call("GET", PATH, "")?.body)?;
    let at: u64 = list["metadata"]["resourceVersion"].as_str().context("the list has no revision")?.parse()?;
    let highest = acknowledged.values().copied().max().unwrap_or_default();
    ensure!(at >= highest, "the list is at {at}, but {highest} was acknowledged");
    let items = list["items"].as_array().context("the list has no items")?;
    let found: BTreeMap<&str, &Value> =
        items.iter().filter_map(|item| Some((item["metadata"]["name"].as_str()?, item))).collect();
    for (name, revision) in &acknowledged {
        let item = found.get(name.as_str()).with_context(|| format!("{name}, acknowledged at {revision}, is lost"))?;
        let now = item["metadata"]["resourceVersion"].as_str();
        ensure!(now == Some(&revision.to_string()), "{name} changed its revision");
        ensure!(item["data"]["n"] == name.as_str(), "{name} changed its content");
    }
    let path = format!("{PATH}?watch=1&timeoutSeconds=1&resourceVersion={seen}");
    let answer = connection.call("GET", &path, "")?;
    let text = String::from_utf8_lossy(&answer.body);
    let continued = answer.code == 200 && (text.is_empty() || text.contains("\"type\":"));
    ensure!(continued || answer.code == 410, "the watch from {seen} answered {}", answer.code);
    Ok(())
}
