//! The program's own commands beside a running server: what each must say. The last part stops pods for good, on a
//! cluster that is started again afterwards.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::{Cluster, Tool, cgroups, eventually};
use serde_json::Value;

const SLEEPER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: commands}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: sleeper, image: "evenkeel.local/busybox:1", command: [sleep, "9999"]}]
"#;

/// Everything that only looks, or adds.
pub fn commands(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok_fed("apply -f -", SLEEPER)?;
    kubectl.ok("wait pod/commands --for=condition=Ready --timeout=60s")?;
    let own = Own::of(cluster)?;
    // It fails when something is wrong, and other cases break things on purpose.
    let status = own.tool.call(&["status", "--json", "--data-dir", &own.data], "")?;
    let report: Value = serde_json::from_str(&status.stdout).with_context(|| format!("{status:?}"))?;
    ensure!(report["api"] == "ready" && report["process"].is_u64(), "status says {report}");
    ensure!(report["nodes"][0][1] == "Ready", "status says {report}");
    own.says("certificate check", &["server/tls/serving.crt", "agent/tls/node-client.crt", "system:node:"])?;
    own.says("images ls", &["evenkeel.local/busybox:1", "evenkeel.local/pause:1"])?;
    own.says("ps", &["commands", "sleeper", "running", "evenkeel.local/busybox:1"])?;
    tokens(&own)?;
    passed_through(cluster)?;
    let moved = own.ok("kubeconfig --server https://cluster.example:6443 --name far")?;
    ensure!(moved.contains("server: https://cluster.example:6443") && moved.contains("current-context: far"));
    backup(&own, &cluster.data)?;
    kubectl.ok("delete pod commands --timeout=30s").map(drop)
}

fn tokens(own: &Own) -> anyhow::Result<()> {
    let token = own.ok("token create --description e2e")?;
    ensure!(token.starts_with("K10") && token.contains("::agent:"), "the token is {token:?}");
    let server = own.ok("token create --role server --ttl 0 --description for-ever")?;
    ensure!(server.contains("::server:"), "the token is {server:?}");
    let list = own.ok("token list")?;
    ensure!(list.lines().any(|line| line.contains("server   never") && line.ends_with("for-ever")), "{list}");
    ensure!(!list.contains(token.rsplit(':').next().unwrap_or_default().trim()), "the list shows secrets");
    for (words, wanted) in
        [("create --role owner", "is no role"), ("create --ttl 1y", "365d"), ("delete x", "no token x")]
    {
        let words = format!("token {words} --data-dir={}", own.data);
        let said = own.tool.call(&words.split(' ').collect::<Vec<_>>(), "")?.failed()?;
        ensure!(said.contains(wanted), "{words} says {said}");
    }
    let line = list.lines().find(|line| line.ends_with("e2e")).with_context(|| list.clone())?;
    let id = line.split(' ').next().unwrap_or_default();
    own.ok(&format!("token delete {id}"))?;
    ensure!(!own.ok("token list")?.contains("e2e"), "the token is still listed");
    Ok(())
}

/// What needs no cluster of its own to be right: kubectl found on the machine, completion for shells, the version.
fn passed_through(cluster: &Cluster) -> anyhow::Result<()> {
    let mut evenkeel = cluster.evenkeel()?;
    let tools = cluster.kubectl().program.parent().context("kubectl lies in a folder")?.display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    evenkeel.environment.push(("PATH".into(), format!("{tools}:{path}").into()));
    evenkeel.environment.push(("EVENKEEL_DATA_DIR".into(), cluster.data.clone().into()));
    let said = evenkeel.ok("kubectl get pod commands --output=name")?;
    ensure!(said.trim() == "pod/commands", "kubectl says {said:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = evenkeel.ok(&format!("completion {shell}"))?;
        ensure!(script.contains("check-config") && script.contains("evenkeel"), "{shell}: {script}");
    }
    let script = evenkeel.ok("completion bash")?;
    Tool::new("bash").ok_fed("-n", &script)?;
    let version = evenkeel.ok("version")?;
    ensure!(version.starts_with("evenkeel 0.") && version.contains("Kubernetes v1.36"), "the version is {version:?}");
    laptop(cluster, &evenkeel)
}

