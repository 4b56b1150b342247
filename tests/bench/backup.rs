//! What a disaster costs: a proof of a backup, and a server with five thousand objects back from nothing.

use std::time::Instant;

use anyhow::{Context, ensure};
use e2e::{Cluster, Endpoint, Options};
use serde_json::{Value, json};

use super::api;

pub fn measure() -> anyhow::Result<Vec<(&'static str, Value)>> {
    let mut options = Options::lane("bench-restore", 41);
    options.arguments = vec!["--backup-schedule=off".to_owned()];
    let mut cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    kubectl.ok("wait nodes --all --for=condition=Ready --timeout=60s")?;
    api::fill(&kubectl, &Endpoint::of(&kubectl)?)?;
    let (evenkeel, data) = (cluster.evenkeel()?, format!("--data-dir={}", cluster.data.display()));
    evenkeel.ok(&format!("backup {data}"))?;
    let evidence: Value = serde_json::from_str(&evenkeel.ok(&format!("backup prove --json {data}"))?)?;
    ensure!(evidence["passed"] == true, "the proof failed: {evidence:#}");
    let proof = evidence["millis"].as_u64().context("a proof takes time")?;
    let keep = cluster.data.with_extension("keep");
    std::fs::create_dir_all(&keep)?;
    let (bundle, kit) = (keep.join("bundle"), keep.join("kit"));
    evenkeel.ok(&format!("backup {data} --file={}", bundle.display()))?;
    std::fs::copy(cluster.data.join("server/recovery-kit.txt"), &kit)?;
    cluster.power_cycle()?;
    cluster.wipe()?;
    let start = Instant::now();
    let words = format!("restore {} {data} --secret-file={}", bundle.display(), kit.display());
    cluster.evenkeel()?.ok(&words)?;
    cluster.start_server()?;
    let back = start.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&keep)?;
    let seconds = |value: f64| json!((value * 10.0).round() / 10.0);
    Ok(vec![("scratch_restore_s", seconds(proof as f64 / 1000.0)), ("restore_from_nothing_s", seconds(back))])
}
