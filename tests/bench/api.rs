//! Load on the API: creations, lists, deletion of a collection, fan-out to watchers.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, Connection, Endpoint, pause};
use serde_json::{Value, json};

const OBJECTS: usize = 5000;
const OBJECT_BYTES: usize = 1024;
const CONNECTIONS: usize = 16;
const ALONE: usize = 1000;
const LISTS: usize = 15;
const WATCHERS: usize = 200;
const EVENTS: usize = 50;
const PATH: &str = "/api/v1/namespaces/bench/configmaps";

pub fn measure(cluster: &Cluster) -> anyhow::Result<Vec<(&'static str, Value)>> {
    cluster.kubectl().ok("create namespace bench")?;
    let endpoint = Endpoint::of(&cluster.kubectl())?;
    let mut figures = vec![("create_per_s", json!(create(&endpoint, "many", OBJECTS, CONNECTIONS)?))];
    figures.push(("list5000_ms", json!(list(&endpoint)?)));
    figures.push(("delete5000_ms", json!(delete(&endpoint)?)));
    figures.push(("create1_per_s", json!(create(&endpoint, "alone", ALONE, 1)?)));
    delete(&endpoint)?;
    figures.push(("watch200_p99_ms", json!(watch(&endpoint)?)));
    delete(&endpoint)?;
    Ok(figures)
}

/// Five thousand objects in the namespace `bench`, for what measures a cluster that holds some; answers how many were
/// made a second.
pub fn fill(endpoint: &Endpoint) -> anyhow::Result<f64> {
    create(endpoint, "many", OBJECTS, CONNECTIONS)
}

fn config_map(name: &str) -> String {
    let data = "x".repeat(OBJECT_BYTES);
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": data}}).to_string()
}

/// Creations a second over all connections.
fn create(endpoint: &Endpoint, prefix: &str, count: usize, connections: usize) -> anyhow::Result<f64> {
    let next = AtomicUsize::new(0);
    let open: Vec<Connection> = (0..connections).map(|_| endpoint.connect()).collect::<Result<_, _>>()?;
    let start = Instant::now();
    let outcomes: Vec<anyhow::Result<()>> = thread::scope(|scope| {
        let workers = open.into_iter().map(|mut connection| {
            let next = &next;
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok(());
                    }
                    let answer = connection.call("POST", PATH, &config_map(&format!("{prefix}-{number:05}")))?;
                    ensure!(answer.code == 201, "create answered {}", answer.code);
                }
            })
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().map(|worker| worker.join().expect("workers return errors")).collect()
    });
    outcomes.into_iter().collect::<anyhow::Result<()>>()?;
    Ok((count as f64 / start.elapsed().as_secs_f64()).round())
}

/// Median milliseconds of a LIST of everything.
fn list(endpoint: &Endpoint) -> anyhow::Result<f64> {
    let mut connection = endpoint.connect()?;
    let mut took = Vec::new();
    for _ in 0..LISTS {
        let start = Instant::now();
        let answer = connection.call("GET", PATH, "")?;
        took.push(milliseconds(start.elapsed()));
        ensure!(answer.code == 200 && answer.body.len() > OBJECTS * OBJECT_BYTES, "the list is incomplete");
    }
    Ok(percentile(took, 50))
}

fn delete(endpoint: &Endpoint) -> anyhow::Result<f64> {
    let mut connection = endpoint.connect()?;
    let start = Instant::now();
    let answer = connection.call("DELETE", PATH, "")?;
    ensure!(answer.code == 200, "delete collection answered {}", answer.code);
    Ok(milliseconds(start.elapsed()))
}

/// 99th percentile of the time from a write's acknowledgement until the last watcher has read its event.
fn watch(endpoint: &Endpoint) -> anyhow::Result<f64> {
    let mut writer = endpoint.connect()?;
    let first: Value = serde_json::from_slice(&writer.call("GET", &format!("{PATH}?limit=1"), "")?.body)?;
    let revision = first["metadata"]["resourceVersion"].as_str().context("the list has no revision")?.to_owned();
    let path = format!("{PATH}?watch=1&timeoutSeconds=120&resourceVersion={revision}");
    let ready = Barrier::new(WATCHERS + 1);
    let (seen, arrivals) = mpsc::channel::<(usize, Instant)>();
    thread::scope(|scope| {
        for _ in 0..WATCHERS {
            let (seen, ready, path) = (seen.clone(), &ready, &path);
            let mut connection = endpoint.connect()?;
            scope.spawn(move || follow(&mut connection, path, ready, &seen));
        }
        drop(seen);
        ready.wait();
        let mut acknowledged = Vec::new();
        for number in 0..EVENTS {
            let answer = writer.call("POST", PATH, &config_map(&format!("wat-{number:05}")))?;
            ensure!(answer.code == 201, "create answered {}", answer.code);
            acknowledged.push(Instant::now());
            // One event at a time: the figure is latency, not throughput.
            pause(Duration::from_millis(50));
        }
        let mut last = vec![0.0_f64; EVENTS];
        for (number, at) in arrivals {
            let late = milliseconds(at.saturating_duration_since(acknowledged[number]));
            last[number] = last[number].max(late);
        }
        Ok(percentile(last, 99))
    })
}

/// Reads events until all were seen, reporting when each arrived.
fn follow(connection: &mut Connection, path: &str, ready: &Barrier, seen: &mpsc::Sender<(usize, Instant)>) {
    let started = connection.watch(path);
    ready.wait();
    let mut pending = Vec::new();
    let mut count = 0;
    while started.is_ok() && count < EVENTS {
        let Ok(Some(chunk)) = connection.chunk() else { return };
        let at = Instant::now();
        pending.extend(chunk);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if let Some(number) = number_of(&line) {
                count += 1;
                let _ = seen.send((number, at));
            }
        }
    }
}

fn number_of(line: &[u8]) -> Option<usize> {
    let mark = b"\"name\":\"wat-";
    let at = line.windows(mark.len()).position(|window| window == mark)? + mark.len();
    std::str::from_utf8(line.get(at..at + 5)?).ok()?.parse().ok()
}

fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 100_000.0).round() / 100.0
}

pub fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or_default()
}