/// A kubeconfig that names an address others reach works from elsewhere.
fn laptop(cluster: &Cluster, evenkeel: &Tool) -> anyhow::Result<()> {
    let url = format!("https://{}:6443", cluster.host.address);
    let text = evenkeel.ok(&format!("kubeconfig --server {url} --data-dir={}", cluster.data.display()))?;
    let path = cluster.data.join("laptop.kubeconfig");
    fs::write(&path, text)?;
    // Not on the host, but beside it.
    let mut kubectl = cluster.kubectl();
    kubectl.environment.push(("KUBECONFIG".into(), path.into()));
    kubectl.ok("get --raw /readyz").map(drop)
}

fn backup(own: &Own, data: &Path) -> anyhow::Result<()> {
    let (secret, file) = (data.join("passphrase"), data.join("backup.tar"));
    fs::write(&secret, "correct horse\n")?;
    let words = format!("backup --file={} --passphrase-file={}", file.display(), secret.display());
    own.says(&format!("{words} --dry-run"), &["would write", "objects at revision"])?;
    ensure!(!file.exists(), "a dry run wrote {}", file.display());
    own.says("backup --dry-run", &["would be kept there, beside"])?;
    own.says(&words, &["objects at revision", "open with: a passphrase", "not in it: the content of volumes"])?;
    let members = Tool::new("tar").ok(&format!("tf {}", file.display()))?;
    ensure!(members.lines().eq(["manifest.json", "store.snapshot", "keys.sealed"]), "the bundle holds {members}");
    Ok(())
}

/// `stop` leaves pods, `stop --pods` leaves nothing: no containerd, no names, no cgroup. Then the cluster is started again.
pub fn stops(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok_fed("apply -f -", SLEEPER)?;
    kubectl.ok("wait pod/commands --for=condition=Ready --timeout=60s")?;
    let own = Own::of(cluster)?;
    cluster.stop_server()?;
    own.says("ps", &["commands", "running"])?;
    let down = own.tool.call(&["status", "--data-dir", &own.data], "")?;
    ensure!(down.code == 2 && down.stdout.contains("Evenkeel does not run on"), "with the API down: {down:?}");
    ensure!(down.stdout.contains("evenkeel   not on this machine"), "with the API down: {down:?}");
    ensure!(
        down.stdout.contains(" run here") && down.stdout.contains("systemctl start evenkeel"),
        "with the API down: {down:?}"
    );
    ensure!(!cgroups(&cluster.data)?.is_empty(), "pods have no cgroup of this instance");
    own.says("stop --pods", &["does not run", "stopped containerd", "stopped the process of names"])?;
    let left = cgroups(&cluster.data)?;
    ensure!(left.is_empty(), "cgroups are left: {left:?}");
    cluster.start_server()?;
    eventually("the pod runs again", Duration::from_secs(60), || own.says("ps", &["commands", "running"]))?;
    kubectl.ok("delete pod commands --timeout=30s").map(drop)
}

/// `evenkeel` with this cluster's data folder.
struct Own {
    tool: Tool,
    data: String,
}

impl Own {
    fn of(cluster: &Cluster) -> anyhow::Result<Own> {
        Ok(Own { tool: cluster.evenkeel()?, data: cluster.data.display().to_string() })
    }

    fn ok(&self, words: &str) -> anyhow::Result<String> {
        self.tool.ok(&format!("{words} --data-dir={}", self.data))
    }

    fn says(&self, words: &str, wanted: &[&str]) -> anyhow::Result<()> {
        let said = self.ok(words)?;
        let missing = wanted.iter().find(|part| !said.contains(*part));
        missing.map_or(Ok(()), |part| bail!("{words} does not say {part:?} but\n{said}"))
    }
}
