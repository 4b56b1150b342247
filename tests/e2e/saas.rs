//! The example application: deployed once, serving, and surviving what happens to it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Cluster, Tool, eventually, pause};
use serde_json::Value;

const BOUND: Duration = Duration::from_secs(120);
/// New connections a second, from each of the two sides.
const LOAD_PERIOD: &str = "0.02";

/// The story of the example. Runs alone: it restarts the server and reboots the host.
pub fn story(cluster: &mut Cluster) -> anyhow::Result<()> {
    deploy(cluster)?;
    let row = post(cluster, "before")?;
    targets(cluster)?;
    restarts_under_load(cluster)?;
    kill_pods(cluster)?;
    read_back(cluster, row, "before")?;
    cluster.reboot()?;
    healthy(cluster).context("after the reboot")?;
    eventually("the row is still there", BOUND, || read_back(cluster, row, "before"))?;
    backup_wipe_restore(cluster)
}

/// The machine's state comes back out of a bundle: objects, secrets and certificates. Volumes are not in it, and the
/// bundle says so.
fn backup_wipe_restore(cluster: &mut Cluster) -> anyhow::Result<()> {
    let keep = std::env::temp_dir().join("evenkeel-e2e-bundle");
    std::fs::create_dir_all(&keep)?;
    let (bundle, passphrase) = (keep.join("bundle"), keep.join("passphrase"));
    std::fs::write(&passphrase, "a long enough passphrase\n")?;
    let data = cluster.data.clone();
    let sealed =
        format!("--data-dir={} --file={} --passphrase-file={}", data.display(), bundle.display(), passphrase.display());
    cluster.evenkeel()?.ok(&format!("backup {sealed}"))?;
    let secret = "get secret database -o jsonpath={.data.password}";
    let before = kubectl(cluster).ok(secret)?;
    let claims = cluster.kubectl().ok("get clusterroles -o name")?.lines().count();
    cluster.power_cycle()?;
    cluster.wipe()?;
    cluster.evenkeel()?.ok(&format!("restore {sealed}"))?;
    cluster.start_server()?;
    ensure!(kubectl(cluster).ok(secret)? == before, "the secret does not decrypt to what it was");
    ensure!(cluster.kubectl().ok("get clusterroles -o name")?.lines().count() == claims, "objects are missing");
    healthy(cluster).context("after the restore")?;
    let row = eventually("a row is stored after the restore", BOUND, || post(cluster, "restored"))?;
    read_back(cluster, row, "restored")?;
    std::fs::remove_dir_all(&keep).context("remove the bundle")
}

/// `kubectl` in the application's namespace.
fn kubectl(cluster: &Cluster) -> Tool {
    let mut kubectl = cluster.kubectl();
    kubectl.leading.push("--namespace=saas".into());
    kubectl
}

fn deploy(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/saas");
    cluster.kubectl().ok(&format!("apply -f {}", folder.display()))?;
    healthy(cluster)
}

fn healthy(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = kubectl(cluster);
    kubectl.ok("rollout status statefulset/postgres --timeout=180s")?;
    for name in ["api", "worker", "prometheus"] {
        kubectl.ok(&format!("rollout status deployment/{name} --timeout=180s"))?;
    }
    Ok(())
}

/// Calls the API by name from a pod.
fn call(cluster: &Cluster, words: &str) -> anyhow::Result<String> {
    kubectl(cluster).ok(&format!("exec deployment/worker -- busybox wget -q -O - {words}"))
}

fn post(cluster: &Cluster, text: &str) -> anyhow::Result<u64> {
    let answer =
        eventually("a row is stored", BOUND, || call(cluster, &format!("--post-data={text} http://api/items")))?;
    let tree: Value = serde_json::from_str(&answer).with_context(|| format!("the answer {answer:?}"))?;
    tree["id"].as_u64().with_context(|| format!("no id in {answer}"))
}

