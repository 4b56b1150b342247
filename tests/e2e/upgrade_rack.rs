//! Three servers are brought to another build and back while people use them: a signed release, then once with whoever
//! coordinates killed in the middle, then a build that never gets well. No request fails, no two servers are away at once,
//! and no pod is started again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{Endpoint, Rack, Tool, Traffic, Transcript, eventually, manifests};
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use serde_json::{Value, json};

const HOST: u8 = 12;
/// Far more than the run needs on a busy machine.
const RUN_BOUND: Duration = Duration::from_secs(300);
const NODE_PORT: u16 = 30_090;
/// What answers, and on each node what asks without end.
const LOAD: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: upgrade}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: upgrade}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30090}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: upgrade}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [WEB]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: load, namespace: upgrade}
spec:
  selector: {matchLabels: {app: load}}
  template:
    metadata: {labels: {app: load}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [ASKER]
"#;

/// Too short for anything.
const WINDOW: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: evenkeel-windows, namespace: kube-system}
data: {short: "Mon 02:00-02:01 UTC"}
"#;
const CLAIM: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: evenkeel-layer, namespace: kube-system}
data:
  record: '{"layer": "storage", "work": "new pool", "by": "ben", "since": "2026-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z"}'
"#;

struct World {
    rack: Rack,
    builds: PathBuf,
}

