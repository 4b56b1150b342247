//! The thin line: one Deployment from kubectl to a running container, its logs, exec and Service address.

use std::time::Duration;

use anyhow::ensure;
use e2e::{Case, Cluster, eventually};

pub const CASES: [Case<Cluster>; 1] = [Case { name: "deployment_serves", run: deployment_serves }];

/// Runs before everything else.
pub fn node_is_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    eventually("the node registers", Duration::from_secs(60), || {
        ensure!(kubectl.ok("get nodes -o name")?.starts_with("node/"));
        Ok(())
    })?;
    kubectl.ok("wait --for=condition=Ready node --all --timeout=60s").map(drop)
}

const WEB: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: basics}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: basics}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: evenkeel.local/busybox:1
        command: [sh, -c, "mkdir -p /www && echo hello from $HOSTNAME > /www/index.html && echo serving && exec busybox httpd -f -p 8080 -h /www"]
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: basics}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

fn deployment_serves(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok_fed("apply -f -", WEB)?;
    kubectl.ok("-n basics rollout status deployment/web --timeout=120s")?;
    let logs = kubectl.ok("-n basics logs deployment/web")?;
    ensure!(logs.contains("serving"), "logs are {logs:?}");
    let said = kubectl.ok("-n basics exec deployment/web -- cat /www/index.html")?;
    ensure!(said.contains("hello from web-"), "exec printed {said:?}");
    eventually("the Service answers by name", Duration::from_secs(30), || {
        let page =
            kubectl.ok("-n basics exec deployment/web -- busybox wget -q -O - http://web.basics.svc.cluster.local")?;
        ensure!(page.contains("hello from web-"), "the page is {page:?}");
        Ok(())
    })?;
    kubectl.ok("delete namespace basics --timeout=60s").map(drop)
}
