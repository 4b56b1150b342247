//! The performance figures of one run, as one JSON object on standard output. Progress goes to standard error.
//!
//! Started by `cargo xtask bench`, which builds the server for release and names it in `EVENKEEL_BIN`.

mod api;
mod backup;
mod machine;
mod pods;
mod rack;
mod wrong;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, Options, eventually};
use serde_json::{Map, Value, json};

fn main() -> anyhow::Result<()> {
    let mut figures = Map::new();
    let start = Instant::now();
    let cluster = Cluster::start(Options::lane("bench", 40))?;
    note(&mut figures, "ready_ms", json!(cluster.ready_after.as_millis() as u64));
    // `wait --all` fails where there is no node yet.
    eventually("the node is ready", Duration::from_secs(60), || {
        let ready =
            cluster.kubectl().ok("get nodes -o jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}")?;
        ensure!(ready == "True", "the node's Ready condition is {ready:?}");
        Ok(())
    })?;
    note(&mut figures, "node_ready_ms", json!(start.elapsed().as_millis() as u64));
    note(&mut figures, "binary_mb", json!(machine::binary_megabytes()?));
    note(&mut figures, "wrong_ms", json!(wrong::p95_millis(&cluster).context("ask what is wrong")?));
    for (key, value) in api::measure(&cluster).context("measure the API")? {
        note(&mut figures, key, value);
    }
    for (key, value) in pods::measure(&cluster).context("measure pods")? {
        note(&mut figures, key, value);
    }
    drop(cluster);
    for (key, value) in backup::measure().context("measure backup and restore")? {
        note(&mut figures, key, value);
    }
    for (key, value) in rack::measure().context("measure three servers")? {
        note(&mut figures, key, value);
    }
    println!("{}", serde_json::to_string_pretty(&Value::Object(figures))?);
    Ok(())
}

fn note(figures: &mut Map<String, Value>, key: &str, value: Value) {
    eprintln!("{key} {value}");
    figures.insert(key.to_owned(), value);
}
