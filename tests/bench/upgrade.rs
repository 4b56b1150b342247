//! Three servers brought to another build and back, gates on, while clients ask at a fixed rate: how long it takes without
//! the time that nodes are only watched, and how many requests fail.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::{Endpoint, Rack, Tool, Traffic};
use serde_json::{Value, json};

const HOST: u8 = 50;
const SERVERS: u32 = 3;
/// Each node is watched so long; that is not part of the figures.
const BAKE: Duration = Duration::from_secs(10);
const NODE_PORT: u16 = 30_091;
const WEB: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30091}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: evenkeel.local/busybox:1
        command: [sh, -c, "mkdir /www; echo page > /www/index.html; exec busybox httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 2}
"#;

pub fn measure() -> anyhow::Result<Vec<(&'static str, Value)>> {
    let rack = start()?;
    let next = rack.servers[0].data.join("next");
    let mut program = std::fs::read(&rack.servers[0].binary)?;
    program.extend_from_slice(b"next");
    std::fs::write(&next, program)?;
    Tool::new("chmod").ok(&format!("755 {}", next.display()))?;
    let traffic = traffic(&rack)?;
    let up = run(&rack, &format!("upgrade --to={}", next.display()))?;
    let back = run(&rack, "back")?;
    let mut failed = 0;
    for (kind, tally) in traffic.stop()? {
        eprintln!("{kind}: {} asked, slowest {:?}, {:?}", tally.asked, tally.slowest, tally.told);
        failed += tally.failed;
    }
    Ok(vec![("upgrade3_active_s", json!(up)), ("upgrade3_failed_requests", json!(failed)), ("back_s", json!(back))])
}

fn start() -> anyhow::Result<Rack> {
    let mut rack = Rack::of_own_programs("bench-upgrade", HOST)?;
    for _ in 1..SERVERS {
        rack.join()?;
    }
    rack.serves(0, SERVERS as usize)?;
    rack.servers[0].nodes_ready(SERVERS as usize)?;
    let kubectl = rack.servers[0].kubectl();
    kubectl.ok_fed("apply -f -", WEB)?;
    kubectl.ok("rollout status daemonset/web --timeout=120s")?;
    Ok(rack)
}

fn traffic(rack: &Rack) -> anyhow::Result<Traffic> {
    let of = |server: &e2e::Cluster| Endpoint::of(&server.kubectl());
    let endpoints = rack.servers.iter().map(of).collect::<anyhow::Result<Vec<_>>>()?;
    let port = |server: &e2e::Cluster| Ok(SocketAddr::new(server.host.address.parse()?, NODE_PORT));
    let ports = rack.servers.iter().map(port).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Traffic::start().service(&ports).api(&endpoints))
}

/// Seconds from the command to its end, without those that nodes are only watched.
fn run(rack: &Rack, words: &str) -> anyhow::Result<f64> {
    let server = &rack.servers[0];
    let words = format!("{words} --yes --bake={}s --data-dir={}", BAKE.as_secs(), server.data.display());
    let start = Instant::now();
    server.evenkeel()?.ok(&words).with_context(|| words.clone())?;
    let active = start.elapsed().saturating_sub(BAKE * SERVERS);
    Ok((active.as_secs_f64() * 10.0).round() / 10.0)
}
