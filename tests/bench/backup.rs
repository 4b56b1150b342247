//! What a proof of a backup costs, of a server with five thousand objects.

use anyhow::{Context, ensure};
use e2e::{Cluster, Endpoint, Options};
use serde_json::{Value, json};

use super::api;

pub fn measure() -> anyhow::Result<Vec<(&'static str, Value)>> {
    let mut options = Options::lane("bench-proof", 41);
    options.arguments = vec!["--backup-schedule=off".to_owned()];
    let cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    cluster.nodes_ready(1)?;
    kubectl.ok("create namespace bench")?;
    api::fill(&Endpoint::of(&kubectl)?)?;
    let (evenkeel, data) = (cluster.evenkeel()?, format!("--data-dir={}", cluster.data.display()));
    evenkeel.ok(&format!("backup {data}"))?;
    let evidence: Value = serde_json::from_str(&evenkeel.ok(&format!("backup prove --json {data}"))?)?;
    ensure!(evidence["passed"] == true, "the proof failed: {evidence:#}");
    let proof = evidence["millis"].as_u64().context("a proof takes time")?;
    Ok(vec![("scratch_restore_s", json!((proof as f64 / 100.0).round() / 10.0))])
}
