//! The program's own commands beside a running server: what each must say. The last part stops pods for good, on a
//! cluster that is started again afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::{Cluster, Tool, eventually};
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
    own.says("check-config", &["root", "other clusters"])?;
    own.says("certificate check", &["server/tls/serving.crt", "agent/tls/node-client.crt", "system:node:"])?;
    own.says("images ls", &["evenkeel.local/busybox:1", "evenkeel.local/pause:1"])?;
    own.says("ps", &["commands", "sleeper", "running", "evenkeel.local/busybox:1"])?;
    tokens(&own)?;
    let moved = own.ok("kubeconfig --server https://cluster.example:6443 --name far")?;
    ensure!(moved.contains("server: https://cluster.example:6443") && moved.contains("current-context: far"));
    backup(&own, &cluster.data)?;
    kubectl.ok("delete pod commands --timeout=30s").map(drop)
}

fn tokens(own: &Own) -> anyhow::Result<()> {
    let token = own.ok("token create --description e2e")?;
    ensure!(token.starts_with("K10") && token.contains("::agent:"), "the token is {token:?}");
    let list = own.ok("token list")?;
    let line = list.lines().find(|line| line.ends_with("e2e")).with_context(|| list.clone())?;
    let id = line.split(' ').next().unwrap_or_default();
    own.ok(&format!("token delete {id}"))?;
    ensure!(!own.ok("token list")?.contains("e2e"), "the token is still listed");
    Ok(())
}

fn backup(own: &Own, data: &Path) -> anyhow::Result<()> {
    let (secret, file) = (data.join("passphrase"), data.join("backup.tar"));
    fs::write(&secret, "correct horse\n")?;
    let words = format!("backup --file={} --passphrase-file={}", file.display(), secret.display());
    own.says(&words, &["objects at revision", "sealed to the passphrase", "not in it: volumes"])?;
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
    ensure!(!cgroups(&own.data)?.is_empty(), "pods have no cgroup of this instance");
    own.says("stop --pods", &["does not run", "stopped containerd", "stopped the process of names"])?;
    let left = cgroups(&own.data)?;
    ensure!(left.is_empty(), "cgroups are left: {left:?}");
    cluster.start_server()?;
    eventually("the pod runs again", Duration::from_secs(60), || own.says("ps", &["commands", "running"]))?;
    kubectl.ok("delete pod commands --timeout=30s").map(drop)
}

/// The folders of this instance in every hierarchy. Its name is made of its data folder's.
fn cgroups(data: &str) -> anyhow::Result<Vec<PathBuf>> {
    let hash = Tool::new("sha256sum").call(&[], data)?.succeeded()?;
    let mine = format!("evenkeel-{}", &hash[..8]);
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup")? {
        let Ok(entries) = fs::read_dir(hierarchy?.path()) else { continue };
        let named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&mine));
        found.extend(named.map(|entry| entry.path()));
    }
    Ok(found)
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
