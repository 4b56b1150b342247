//! Pods: how fast one starts, and what a node with twenty idle ones costs.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, eventually, pause};
use serde_json::{Value, json};

use crate::api::percentile;
use crate::machine;

const STARTS: usize = 11;
const IDLE_PODS: usize = 20;
/// Time for the node to come to rest, and then the time measured.
const SETTLE: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_secs(60);

pub fn measure(cluster: &Cluster) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let mut figures = vec![("pod_start_p50_ms", json!(starts(cluster)?))];
    idle(cluster, &mut figures)?;
    Ok(figures)
}

fn starts(cluster: &Cluster) -> anyhow::Result<f64> {
    let kubectl = cluster.kubectl();
    let mut took = Vec::new();
    for number in 0..STARTS {
        let name = format!("start-{number}");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "bench"}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "evenkeel.local/busybox:1", "command": ["sleep", "3600"]}]}});
        kubectl.ok_fed("create -f -", &pod.to_string())?;
        let created = Instant::now();
        kubectl.ok(&format!("-n bench wait --for=jsonpath={{.status.phase}}=Running pod/{name} --timeout=60s"))?;
        took.push(created.elapsed().as_secs_f64() * 1000.0);
        kubectl.ok(&format!("-n bench delete pod {name} --now"))?;
    }
    Ok(percentile(took, 50).round())
}

fn idle(cluster: &Cluster, figures: &mut Vec<(&'static str, Value)>) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok("-n bench create deployment idle --image=evenkeel.local/busybox:1 -- sleep 36000")?;
    kubectl.ok(&format!("-n bench scale deployment idle --replicas={IDLE_PODS}"))?;
    kubectl.ok("-n bench rollout status deployment/idle --timeout=180s")?;
    eventually("all pods run", Duration::from_secs(60), || {
        let names = kubectl.ok("-n bench get pods --field-selector=status.phase=Running -o name")?;
        ensure!(names.lines().count() >= IDLE_PODS, "{} run", names.lines().count());
        Ok(())
    })?;
    pause(SETTLE);
    let before = machine::usage(&cluster.data)?;
    pause(MEASURED);
    let after = machine::usage(&cluster.data)?;
    let of = |group: &str| after.get(group).copied().unwrap_or_default();
    let ours = before.get("evenkeel").copied().context("no process of the server was found")?;
    let spent = of("evenkeel").processor_seconds - ours.processor_seconds;
    let round = |value: f64| json!((value * 10.0).round() / 10.0);
    figures.push(("rss_idle_mb", round(of("evenkeel").megabytes)));
    figures.push(("containerd_mb", round(of("containerd").megabytes)));
    figures.push(("shims_mb", round(of("shims").megabytes)));
    figures.push(("cpu_idle_pct", json!((spent / MEASURED.as_secs_f64() * 10_000.0).round() / 100.0)));
    Ok(())
}
