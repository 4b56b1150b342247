//! A second machine joins with a token: pods there, reached through the API and through Services from here.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Agent, Cluster, Tool, eventually};

const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: agent}
---
apiVersion: v1
kind: Pod
metadata: {name: here, namespace: agent}
spec:
  nodeName: HERE
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "evenkeel.local/busybox:1", command: [sleep, "9999"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: there, namespace: agent, labels: {app: there}}
spec:
  nodeName: THERE
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: evenkeel.local/busybox:1
    command: [sh, -c, "mkdir /www; echo from there > /www/index.html; echo up; exec busybox httpd -f -p 8080 -h /www"]
---
apiVersion: v1
kind: Service
metadata: {name: there, namespace: agent}
spec:
  selector: {app: there}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// What a node imports at its start.
const IMAGES: [&str; 5] = ["busybox:1", "pause:1", "postgres:15", "prometheus:2", "saas-app:1"];

pub fn joins(cluster: &Cluster) -> anyhow::Result<()> {
    let agent = Agent::join(cluster, 20 + cluster.number())?;
    let kubectl = cluster.kubectl();
    let there = &agent.host.name.clone();
    eventually("the node registers", Duration::from_secs(60), || kubectl.ok(&format!("get node {there}")).map(drop))?;
    kubectl.ok(&format!("wait node/{there} --for=condition=Ready --timeout=90s"))?;
    kubectl.ok_fed("apply -f -", &PODS.replace("THERE", there).replace("HERE", &cluster.host.name))?;
    kubectl.ok("-n agent wait pod --all --for=condition=Ready --timeout=120s")?;
    ensure!(kubectl.ok("-n agent logs there")?.contains("up"));
    ensure!(kubectl.ok("-n agent exec there -- hostname")?.contains("there"));
    eventually("a Service across machines answers", Duration::from_secs(30), || {
        let page = kubectl.ok("-n agent exec here -- busybox wget -q -O - http://there.agent")?;
        ensure!(page.contains("from there"), "{page:?}");
        Ok(())
    })?;
    let other = kubectl.call(&["--as=system:node:other", "--as-group=system:nodes", "delete", "node", there], "")?;
    ensure!(!other.success, "a node may delete another");
    falls_silent(&kubectl, &agent)?;
    runtime_hangs(&kubectl, &agent)?;
    is_deleted(&kubectl, &agent)?;
    kubectl.ok("delete namespace agent --timeout=60s")?;
    drop(agent);
    kubectl.ok(&format!("delete node {there}")).map(drop)
}

/// A node that nobody hears of is called unknown, its pods go on, and it is ready soon after it speaks again.
fn falls_silent(kubectl: &Tool, agent: &Agent) -> anyhow::Result<()> {
    let there = &agent.host.name;
    // A report that is due anyway, with images imported since the last one, would hide that silence asks for one.
    eventually("the node tells of every image", Duration::from_secs(60), || {
        let told = kubectl.ok(&format!("get node {there} -o jsonpath={{.status.images[*].names[*]}}"))?;
        let missing = IMAGES.iter().find(|image| !told.contains(**image));
        ensure!(missing.is_none(), "{missing:?} is not among {told}");
        Ok(())
    })?;
    agent.signal("STOP")?;
    kubectl.ok(&format!("wait node/{there} --for=condition=Ready=Unknown --timeout=120s"))?;
    agent.signal("CONT")?;
    kubectl.ok(&format!("wait node/{there} --for=condition=Ready --timeout=30s"))?;
    ensure!(kubectl.ok("-n agent exec there -- hostname")?.contains("there"));
    let restarts = kubectl.ok("-n agent get pod there -o jsonpath={.status.containerStatuses[0].restartCount}")?;
    ensure!(restarts == "0", "the pod was restarted {restarts} times");
    Ok(())
}

/// A runtime that does not answer makes its node not ready; the machine goes on saying that it lives.
fn runtime_hangs(kubectl: &Tool, agent: &Agent) -> anyhow::Result<()> {
    let there = &agent.host.name;
    let pid = agent.host.tool("pgrep")?.ok("-x containerd")?;
    let pid = pid.lines().next().context("containerd runs")?;
    let signal = |signal: &str| agent.host.tool("kill")?.ok(&format!("-{signal} {pid}")).map(drop);
    signal("STOP")?;
    let told = kubectl.ok(&format!("wait node/{there} --for=condition=Ready=False --timeout=60s"));
    signal("CONT")?;
    told?;
    kubectl.ok(&format!("wait node/{there} --for=condition=Ready --timeout=60s")).map(drop)
}

/// A Node that somebody deleted comes back while its machine belongs to the cluster, before its pods are given up.
fn is_deleted(kubectl: &Tool, agent: &Agent) -> anyhow::Result<()> {
    let there = &agent.host.name;
    kubectl.ok(&format!("delete node {there}"))?;
    eventually("the node is back", Duration::from_secs(30), || {
        kubectl.ok(&format!("wait node/{there} --for=condition=Ready --timeout=1s")).map(drop)
    })?;
    let pod = "-n agent get pod there -o jsonpath={.status.phase}/{.status.containerStatuses[0].restartCount}";
    let said = kubectl.ok(pod)?;
    ensure!(said == "Running/0", "{said}");
    ensure!(kubectl.ok("-n agent exec here -- busybox wget -q -O - http://there.agent")?.contains("from there"));
    Ok(())
}
