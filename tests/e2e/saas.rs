//! The example application: deployed once, serving, and surviving what happens to it.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use e2e::{Cluster, Tool, eventually, pause};
use serde_json::Value;

const BOUND: Duration = Duration::from_secs(120);
/// New connections a second: from a pod half by name and half by address, and from outside as many.
const RATE: u32 = 60;
/// Of both sides together: fifty each.
const LEAST_RATE: f64 = 100.0;
/// Long enough for three restarts.
const LOAD_TIME: Duration = Duration::from_secs(40);

/// The story of the example. Runs alone: it restarts the server and reboots the host.
pub fn story(cluster: &mut Cluster) -> anyhow::Result<()> {
    deploy(cluster)?;
    let row = post(cluster, "before")?;
    targets(cluster)?;
    restarts_under_load(cluster)?;
    kill_pods(cluster)?;
    read_back(cluster, row, "before")?;
    kill_containerd(cluster)?;
    cluster.reboot()?;
    healthy(cluster).context("after the reboot")?;
    eventually("the row is still there", BOUND, || read_back(cluster, row, "before"))?;
    backup_wipe_restore(cluster, row)
}

/// The machine's state comes back out of a bundle: objects, secrets and certificates. Volumes are not in it, and the
/// bundle says so.
fn backup_wipe_restore(cluster: &mut Cluster, row: u64) -> anyhow::Result<()> {
    let keep = std::env::temp_dir().join(format!("evenkeel-e2e-bundle-{}", cluster.number()));
    std::fs::create_dir_all(&keep)?;
    let (bundle, passphrase) = (keep.join("bundle"), keep.join("passphrase"));
    std::fs::write(&passphrase, "a long enough passphrase\n")?;
    let data = cluster.data.clone();
    let sealed =
        format!("--data-dir={} --file={} --passphrase-file={}", data.display(), bundle.display(), passphrase.display());
    cluster.evenkeel()?.ok(&format!("backup {sealed}"))?;
    let with_rows = rows_are_backed_up(cluster, &keep)?;
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
    let restored = eventually("a row is stored after the restore", BOUND, || post(cluster, "restored"))?;
    read_back(cluster, restored, "restored")?;
    rows_come_back(cluster, &keep, &with_rows)?;
    eventually("the row of before is there again", BOUND, || read_back(cluster, row, "before")).with_context(|| {
        let told = ["get pods -o wide", "logs postgres-0 --tail=20", "logs -l app=api --tail=20", "get events"];
        told.map(|words| kubectl(cluster).ok(words).unwrap_or_else(|error| format!("{error:#}"))).join("\n")
    })?;
    std::fs::remove_dir_all(&keep).context("remove the bundle")
}