pub fn story((): &()) -> anyhow::Result<()> {
    let mut world = World::start()?;
    let first = world.running(0)?;
    let next = world.build("next")?;
    let traffic = world.traffic()?;
    let (key, source) = world.trusts_a_maker(&next)?;
    world.refuses_what_nobody_signed(&next, &source)?;
    world.refuses_outside_of_windows_and_beside_other_work(&key, &source)?;
    let start = Instant::now();
    // It is given to a server that does not coordinate: the one that does fetches it from there.
    let holder = coordinator(&world.rack.servers[0].kubectl())?;
    let other = world.rack.servers.iter().position(|server| server.host.name != holder).context("no other server")?;
    let release = format!("--to=0.1.0 --release-source={}", source.display());
    let plan = world.ok(other, &format!("upgrade --dry-run --bake=2s {release}"))?;
    ensure!(plan.contains("margin 1") && plan.contains("signed by maker"), "{plan}");
    world.ok(other, &format!("upgrade --yes --bake=2s {release}"))?;
    let up = start.elapsed();
    world.nobody_noticed(traffic)?;
    let second = world.running(1)?;
    ensure!(second.iter().all(|program| *program == second[0] && !first.contains(program)), "{first:?}, {second:?}");
    let coordinators = world.one_at_a_time(0)?;
    ensure!(1 < coordinators.len(), "nobody gave the lease away: {coordinators:?}");
    let traffic = world.traffic()?;
    let start = Instant::now();
    world.ok(2, "back --yes --bake=2s")?;
    println!(
        "three servers, 2 s of watching each: there in {:.0} s, back in {:.0} s",
        up.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    world.nobody_noticed(traffic)?;
    ensure!(world.running(0)? == first, "not what ran before: {:?}", world.running(0)?);
    world.ok(1, "release distrust maker")?;
    world.takes_over(&next)?;
    world.never_gets_well(&next)
}

// === impl World ===

impl World {
    fn start() -> anyhow::Result<World> {
        let mut rack = Rack::of_own_programs("uprack", HOST)?;
        rack.fill()?;
        let kubectl = rack.servers[0].kubectl();
        kubectl.ok_fed("apply -f -", &LOAD.replace("WEB", &manifests::web()).replace("ASKER", &manifests::asker()))?;
        for set in ["web", "load"] {
            kubectl.ok(&format!("-n upgrade rollout status daemonset/{set} --timeout=120s"))?;
        }
        let builds = rack.servers[0].data.join("builds");
        fs::create_dir_all(&builds)?;
        Ok(World { rack, builds })
    }

    /// Another build of the same version: the same program with another content.
    fn build(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.builds.join(name);
        let mut program = fs::read(&self.rack.servers[0].binary)?;
        program.extend_from_slice(name.as_bytes());
        fs::write(&path, program)?;
        Tool::new("chmod").ok(&format!("755 {}", path.display()))?;
        Ok(path)
    }

    /// A key, and a source with one release that is signed with it.
    fn trusts_a_maker(&self, next: &Path) -> anyhow::Result<(KeyPair, PathBuf)> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let file = self.builds.join("maker.pub");
        fs::write(&file, STANDARD.encode(key.public_key_raw()))?;
        self.ok(0, &format!("release trust {}", file.display()))?;
        ensure!(self.ok(1, "release keys")?.contains("maker"), "another server does not know the key");
        let source = self.builds.join("releases");
        fs::create_dir_all(source.join("0.1.0"))?;
        fs::hard_link(next, source.join("0.1.0/evenkeel"))?;
        sign(&key, &source.join("0.1.0"))?;
        Ok((key, source))
    }

    fn refuses_what_nobody_signed(&self, next: &Path, source: &Path) -> anyhow::Result<()> {
        let said = self.evenkeel(0, &format!("upgrade --yes --to={}", next.display()))?;
        ensure!(said.code == 3 && said.stderr.contains("comes without a manifest"), "{said:?}");
        let folder = source.join("0.1.0");
        sign(&KeyPair::generate_for(&PKCS_ED25519)?, &folder)?;
        let said = self.evenkeel(0, &format!("upgrade --yes --to=0.1.0 --release-source={}", source.display()))?;
        ensure!(
            said.code == 3 && said.stderr.contains("is not signed by anybody this cluster trusts (maker)"),
            "{said:?}"
        );
        Ok(())
    }

    fn refuses_outside_of_windows_and_beside_other_work(&self, key: &KeyPair, source: &Path) -> anyhow::Result<()> {
        sign(key, &source.join("0.1.0"))?;
        let kubectl = self.rack.servers[0].kubectl();
        let upgrade = format!("upgrade --dry-run --bake=2s --to=0.1.0 --release-source={}", source.display());
        kubectl.ok_fed("apply -f -", WINDOW)?;
        let said = self.evenkeel(0, &upgrade)?;
        ensure!(said.code == 3 && said.stdout.contains("no declared window is long enough"), "{said:?}");
        self.ok(0, &format!("{upgrade} --now=urgent"))?;
        kubectl.ok("-n kube-system delete configmap evenkeel-windows")?;
        kubectl.ok_fed("apply -f -", CLAIM)?;
        let said = self.evenkeel(0, &upgrade)?;
        ensure!(said.code == 3 && said.stdout.contains("ben works on the storage"), "{said:?}");
        self.ok(0, &format!("{upgrade} --waive=LAYER"))?;
        kubectl.ok("-n kube-system delete configmap evenkeel-layer").map(drop)
    }

    /// A build that says what it is and then hangs: the first node goes back by itself, the others are not touched, and
    /// everybody is told.
    fn never_gets_well(&self, next: &Path) -> anyhow::Result<()> {
        let before = self.running(0)?;
        let hangs = self.builds.join("hangs");
        fs::write(
            &hangs,
            format!("#!/bin/sh\n[ \"$1\" = version ] && exec {} \"$@\"\nexec sleep 86400\n", next.display()),
        )?;
        Tool::new("chmod").ok(&format!("755 {}", hangs.display()))?;
        let traffic = self.traffic()?;
        let start = Instant::now();
        let said = self.evenkeel(0, &format!("upgrade --yes --bake=1s --to={}", hangs.display()))?;
        println!("a build that hangs: one node tried and back in {:.0} s", start.elapsed().as_secs_f64());
        ensure!(said.code == 4 && said.stderr.contains("went back to what ran before"), "{said:?}");
        self.nobody_noticed(traffic)?;
        ensure!(self.running(1)? == before, "what ran before does not run");
        let touched = self.status(1)?["run"]["journal"].as_array().context("no journal")?.clone();
        let swaps = touched.iter().filter(|entry| entry["phase"] == "failed").count();
        ensure!(swaps == 1, "{touched:?}");
        for server in 0..3 {
            let status = self.evenkeel(server, "status")?;
            ensure!(status.code == 4 && status.stdout.contains("went back to what ran before"), "{status:?}");
        }
        self.ok(1, "back --yes").map(drop)
    }

    fn traffic(&self) -> anyhow::Result<Traffic> {
        let servers = &self.rack.servers;
        let endpoints: Vec<Endpoint> =
            servers.iter().map(|server| Endpoint::of(&server.kubectl())).collect::<anyhow::Result<_>>()?;
        let address = |address: &str| Ok(SocketAddr::new(address.parse()?, NODE_PORT));
        let ports = servers.iter().map(|server| address(&server.host.address)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Traffic::start().service(&ports).api(&endpoints))
    }

    fn evenkeel(&self, server: usize, words: &str) -> anyhow::Result<Transcript> {
        self.rack.servers[server].call(words)
    }

    fn ok(&self, server: usize, words: &str) -> anyhow::Result<String> {
        self.rack.servers[server].succeeds(words)
    }

    fn status(&self, server: usize) -> anyhow::Result<Value> {
        serde_json::from_str(&self.ok(server, "plan --json")?).context("read the status")
    }

    /// The programs that run, by node.
    fn running(&self, through: usize) -> anyhow::Result<Vec<String>> {
        let status = self.status(through)?;
        let nodes = status["nodes"].as_object().context("no nodes")?.values();
        let program = |node: &Value| node["report"]["running"]["program"].as_str().map(str::to_owned);
        nodes.map(|node| program(node).with_context(|| format!("{node}"))).collect()
    }

    /// Nothing failed for those who asked from outside, through the API, or from pods, and no pod was started again.
    fn nobody_noticed(&self, traffic: Traffic) -> anyhow::Result<()> {
        let tallies = traffic.stop()?;
        for (kind, tally) in &tallies {
            println!("{kind}: {} asked, {} failed, the slowest took {:?}", tally.asked, tally.failed, tally.slowest);
        }
        for (kind, tally) in &tallies {
            ensure!(tally.failed == 0 && 0 < tally.asked, "{kind}: {tally:?}");
        }
        let kubectl = self.rack.servers[0].kubectl();
        for pod in kubectl.ok("-n upgrade get pods -l app=load -o name")?.lines() {
            let log = kubectl.ok(&format!("-n upgrade logs {pod}"))?;
            let failed = log.lines().filter(|line| line.starts_with("failed")).count();
            ensure!(failed == 0 && log.contains("asked"), "{pod}: {failed} failed: {log}");
        }
        let restarts = "-n upgrade get pods -o jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        let restarts = kubectl.ok(restarts)?;
        ensure!(restarts.split(' ').all(|count| count == "0"), "pods were restarted: {restarts}");
        Ok(())
    }

    /// By the newest journal, no node was touched before the one before it was done; answers who wrote entries.
    fn one_at_a_time(&self, through: usize) -> anyhow::Result<Vec<String>> {
        let status = self.status(through)?;
        let journal = status["run"]["journal"].as_array().context("no journal")?.clone();
        let steps = status["run"]["armed"]["plan"]["steps"].as_array().context("no plan")?.clone();
        let swaps = |entry: &Value| steps.iter().any(|step| step["id"] == entry["step"] && step["do"] == "swap");
        let (mut open, mut actors) = (None, Vec::new());
        for entry in &journal {
            match entry["phase"].as_str() {
                Some("intend") if swaps(entry) => {
                    ensure!(open.is_none(), "{entry} began while {open:?} was open");
                    open = Some(entry["node"].clone());
                }
                Some("done") if swaps(entry) => open = None,
                _ => {}
            }
            let actor = entry["actor"].as_str().unwrap_or_default().to_owned();
            if !actors.contains(&actor) && self.rack.servers.iter().any(|server| server.host.name == actor) {
                actors.push(actor);
            }
        }
        Ok(actors)
    }

    /// Whoever coordinates is killed while a node is watched, and stays away until another has taken over.
    fn takes_over(&mut self, next: &Path) -> anyhow::Result<()> {
        self.ok(0, &format!("upgrade --yes --no-watch --bake=2s --to={}", next.display()))?;
        let holder = self.coordinator_at(0, 6)?;
        println!("killing {holder}, which coordinates");
        let place = self.rack.servers.iter().position(|server| server.host.name == holder).context("who is that?")?;
        self.rack.servers[place].kill_server()?;
        let other = (place + 1) % 3;
        let kubectl = self.rack.servers[other].kubectl();
        eventually("another server coordinates", Duration::from_secs(60), || {
            let found = holder_of(&kubectl)?;
            ensure!(!found.is_empty() && found != holder, "it is {found:?}");
            Ok(())
        })?;
        self.rack.servers[place].start_server()?;
        let watched = self.evenkeel(other, "watch")?;
        ensure!(watched.success, "{watched:?}");
        let programs = self.running(other)?;
        ensure!(programs.iter().all(|program| *program == programs[0]), "half of it was done: {programs:?}");
        let actors = self.one_at_a_time(other)?;
        ensure!(1 < actors.len(), "nobody took over: {actors:?}");
        Ok(())
    }

    /// Waits until the journal has so many entries; answers who coordinates then.
    fn coordinator_at(&self, through: usize, entries: usize) -> anyhow::Result<String> {
        eventually("the run comes to the place", RUN_BOUND, || {
            let found = self.status(through)?["run"]["journal"].as_array().map_or(0, Vec::len);
            ensure!(entries <= found, "{found} entries");
            Ok(())
        })?;
        coordinator(&self.rack.servers[through].kubectl())
    }
}

/// Writes the manifest of the release in this folder.
fn sign(key: &KeyPair, folder: &Path) -> anyhow::Result<()> {
    let program = Tool::new("sha256sum").ok(&folder.join("evenkeel").display().to_string())?;
    let program = program.split(' ').next().context("no digest")?;
    let signature = key.sign(format!("evenkeel-release\n0.1.0\n{program}\n").as_bytes())?;
    let manifest = json!({"version": "0.1.0", "program": program, "signature": STANDARD.encode(signature)});
    fs::write(folder.join("manifest.json"), manifest.to_string()).context("write the manifest")
}

fn holder_of(kubectl: &Tool) -> anyhow::Result<String> {
    kubectl.ok("-n kube-system get lease evenkeel-keeper -o jsonpath={.spec.holderIdentity} --request-timeout=5s")
}

/// Who coordinates; a holder that is to be swapped gives the lease away first, and for a moment nobody does.
fn coordinator(kubectl: &Tool) -> anyhow::Result<String> {
    let mut holder = String::new();
    eventually("somebody coordinates", Duration::from_secs(30), || {
        holder = holder_of(kubectl)?;
        ensure!(!holder.is_empty(), "nobody does");
        Ok(())
    })?;
    Ok(holder)
}
