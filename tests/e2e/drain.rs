//! A node is emptied for maintenance and taken back. Alone on the cluster: it moves everybody's pods.

use std::time::Duration;

use anyhow::ensure;
use e2e::eventually;

use crate::kubectl::deployment;
use crate::session::Session;

pub fn cordon_drain(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-drain")?;
    kubectl.ok_fed("create -f -", &deployment("d", 2, "sleep 9999"))?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}")?;
    kubectl.ok(&format!("cordon {node}"))?;
    ensure!(kubectl.ok("get nodes")?.contains("Ready,SchedulingDisabled"));
    kubectl.ok("create poddisruptionbudget d --selector=app=d --min-available=2")?;
    kubectl.ok("wait pdb/d --for=jsonpath={.status.expectedPods}=2 --timeout=30s")?;
    let drain = format!("drain {node} --pod-selector=app=d --ignore-daemonsets --delete-emptydir-data");
    let words: Vec<&str> = drain.split(' ').chain(["--timeout=8s"]).collect();
    let said = kubectl.call(&words, "")?.failed()?;
    ensure!(said.contains("Cannot evict pod as it would violate the pod's disruption budget"), "{said}");
    ensure!(kubectl.ok("get pods --field-selector=status.phase=Running -o name")?.lines().count() == 2);
    kubectl.ok("delete pdb d")?;
    ensure!(kubectl.ok(&format!("{drain} --timeout=60s"))?.contains("evicted"));
    eventually("replacements wait for a node", Duration::from_secs(30), || {
        ensure!(kubectl.ok("get pods --field-selector=status.phase=Pending -o name")?.lines().count() == 2);
        ensure!(kubectl.ok("events --types=Warning")?.contains("FailedScheduling"));
        Ok(())
    })?;
    kubectl.ok(&format!("uncordon {node}"))?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    let pod = kubectl.ok("get pods -o jsonpath={.items[0].metadata.name}")?;
    kubectl.tells(&format!("events --for=pod/{pod}"), &["Scheduled", "Started"])?;
    kubectl.ok(&format!("delete namespace {} --timeout=60s", session.own("k-drain"))).map(drop)
}
