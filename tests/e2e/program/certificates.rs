//! Certificates that last a minute: every one is issued again in time, while watches, logs and pods go on. An expired
//! one and one of another authority are refused.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Agent, Cluster, Dialogue, Options, Tool, eventually};

use super::certs::Authority;
use super::pods::{self, restarts};

const LIFE: Duration = Duration::from_secs(60);

const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: talker
    image: evenkeel.local/busybox:1
    command: [sh, -c, "n=0; while true; do n=$((n+1)); echo said $n; sleep 1; done"]
"#;

pub fn renew(_: &()) -> anyhow::Result<()> {
    let mut options = Options::lane("certificates", 12);
    options.arguments = vec!["--certificate-lifetime=1m".to_owned()];
    let cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    crate::basics::node_is_ready(&cluster)?;
    let agent = Agent::join(&cluster, 20 + cluster.number())?;
    let there = agent.host.name.clone();
    eventually("the agent registers", LIFE, || kubectl.ok(&format!("get node {there}")).map(drop))?;
    kubectl.ok(&format!("wait node/{there} --for=condition=Ready --timeout=60s"))?;
    let first = shown(&cluster, &agent)?;
    let old = cluster.data.join("old.kubeconfig");
    fs::copy(cluster.kubeconfig(), &old)?;
    let said = cluster.evenkeel()?.ok(&format!("certificate check --data-dir={}", cluster.data.display()))?;
    ensure!(said.lines().filter(|line| line.ends_with("ok")).count() >= 8, "certificate check says\n{said}");
    kubectl.ok_fed("apply -f -", TALKER)?;
    kubectl.ok("wait pod/talker --for=condition=Ready --timeout=60s")?;
    let mut watch = Dialogue::with(kubectl.spawn("get configmaps --watch -o name")?)?;
    watch.expect("kube-root-ca.crt", LIFE)?;
    let mut logs = Dialogue::with(kubectl.spawn("logs talker --follow --tail=1")?)?;
    logs.expect("said ", LIFE)?;
    let second = others(&cluster, &agent, &first)?;
    // With the third ones the first ones have expired, also those that connections were opened with.
    let third = others(&cluster, &agent, &second)?;
    refused(&kubectl, &cluster, &old)?;
    // What began with the first ones goes on.
    kubectl.ok("create configmap seen")?;
    watch.expect("configmap/seen", Duration::from_secs(10)).context("the watch that began before")?;
    logs.expect("said ", Duration::from_secs(10)).context("the log that was followed before")?;
    ensure!(restarts(&kubectl, "talker")? == "0");
    kubectl.ok("exec talker -- true").context("the API server's way to the node")?;
    kubectl.ok("delete pod talker --timeout=30s").context("the node's way to the API server")?;
    ensure!(third.len() == first.len());
    kubectl.ok_fed("apply -f -", &pods::SLEEPER.replace("spec:", &format!("spec:\n  nodeName: {there}")))?;
    kubectl.ok("wait pod/sleeper --for=condition=Ready --timeout=60s")?;
    kubectl.ok("exec sleeper -- true").context("the API server's way to the agent")?;
    drop(agent);
    kubectl.ok(&format!("wait node/{} --for=condition=Ready --timeout=30s", cluster.host.name)).map(drop)
}

/// Waits until no certificate is what it was.
fn others(
    cluster: &Cluster,
    agent: &Agent,
    before: &BTreeMap<String, String>,
) -> anyhow::Result<BTreeMap<String, String>> {
    eventually("every certificate is another", LIFE * 2, || {
        let now = shown(cluster, agent)?;
        let same: Vec<&String> =
            before.iter().filter(|(name, text)| now.get(*name) == Some(*text)).map(|one| one.0).collect();
        ensure!(same.is_empty(), "{same:?} did not change");
        Ok(now)
    })
}

/// What is shown to clients and kept for them: certificates by name.
fn shown(cluster: &Cluster, agent: &Agent) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for port in [6443, 10250] {
        let words = format!("s_client -connect {}:{port}", cluster.host.address);
        let words: Vec<&str> = words.split(' ').collect();
        // It ends badly where the server wants to see a certificate; what was shown is told all the same.
        let said = Tool::new("openssl").call(&words, "")?.stdout;
        let begin = said.find("-----BEGIN").with_context(|| format!("port {port} shows no certificate: {said}"))?;
        let end = said.find("-----END").context("a certificate ends")?;
        found.insert(format!("port {port}"), said[begin..end].to_owned());
    }
    let own = ["server/tls/admin.crt", "server/tls/kubelet-client.crt", "agent/tls/node-client.crt"]
        .map(|name| cluster.data.join(name));
    let agents = ["agent/tls/node-client.crt", "agent/tls/kubelet-serving.crt"].map(|name| agent.data.join(name));
    for path in own.into_iter().chain(agents) {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        found.insert(path.display().to_string(), text);
    }
    found.insert("kubeconfig".to_owned(), fs::read_to_string(cluster.kubeconfig())?);
    Ok(found)
}

fn refused(kubectl: &Tool, cluster: &Cluster, old: &std::path::Path) -> anyhow::Result<()> {
    let old = format!("--kubeconfig={}", old.display());
    eventually("the first certificate is refused once it has expired", LIFE * 2, || {
        let said = kubectl.call(&[&old, "get", "namespaces"], "")?.failed()?;
        ensure!(said.contains("must be logged in"), "{said}");
        Ok(())
    })?;
    let foreign = Authority::make(&cluster.data.join("foreign"), "ca")?.issue("system:admin", "127.0.0.1")?;
    // Its own kubeconfig would win over the flags.
    let server = format!("--server=https://{}:6443", cluster.host.address);
    let ca = format!("--certificate-authority={}", cluster.data.join("server/tls/server-ca.crt").display());
    let (shown, key) =
        (format!("--client-certificate={}", foreign.certificate), format!("--client-key={}", foreign.key));
    let stranger = Tool { environment: Vec::new(), ..kubectl.clone() };
    let words = ["--kubeconfig=/dev/null", &server, &ca, &shown, &key, "get", "namespaces"];
    let said = stranger.call(&words, "")?.failed()?;
    ensure!(said.contains("must be logged in"), "a foreign certificate: {said}");
    ensure!(!said.contains("Forbidden"), "a foreign certificate was believed: {said}");
    Ok(())
}