/// What PostgreSQL keeps goes along with a backup by its own hook, and is brought to life for the proof. Answers the
/// bundle's name; it and what lies beside it are kept off the machine, with the kit.
fn rows_are_backed_up(cluster: &Cluster, keep: &Path) -> anyhow::Result<String> {
    let (evenkeel, data) = (cluster.evenkeel()?, cluster.data.display().to_string());
    let said = evenkeel.ok(&format!("backup --data-dir={data}"))?;
    ensure!(said.contains("saas/postgres: ") && said.contains("kept beside it"), "{said}");
    let said = evenkeel.ok(&format!("backup prove --data-dir={data}"))?;
    let check = said.lines().find(|line| line.contains("app saas/postgres")).context(said.clone())?;
    ensure!(check.trim_start().starts_with("ok") && check.contains("brought to life: it measures"), "{said}");
    println!("{}", check.trim());
    let listed = kubectl(cluster).ok("get pods -o name")?;
    ensure!(!listed.contains("evenkeel-proof"), "the pod of the proof is still there: {listed}");
    let mut newest = String::new();
    for entry in std::fs::read_dir(cluster.data.join("backups"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        std::fs::copy(entry.path(), keep.join(&name))?;
        if name.ends_with(".bundle") {
            newest = newest.max(name);
        }
    }
    std::fs::copy(cluster.data.join("server/recovery-kit.txt"), keep.join("kit"))?;
    Ok(newest)
}

/// The database of the restored cluster is a new one, until it gets what the old one gave.
fn rows_come_back(cluster: &Cluster, keep: &Path, bundle: &str) -> anyhow::Result<()> {
    let (kubectl, keep) = (kubectl(cluster), keep.display());
    let evenkeel = cluster.evenkeel()?;
    let words = |tool: &Tool| -> Vec<String> {
        let leading = tool.leading.iter().map(|word| word.to_string_lossy().into_owned());
        [tool.program.display().to_string()].into_iter().chain(leading).collect()
    };
    let restore = "set -eu; mkdir -m 0700 $PGDATA.new; busybox tar -x -C $PGDATA.new; mv $PGDATA.new $PGDATA.restored; \
                   kill -INT 1";
    let (extract, exec) = (words(&evenkeel).join(" "), words(&kubectl).join(" "));
    let line = format!(
        "{extract} backup extract {keep}/{bundle} saas/postgres --secret-file={keep}/kit | \
         {exec} exec -i postgres-0 -- /bin/sh -c '{restore}'"
    );
    let mut shell = Tool::new("bash");
    shell.environment = kubectl.environment.clone();
    shell.ok_with(&["-o", "pipefail", "-c", &line])?;
    Ok(())
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
    let address = kubectl(cluster).ok("get service api -o jsonpath={.spec.clusterIP}")?;
    let node = cluster.host.address.clone();
    let loads = vec![
        Load::in_pod(cluster, "from a pod by name", "api.saas.svc.cluster.local", RATE / 2)?,
        Load::in_pod(cluster, "from a pod by address", &address, RATE / 2)?,
        Load::start("from outside", &Tool::new("python3"), &[], &node, 30080, RATE)?,
    ];
    let start = Instant::now();
    for _ in 0..3 {
        cluster.stop_server()?;
        pause(Duration::from_secs(2));
        cluster.start_server()?;
    }
    let took = start.elapsed();
    ensure!(took < LOAD_TIME, "the load ended before the third restart: {took:?}");
    let total = loads.into_iter().map(Load::end).sum::<anyhow::Result<f64>>()?;
    ensure!(total >= LEAST_RATE, "only {total:.0} connections a second");
    Ok(())
}

/// New connections at a steady rate, made by a process that needs no API server.
struct Load {
    name: &'static str,
    process: Child,
}

// === impl Load ===

impl Load {
    fn start(
        name: &'static str,
        tool: &Tool,
        leading: &[&str],
        host: &str,
        port: u16,
        rate: u32,
    ) -> anyhow::Result<Load> {
        let (port, rate, seconds) = (port.to_string(), rate.to_string(), LOAD_TIME.as_secs().to_string());
        let words = [leading, &["-c", include_str!("load.py"), host, &port, &rate, &seconds]].concat();
        Ok(Load { name, process: tool.spawn_with(&words)? })
    }

    /// In the namespaces of a worker pod, entered from the host.
    fn in_pod(cluster: &Cluster, name: &'static str, host: &str, rate: u32) -> anyhow::Result<Load> {
        let pids = cluster.host.tool("pgrep")?.ok("-f /app/worker.py")?;
        let pid = pids.lines().next().context("no worker process")?;
        let enter = cluster.host.tool("nsenter")?;
        Load::start(name, &enter, &["-t", pid, "-n", "-m", "--", "/usr/bin/python3"], host, 80, rate)
    }

    /// Waits for the end; none may have failed. Returns connections a second.
    fn end(self) -> anyhow::Result<f64> {
        let Load { name, process } = self;
        let output = process.wait_with_output().context("wait for the load")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("done "));
        let line = line.with_context(|| format!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        let numbers: Vec<f64> = line.split(' ').skip(1).map_while(|word| word.parse().ok()).collect();
        let [made, failed, seconds] = numbers[..] else { bail!("{name}: {line}") };
        println!("{name}: {made} connections in {seconds} s, {failed} failed");
        ensure!(made > 0.0 && failed == 0.0, "{name}: {line}");
        Ok(made / seconds)
    }
}

/// Every process of the application is killed in turn and comes back.
fn kill_pods(cluster: &Cluster) -> anyhow::Result<()> {
    let patterns = [
        ("api", "/app/api.py"),
        ("worker", "/app/worker.py"),
        ("prometheus", "/usr/bin/prometheus"),
        ("postgres", "/usr/lib/postgresql/15/bin/postgres"),
    ];
    for (app, pattern) in patterns {
        let before = restarts(cluster, app)?;
        let pids = cluster.host.tool("pgrep")?.ok_with(&["-o", "-f", pattern])?;
        cluster.host.tool("kill")?.ok(&format!("-9 {}", pids.trim()))?;
        eventually(app, BOUND, || {
            ensure!(restarts(cluster, app)? > before, "no restart is counted");
            Ok(())
        })?;
        healthy(cluster).with_context(|| format!("after {app} was killed"))?;
    }
    let row = eventually("a row is stored again", BOUND, || post(cluster, "after"))?;
    read_back(cluster, row, "after")
}

/// Nobody but the runtime itself notices that it was killed: no container restarts, and the application serves.
fn kill_containerd(cluster: &Cluster) -> anyhow::Result<()> {
    let apps = ["api", "worker", "prometheus", "postgres"];
    let count = || apps.iter().map(|app| restarts(cluster, app)).collect::<anyhow::Result<Vec<u32>>>();
    let before = count()?;
    cluster.kill_containerd()?;
    let row = post(cluster, "runtime").context("after containerd was killed")?;
    read_back(cluster, row, "runtime")?;
    healthy(cluster).context("after containerd was killed")?;
    let after = count()?;
    ensure!(before == after, "containers of {apps:?} restarted: {before:?} became {after:?}");
    Ok(())
}

fn restarts(cluster: &Cluster, app: &str) -> anyhow::Result<u32> {
    let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let text = kubectl(cluster).ok(&format!("get pods -l app={app} -o {path}"))?;
    Ok(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()).sum())
}
