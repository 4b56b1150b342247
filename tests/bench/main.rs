//! The performance figures of one run, as one JSON object on standard output. Progress goes to standard error.
//!
//! What each key means and what it should be is in `docs/figures.md`. Started by `cargo xtask bench`, which builds the
//! server for release and names it in `EVENKEEL_BIN`. Words on the command line choose parts by their names.

mod api;
mod backup;
mod machine;
mod pods;
mod rack;
mod upgrade;
mod wrong;

use std::time::Instant;

use anyhow::Context;
use e2e::{Cluster, Options};
use serde_json::{Map, Value, json};

/// Figures under their keys.
type Measure = fn() -> anyhow::Result<Vec<(&'static str, Value)>>;

/// What has clusters of its own, one after the other.
const ALONE: [(&str, Measure); 3] =
    [("backups", backup::measure), ("three servers", rack::measure), ("upgrade", upgrade::measure)];

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |what: &str| words.is_empty() || words.iter().any(|word| what.contains(word.as_str()));
    let mut figures = Map::new();
    if wanted("one server") {
        one_server(&mut figures)?;
    }
    for (what, measure) in ALONE.into_iter().filter(|(what, _)| wanted(what)) {
        for (key, value) in measure().with_context(|| format!("measure {what}"))? {
            note(&mut figures, key, value);
        }
    }
    println!("{}", serde_json::to_string_pretty(&Value::Object(figures))?);
    Ok(())
}

fn one_server(figures: &mut Map<String, Value>) -> anyhow::Result<()> {
    let start = Instant::now();
    let cluster = Cluster::start(Options::lane("bench", 40))?;
    note(figures, "ready_ms", json!(cluster.ready_after.as_millis() as u64));
    cluster.nodes_ready(1)?;
    note(figures, "node_ready_ms", json!(start.elapsed().as_millis() as u64));
    note(figures, "binary_mb", json!(machine::binary_megabytes()?));
    note(figures, "wrong_ms", json!(wrong::p95_millis(&cluster).context("ask what is wrong")?));
    for (key, value) in api::measure(&cluster).context("measure the API")? {
        note(figures, key, value);
    }
    for (key, value) in pods::measure(&cluster).context("measure pods")? {
        note(figures, key, value);
    }
    Ok(())
}

fn note(figures: &mut Map<String, Value>, key: &str, value: Value) {
    eprintln!("{key} {value}");
    figures.insert(key.to_owned(), value);
}