fn read_back(cluster: &Cluster, row: u64, text: &str) -> anyhow::Result<()> {
    let answer = call(cluster, &format!("http://api/items/{row}"))?;
    let tree: Value = serde_json::from_str(&answer).with_context(|| format!("the answer {answer:?}"))?;
    ensure!(tree["text"] == text, "row {row} is {answer}");
    eventually("the worker marks it done", BOUND, || {
        let answer = call(cluster, &format!("http://api/items/{row}"))?;
        ensure!(answer.contains("\"done\": true"), "{answer}");
        Ok(())
    })
}

/// Prometheus found the pods through the API and scrapes them.
fn targets(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("Prometheus sees three targets up", BOUND, || {
        let answer = call(cluster, "http://prometheus:9090/api/v1/query?query=up")?;
        let tree: Value = serde_json::from_str(&answer)?;
        let results = tree["data"]["result"].as_array().context("no result")?;
        let up = results.iter().filter(|result| result["value"][1] == "1").count();
        ensure!(up >= 3, "{up} targets are up: {answer}");
        Ok(())
    })
}

/// Three restarts of the server, every connection through the Service succeeds: from a pod by name and by address, and
/// from outside.
fn restarts_under_load(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = kubectl(cluster);
    let address = kubectl.ok("get service api -o jsonpath={.spec.clusterIP}")?;
    let node = format!("http://{}:30080/", cluster.host.address);
    let loop_of = |url: &str| {
        format!(
            "n=0; bad=0; end=$(($(date +%s)+25)); while [ $(date +%s) -lt $end ]; do \
            busybox wget -q -O /dev/null {url} || bad=$((bad+1)); n=$((n+1)); sleep {LOAD_PERIOD}; done; echo done $n $bad"
        )
    };
    // Inside: through the container runtime, not through the API that is being restarted.
    let mut loads: Vec<(String, Child)> = Vec::new();
    for url in ["http://api.saas.svc.cluster.local/".to_owned(), format!("http://{address}/")] {
        loads.push((format!("from a pod to {url}"), spawn_in_pod(cluster, &loop_of(&url))?));
    }
    loads.push(("from outside".to_owned(), Tool::new("bash").spawn_with(&["-c", &loop_of(&node)])?));
    for _ in 0..3 {
        cluster.stop_server()?;
        pause(Duration::from_secs(2));
        cluster.start_server()?;
    }
    for (name, mut load) in loads {
        let output = BufReader::new(load.stdout.take().context("standard output is piped")?);
        let line = output.lines().map_while(Result::ok).find(|line| line.starts_with("done"));
        load.wait()?;
        let line = line.with_context(|| format!("{name}: the load did not end"))?;
        let numbers: Vec<u64> = line.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect();
        println!("{name}: {} connections, {} failed", numbers[0], numbers[1]);
        ensure!(numbers[0] > 100 && numbers[1] == 0, "{name}: {} of {} failed", numbers[1], numbers[0]);
    }
    Ok(())
}

/// Runs a shell in the network of a worker pod, so that it does not depend on the API server.
fn spawn_in_pod(cluster: &Cluster, script: &str) -> anyhow::Result<Child> {
    let pids = cluster.host.tool("pgrep")?.ok("-f /app/worker.py")?;
    let pid = pids.lines().next().context("no worker process")?.to_owned();
    let resolv = format!("/proc/{pid}/root/etc/resolv.conf");
    let inner = format!("cat {resolv} > /run/resolv.pod && mount --bind /run/resolv.pod /etc/resolv.conf; {script}");
    let enter = cluster.host.tool("nsenter")?;
    enter.spawn_with(&["-t", &pid, "-n", "--", "unshare", "--mount", "--propagation", "private", "bash", "-c", &inner])
}

fn kill_pods(cluster: &Cluster) -> anyhow::Result<()> {
    for pattern in ["/app/api.py", "/app/worker.py", "/usr/bin/prometheus", "/usr/lib/postgresql/15/bin/postgres"] {
        let pids = cluster.host.tool("pgrep")?.ok_with(&["-o", "-f", pattern])?;
        cluster.host.tool("kill")?.ok(&format!("-9 {}", pids.trim()))?;
        eventually(pattern, BOUND, || healthy(cluster))?;
    }
    let row = eventually("a row is stored again", BOUND, || post(cluster, "after"))?;
    read_back(cluster, row, "after")
}
