//! A name that was known goes on being answered: while the server restarts or is killed, while another program takes
//! over, and when the process that serves names is killed.

use std::fs;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::{Cluster, eventually, pause};
use serde_json::Value;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: names}
---
apiVersion: v1
kind: Service
metadata: {name: known, namespace: names}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: asker, namespace: names}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "evenkeel.local/busybox:1", command: [sleep, "97531"]}]
"#;
const LATE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: late, namespace: names}
spec: {ports: [{port: 80}]}
"#;
const NAME: &str = "known.names.svc.cluster.local";
/// Questions a second.
const RATE: f64 = 60.0;
const LEAST_RATE: f64 = 50.0;
const BOUND: Duration = Duration::from_secs(60);
/// Time without a server.
const DOWN: Duration = Duration::from_secs(2);

/// Runs alone: it restarts the server.
pub fn outlive(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok_fed("apply -f -", OBJECTS)?;
    kubectl.ok("-n names wait pod/asker --for=condition=Ready --timeout=60s")?;
    let server = kubectl.ok("-n names exec asker -- cat /etc/resolv.conf")?;
    let server = server.lines().find_map(|line| line.strip_prefix("nameserver ")).context("no name server")?;
    let first = eventually("names are served", BOUND, || serving(cluster))?;
    let powers = cluster.host.tool("grep")?.ok(&format!("CapEff /proc/{first}/status"))?;
    ensure!(powers.trim().ends_with("\t0000000000000000"), "the process of names has capabilities: {powers}");
    let asking = Asking::start(cluster, server)?;

    cluster.stop_server()?;
    pause(DOWN);
    cluster.start_server()?;
    cluster.kill_server()?;
    pause(DOWN);
    cluster.start_server()?;
    ensure!(serving(cluster)? == first, "the process of names was not adopted");
    kubectl.ok_fed("apply -f -", LATE)?;
    eventually("a name that came later is known", BOUND, || {
        kubectl.ok("-n names exec asker -- busybox nslookup late.names.svc.cluster.local").map(drop)
    })?;

    let (usual, other) = (cluster.binary.clone(), cluster.data.join("evenkeel-of-another-path"));
    fs::hard_link(&usual, &other).or_else(|_| fs::copy(&usual, &other).map(drop)).context("copy the program")?;
    cluster.stop_server()?;
    cluster.binary = other.clone();
    cluster.start_server()?;
    let second = eventually("another program takes over", BOUND, || other_than(cluster, first))?;
    let program = cluster.host.tool("readlink")?.ok(&format!("/proc/{second}/exe"))?;
    ensure!(program.trim() == other.display().to_string(), "names are served by {program}");
    ensure!(!is_alive(cluster, first)?, "the old process still runs");

    cluster.host.tool("kill")?.ok(&format!("-9 {second}"))?;
    let third = eventually("a killed process comes back", BOUND, || other_than(cluster, second))?;
    cluster.stop_server()?;
    cluster.binary = usual;
    cluster.start_server()?;
    eventually("the usual program takes over again", BOUND, || other_than(cluster, third))?;
    pause(DOWN);
    asking.end()?;
    kubectl.ok("delete namespace names --timeout=60s").map(drop)
}

/// The process that serves names, as `status` says.
fn serving(cluster: &Cluster) -> anyhow::Result<u64> {
    let data = cluster.data.display().to_string();
    let status = cluster.evenkeel()?.call(&["status", "--json", "--data-dir", &data], "")?;
    let report: Value = serde_json::from_str(&status.stdout).with_context(|| format!("{status:?}"))?;
    report["names"].as_u64().with_context(|| format!("status says {report}"))
}

fn other_than(cluster: &Cluster, old: u64) -> anyhow::Result<u64> {
    let new = serving(cluster)?;
    ensure!(new != old && !is_alive(cluster, old)?, "process {old} is still there");
    Ok(new)
}

fn is_alive(cluster: &Cluster, pid: u64) -> anyhow::Result<bool> {
    Ok(cluster.host.tool("test")?.call(&["-e", &format!("/proc/{pid}/exe")], "")?.success)
}

/// Questions from the pod's network at a steady rate, asked by a process that needs no API server.
struct Asking {
    process: Child,
}

// === impl Asking ===

impl Asking {
    fn start(cluster: &Cluster, server: &str) -> anyhow::Result<Asking> {
        let pids = cluster.host.tool("pgrep")?.ok_with(&["-x", "-f", "sleep 97531"])?;
        let pid = pids.lines().next().context("the pod has no process")?;
        let script = include_str!("names.py");
        let rate = RATE.to_string();
        let words = ["-t", pid, "-n", "--", "python3", "-c", script, server, NAME, &rate];
        Ok(Asking { process: cluster.host.tool("nsenter")?.spawn_with(&words)? })
    }

    /// Ends the questions: none may have failed.
    fn end(mut self) -> anyhow::Result<()> {
        drop(self.process.stdin.take());
        let output = self.process.wait_with_output().context("wait for the questions")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("done "));
        let line = line.with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        let numbers: Vec<f64> = line.split(' ').skip(1).map_while(|word| word.parse().ok()).collect();
        let [made, failed, seconds, slowest] = numbers[..] else { bail!("{line}") };
        println!("{made} questions in {seconds} s, {failed} failed, the slowest took {slowest} s");
        ensure!(failed == 0.0, "{line}");
        ensure!(made >= LEAST_RATE * seconds, "too few: {line}");
        Ok(())
    }
}
