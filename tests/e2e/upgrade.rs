//! One server and one agent are brought to another build and back, under load, through crashes, and with a broken build.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Agent, Cluster, Options, Tool, eventually, manifests};
use serde_json::Value;

/// Two pods that answer and two that ask without end, one of each on each node.
const LOAD: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: upgrade}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: upgrade}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;
const PAIR: &str = r#"
---
apiVersion: v1
kind: Pod
metadata: {name: web-NODE, namespace: upgrade, labels: {app: web}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers: [WEB]
---
apiVersion: v1
kind: Pod
metadata: {name: load-NODE, namespace: upgrade}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers: [ASKER]
"#;
/// Far more than the run needs on a busy machine.
const RUN_BOUND: Duration = Duration::from_secs(240);

/// A cluster whose programs may be replaced.
struct World {
    cluster: Cluster,
    agent: Agent,
    builds: PathBuf,
}

pub fn story((): &()) -> anyhow::Result<()> {
    let mut world = World::start()?;
    world.load()?;
    let (first, next) = (world.running()?, world.build("next")?);
    world.refuses_what_is_no_program()?;
    world.refuses_others()?;
    let start = Instant::now();
    world.upgrades(&next)?;
    let up = start.elapsed();
    let second = world.running()?;
    ensure!(second.iter().all(|program| *program == second[0] && !first.contains(program)), "{first:?}, {second:?}");
    world.no_request_failed()?;
    let start = Instant::now();
    world.goes_back()?;
    println!(
        "two nodes, 2 s of watching each: there in {:.0} s, back in {:.0} s",
        up.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    ensure!(world.running()? == first, "not what ran before: {:?}", world.running()?);
    world.no_request_failed()?;
    world.two_operators(&next)?;
    world.survives_kills(&world.build("third")?)?;
    world.survives_the_agents_end(&world.build("fourth")?)?;
    world.no_request_failed()?;
    world.falls_back()?;
    world.no_request_failed()
}

// === impl World ===

impl World {
    fn start() -> anyhow::Result<World> {
        let options = Options { own_program: true, ..Options::lane("upgrade", 18) };
        let cluster = Cluster::start(options)?;
        let agent = Agent::join(&cluster, cluster.number() + 1)?;
        cluster.nodes_ready(2)?;
        let builds = cluster.data.join("builds");
        fs::create_dir_all(&builds)?;
        Ok(World { cluster, agent, builds })
    }

    fn load(&self) -> anyhow::Result<()> {
        let pair = PAIR.replace("WEB", &manifests::web()).replace("ASKER", &manifests::asker());
        let pair = |node: &str| pair.replace("NODE", node);
        let (here, there) = (&self.cluster.host.name, &self.agent.host.name);
        let kubectl = self.cluster.kubectl();
        kubectl.ok_fed("apply -f -", &[LOAD.to_owned(), pair(here), pair(there)].concat())?;
        kubectl.ok("-n upgrade wait pod --all --for=condition=Ready --timeout=90s").map(drop)
    }

    /// Another build of the same version: the same program with another content.
    fn build(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.builds.join(name);
        let mut program = fs::read(&self.cluster.binary)?;
        program.extend_from_slice(name.as_bytes());
        self.write(&path, &program)
    }

    fn write(&self, path: &Path, content: &[u8]) -> anyhow::Result<PathBuf> {
        fs::write(path, content)?;
        Tool::new("chmod").ok(&format!("755 {}", path.display()))?;
        Ok(path.to_owned())
    }

    fn status(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.cluster.succeeds("plan --json")?).context("read the status")
    }

    /// The programs that run, by node.
    fn running(&self) -> anyhow::Result<Vec<String>> {
        let status = self.status()?;
        let nodes = status["nodes"].as_object().context("no nodes")?.values();
        let program = |node: &Value| node["report"]["running"]["program"].as_str().map(str::to_owned);
        nodes.map(|node| program(node).with_context(|| format!("{node}"))).collect()
    }

    fn refuses_what_is_no_program(&self) -> anyhow::Result<()> {
        let text = self.write(&self.builds.join("text"), b"no program at all")?;
        let said = self.cluster.call(&format!("upgrade --yes --to={}", text.display()))?;
        ensure!(!said.success && said.stderr.contains("cannot be run"), "{said:?}");
        ensure!(self.status()?["run"].is_null(), "a run was armed");
        Ok(())
    }

    /// Only administrators reach the keeper; a node does not.
    fn refuses_others(&self) -> anyhow::Result<()> {
        let kubectl = self.cluster.kubectl();
        let user = format!("--as=system:node:{}", self.agent.host.name);
        let said =
            kubectl.call(&[&user, "--as-group=system:nodes", "get", "--raw", "/v1-evenkeel/keeper/status"], "")?;
        ensure!(said.failed()?.contains("Forbidden"), "a node may ask the keeper");
        let said = self.cluster.call("finalise --yes")?;
        ensure!(said.code == 3 && said.stderr.contains("nothing to finalise"), "{said:?}");
        Ok(())
    }

    /// A plan first, which changes nothing; then the upgrade, watched to its end.
    fn upgrades(&self, next: &Path) -> anyhow::Result<()> {
        let to = next.display();
        let plan = self.cluster.succeeds(&format!("upgrade --dry-run --bake=2s --to={to}"))?;
        ensure!(plan.starts_with("cluster ") && plan.contains("margin 0") && plan.contains("way back:"), "{plan}");
        ensure!(self.status()?["run"].is_null(), "a dry run armed something");
        let said = self.cluster.succeeds(&format!("upgrade --yes --bake=2s --to={to}"))?;
        ensure!(said.contains("finished"), "{said}");
        // What the machines start with is the new program too.
        for installed in [self.cluster.binary.clone(), self.agent.data.join("bin/evenkeel")] {
            ensure!(fs::read(&installed)? == fs::read(next)?, "{} is the old program", installed.display());
        }
        let disk = self.agent.host.tool(&self.cluster.binary.display().to_string())?;
        let disk = disk.ok(&format!("journal --from-disk --data-dir={}", self.agent.data.display()))?;
        ensure!(disk.contains("finished"), "the agent's copy says {disk}");
        Ok(())
    }

    fn goes_back(&self) -> anyhow::Result<()> {
        self.cluster.succeeds("back --yes --bake=2s").map(drop)
    }

    /// The one who comes second is told who came first; pausing holds before the next node.
    fn two_operators(&self, next: &Path) -> anyhow::Result<()> {
        let upgrade = format!("upgrade --yes --no-watch --bake=2s --to={}", next.display());
        self.cluster.succeeds(&upgrade)?;
        self.cluster.succeeds("pause")?;
        // Told once the node at hand is done: its server is not away any more.
        let watched = self.cluster.call("watch")?;
        ensure!(watched.code == 2 && watched.stderr.contains("is paused"), "{watched:?}");
        let second = self.cluster.call(&upgrade)?;
        ensure!(second.code == 3 && second.stderr.contains("you can watch it: `evenkeel watch`"), "{second:?}");
        self.cluster.succeeds("resume")?;
        self.cluster.succeeds("watch")?;
        let programs = self.running()?;
        ensure!(programs[0] == programs[1], "half of it was done: {programs:?}");
        self.goes_back()
    }

    /// The server is killed at some places of the journal; whoever takes over goes on where it was.
    fn survives_kills(&mut self, next: &Path) -> anyhow::Result<()> {
        self.cluster.succeeds(&format!("upgrade --yes --no-watch --bake=1s --to={}", next.display()))?;
        for place in [4, 7, 12] {
            eventually("the run comes to the place", RUN_BOUND, || {
                let entries = self.status()?["run"]["journal"].as_array().map_or(0, Vec::len);
                ensure!(place <= entries, "{entries} entries");
                Ok(())
            })?;
            self.cluster.kill_server()?;
            self.cluster.start_server()?;
        }
        self.cluster.succeeds("watch")?;
        let programs = self.running()?;
        ensure!(programs[0] == programs[1], "half of it was done: {programs:?}");
        Ok(())
    }

    /// The agent is killed while its program is on trial, and no service manager is there: who looks on starts it again.
    fn survives_the_agents_end(&self, next: &Path) -> anyhow::Result<()> {
        let log = || fs::read_to_string(self.agent.data.join("agent.log"));
        let trials = log()?.matches("on trial").count();
        self.cluster.succeeds(&format!("upgrade --yes --no-watch --bake=1s --to={}", next.display()))?;
        let trial = self.agent.data.join("keeper/trial.json");
        eventually("the agent is on trial", RUN_BOUND, || {
            ensure!(trials < log()?.matches("on trial").count() && trial.exists(), "not yet");
            Ok(())
        })?;
        self.agent.kill()?;
        self.cluster.succeeds("watch")?;
        let programs = self.running()?;
        ensure!(programs[0] == programs[1], "half of it was done: {programs:?}");
        Ok(())
    }

    /// A build that says what it is and then does not run: the node goes back alone, and a person decides.
    fn falls_back(&self) -> anyhow::Result<()> {
        let before = self.running()?;
        let real = self.builds.join("next");
        let script = format!("#!/bin/sh\n[ \"$1\" = version ] && exec {} \"$@\"\nexit 1\n", real.display());
        let broken = self.write(&self.builds.join("broken"), script.as_bytes())?;
        let said = self.cluster.call(&format!("upgrade --yes --bake=1s --to={}", broken.display()))?;
        ensure!(said.code == 4 && said.stderr.contains("needs a decision"), "{said:?}");
        ensure!(said.stderr.contains("went back to what ran before"), "{said:?}");
        ensure!(self.running()? == before, "what ran before does not run");
        self.cluster.succeeds("back --yes").map(drop)
    }

    /// All went well for those who asked through the Service, and no pod was started again.
    fn no_request_failed(&self) -> anyhow::Result<()> {
        let kubectl = self.cluster.kubectl();
        for node in [&self.cluster.host.name, &self.agent.host.name] {
            let log = kubectl.ok(&format!("-n upgrade logs load-{node}"))?;
            let failed = log.lines().filter(|line| line.starts_with("failed")).count();
            ensure!(failed == 0 && log.contains("asked"), "{node}: {failed} failed: {log}");
        }
        let restarts = "-n upgrade get pods -o jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        let restarts = kubectl.ok(restarts)?;
        ensure!(restarts.split(' ').all(|count| count == "0"), "pods were restarted: {restarts}");
        Ok(())
    }
}
