//! A node beyond a router: its pods, Services and names are reached from here and from there, also when the way swallows
//! large packets.

use std::time::Duration;

use anyhow::ensure;
use e2e::{Agent, Cluster, Segment, Tool, eventually};

const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: segments}
---
apiVersion: v1
kind: Pod
metadata: {name: SIDE, namespace: segments, labels: {app: SIDE}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: evenkeel.local/busybox:1
    command: [sh, -c, "mkdir /www; echo from SIDE > /www/index.html; busybox dd if=/dev/zero of=/www/large bs=1M count=8; echo up; exec busybox httpd -f -p 8080 -h /www"]
    readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: SIDE, namespace: segments}
spec:
  type: NodePort
  selector: {app: SIDE}
  ports: [{port: 80, targetPort: 8080}]
"#;
const LARGE_BYTES: &str = "8388608";
const SIDES: [(&str, &str); 2] = [("here", "there"), ("there", "here")];
const BOUND: Duration = Duration::from_secs(60);

pub fn joined(cluster: &Cluster) -> anyhow::Result<()> {
    let agent = Agent::join_in(cluster, Segment::Second, 22 + cluster.number())?;
    let kubectl = cluster.kubectl();
    let far = &agent.host.name.clone();
    eventually("the node registers", BOUND, || kubectl.ok(&format!("get node {far}")).map(drop))?;
    kubectl.ok(&format!("wait node/{far} --for=condition=Ready --timeout=90s"))?;
    for (side, node) in [("here", &cluster.host.name), ("there", far)] {
        kubectl.ok_fed("apply -f -", &PODS.replace("SIDE", side).replace("NODE", node))?;
    }
    kubectl.ok("-n segments wait pod --all --for=condition=Ready --timeout=120s")?;
    ensure!(kubectl.ok("-n segments logs there")?.contains("up"));
    for (from, to) in SIDES {
        reaches(&kubectl, from, to)?;
    }
    for host in [&cluster.host, &agent.host] {
        for side in ["here", "there"] {
            let path = "{.spec.ports[0].nodePort}";
            let port = kubectl.ok(&format!("-n segments get service {side} -o jsonpath={path}"))?;
            let url = format!("http://{}:{port}/", host.address);
            eventually(&format!("{side} at {}", host.name), BOUND, || {
                let page = Tool::new("busybox").ok(&format!("timeout 2 busybox wget -q -O - {url}"))?;
                ensure!(page == format!("from {side}\n"), "{page:?}");
                Ok(())
            })?;
        }
    }
    swallows(cluster, &agent)?;
    kubectl.ok("delete namespace segments --timeout=60s")?;
    drop(agent);
    kubectl.ok(&format!("delete node {far}")).map(drop)
}

/// By address and by name, with large and small packets.
fn reaches(kubectl: &Tool, from: &str, to: &str) -> anyhow::Result<()> {
    let name = format!("{to}.segments");
    eventually(&format!("{to} is reached from {from} by its name"), BOUND, || {
        let page = shell(kubectl, from, &format!("busybox wget -q -O - http://{name}/"))?;
        ensure!(page == format!("from {to}\n"), "{page:?}");
        Ok(())
    })?;
    whole(kubectl, from, to)
}

fn whole(kubectl: &Tool, from: &str, to: &str) -> anyhow::Result<()> {
    let address = kubectl.ok(&format!("-n segments get pod {to} -o jsonpath={{.status.podIP}}"))?;
    let script = format!("busybox timeout 5 busybox wget -q -O - http://{address}:8080/large | busybox wc -c");
    let count = shell(kubectl, from, &script)?;
    ensure!(count.trim() == LARGE_BYTES, "{from} has {} bytes of {to}'s {LARGE_BYTES}", count.trim());
    Ok(())
}

/// The cable of the far node takes less than its ends believe: that is found out, and pods go on as they are.
fn swallows(cluster: &Cluster, agent: &Agent) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl();
    agent.host.take_at_most(1400)?;
    ensure!(whole(kubectl, "here", "there").is_err(), "large packets arrive all the same");
    for (from, to) in SIDES {
        eventually(&format!("large packets from {to} reach {from}"), BOUND, || whole(kubectl, from, to))?;
    }
    let wrong = format!("wrong --json --data-dir={}", cluster.data.display());
    let said = cluster.evenkeel()?.call(&wrong.split(' ').collect::<Vec<_>>(), "")?;
    let found: serde_json::Value = serde_json::from_str(&said.stdout)?;
    let told = [&found["others"], &found["cause"]].iter().any(|part| part.to_string().contains("MTU_MISMATCH"));
    ensure!(said.code == 2 && told && said.stdout.contains(&agent.host.name), "it says\n{}", said.stdout);
    agent.host.take_at_most(1500)?;
    for side in ["here", "there"] {
        let path = "{.status.containerStatuses[*].restartCount}";
        let restarts = kubectl.ok(&format!("-n segments get pod {side} -o jsonpath={path}"))?;
        ensure!(restarts == "0", "{side} was restarted: {restarts}");
    }
    Ok(())
}

fn shell(kubectl: &Tool, pod: &str, script: &str) -> anyhow::Result<String> {
    kubectl.ok_with(&["-n", "segments", "exec", pod, "--", "sh", "-c", script])
}
