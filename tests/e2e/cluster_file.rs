//! One file says what the nodes are told: applied one node after the other, refused where a node would not start with it,
//! taken back by itself where it starts and does not get well, and undone by one word.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Agent, Cluster, Options, Transcript, eventually};
use serde_json::Value;

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"stays"},"spec":{"terminationGracePeriodSeconds":0,
    "containers":[{"name":"c","image":"evenkeel.local/busybox:1","command":["sleep","9999"]}]}}"#;
/// What is applied, and taken back later.
const WISHED: &str = "{drift-policy: repair, write-kubeconfig-mode: '0640'}";
/// No address of any machine here.
const NOWHERE: &str = "192.0.2.1";

struct World {
    cluster: Cluster,
    agent: Agent,
    file: PathBuf,
    /// The file of what is there before anything was declared.
    before: String,
}

pub fn story((): &()) -> anyhow::Result<()> {
    let mut world = World::start()?;
    world.what_is_shown_changes_nothing()?;
    world.refuses_what_nodes_would_not_start_with()?;
    world.applies()?;
    world.holds_over_a_restart()?;
    world.takes_back_what_does_not_get_well()?;
    world.goes_back()
}

// === impl World ===

impl World {
    fn start() -> anyhow::Result<World> {
        let cluster = Cluster::start(Options { own_program: true, ..Options::lane("apply", 20) })?;
        let agent = Agent::join(&cluster, cluster.number() + 1)?;
        cluster.nodes_ready(2)?;
        let kubectl = cluster.kubectl();
        kubectl.ok_fed("create -f -", POD)?;
        kubectl.ok("wait pod stays --for=condition=Ready --timeout=60s")?;
        let file = cluster.data.join("cluster.yaml");
        let mut world = World { cluster, agent, file, before: String::new() };
        eventually("the keeper knows both nodes", Duration::from_secs(60), || {
            world.before = world.ok("apply --show")?;
            ensure!(world.before.matches("role:").count() == 2, "{}", world.before);
            Ok(())
        })?;
        Ok(world)
    }

    fn evenkeel(&self, words: &str) -> anyhow::Result<Transcript> {
        let words = format!("{words} --data-dir={}", self.cluster.data.display());
        self.cluster.evenkeel()?.call(&words.split(' ').collect::<Vec<_>>(), "")
    }

    fn ok(&self, words: &str) -> anyhow::Result<String> {
        let said = self.evenkeel(words)?;
        ensure!(said.success, "evenkeel {words}: {said:?}");
        Ok(said.stdout)
    }

    /// Applies the file of before with these settings for all nodes.
    fn apply(&self, settings: &str, words: &str) -> anyhow::Result<Transcript> {
        fs::write(&self.file, self.before.replacen("nodes:", &format!("settings: {settings}\nnodes:"), 1))?;
        self.evenkeel(&format!("apply {} --bake=1s {words}", self.file.display()))
    }

    fn status(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.ok("plan --json")?).context("read the status")
    }

    /// What each node says that it was started with, server and agent.
    fn settings(&self) -> anyhow::Result<[Value; 2]> {
        let status = self.status()?;
        Ok([&self.cluster.host.name, &self.agent.host.name]
            .map(|node| status["nodes"][node.as_str()]["report"]["running"]["settings"].clone()))
    }

    /// What the server makes of one of its settings.
    fn kubeconfig_mode(&self) -> anyhow::Result<u32> {
        Ok(fs::metadata(self.cluster.kubeconfig())?.permissions().mode() & 0o777)
    }

    fn what_is_shown_changes_nothing(&self) -> anyhow::Result<()> {
        let said = self.apply("{}", "--yes")?;
        ensure!(said.success && said.stdout.contains("there is nothing to do"), "{said:?}");
        ensure!(self.status()?["run"].is_null(), "a run for nothing");
        Ok(())
    }

    fn refuses_what_nodes_would_not_start_with(&self) -> anyhow::Result<()> {
        let (here, there) = (&self.cluster.host.name, &self.agent.host.name);
        for (settings, wanted) in [
            ("{drift-policy: sometimes}", "invalid value 'sometimes'"),
            ("{drift-polcy: repair}", "there is no setting \"drift-polcy\""),
            ("{private-registry: /tmp/x}", "private-registry cannot be set there"),
        ] {
            let said = self.apply(settings, "--yes")?;
            ensure!(said.code == 3 && said.stdout.contains(wanted), "{settings}: {said:?}");
            ensure!(said.stdout.contains(here) && said.stdout.contains(there), "{settings}: {said:?}");
        }
        // Of the server alone: the agent has no such flag, and its cluster's domain is not changed in passing.
        let said = self.apply("{cluster-domain: other.example}", "--yes")?;
        ensure!(said.code == 3 && said.stdout.contains("cluster.local in the cluster"), "{said:?}");
        let other = self.before.replace("cluster: \"", "cluster: \"x");
        fs::write(&self.file, other)?;
        let said = self.evenkeel(&format!("apply {} --yes", self.file.display()))?;
        ensure!(said.code == 3 && said.stderr.contains("the file is for cluster"), "{said:?}");
        ensure!(self.status()?["run"].is_null(), "something was armed");
        Ok(())
    }

    fn applies(&self) -> anyhow::Result<()> {
        let started = self.started()?;
        let said = self.apply(WISHED, "--dry-run")?;
        ensure!(said.success && said.stdout.contains("drift-policy: not set -> repair"), "{said:?}");
        ensure!(self.settings()?.iter().all(Value::is_null), "a dry run changed something");
        let said = self.apply(WISHED, "--yes")?;
        ensure!(said.success, "{said:?}");
        ensure!(self.settings()?.iter().all(|node| node["drift-policy"][0] == "repair"), "{:?}", self.settings()?);
        ensure!(self.kubeconfig_mode()? == 0o640, "the server does not run with what it was told");
        let diff = self.evenkeel("diff")?;
        ensure!(diff.success, "{diff:?}");
        // The same file once more: nothing is written.
        let run = self.status()?["run"]["name"].clone();
        let said = self.apply(WISHED, "--yes")?;
        ensure!(said.success && said.stdout.contains("there is nothing to do"), "{said:?}");
        ensure!(self.status()?["run"]["name"] == run, "a second run");
        ensure!(self.started()? == started, "the pod was started again");
        Ok(())
    }

    fn holds_over_a_restart(&mut self) -> anyhow::Result<()> {
        self.cluster.kill_server()?;
        self.cluster.start_server()?;
        eventually("the server answers", Duration::from_secs(60), || {
            ensure!(self.settings()?[0]["drift-policy"][0] == "repair", "{:?}", self.settings()?);
            Ok(())
        })
    }

    /// It parses, and no server can listen there: the first node goes back alone, and nobody else is touched.
    fn takes_back_what_does_not_get_well(&self) -> anyhow::Result<()> {
        let said = self.apply(&format!("{{drift-policy: report, bind-address: {NOWHERE}}}"), "--yes")?;
        ensure!(said.code == 4 && said.stderr.contains("went back to what ran before"), "{said:?}");
        ensure!(self.settings()?.iter().all(|node| node["drift-policy"][0] == "repair"), "{:?}", self.settings()?);
        self.ok("back --yes").map(drop)
    }

    fn goes_back(&self) -> anyhow::Result<()> {
        let said = self.apply("{}", "--yes")?;
        ensure!(said.success, "{said:?}");
        ensure!(
            self.settings()?.iter().all(Value::is_null) && self.kubeconfig_mode()? == 0o600,
            "{:?}",
            self.settings()?
        );
        self.ok("back --yes --bake=1s")?;
        ensure!(self.settings()?.iter().all(|node| node["drift-policy"][0] == "repair"), "{:?}", self.settings()?);
        ensure!(self.kubeconfig_mode()? == 0o640, "back, and the server does not run with what it was told before");
        Ok(())
    }

    /// When the pod's container was started.
    fn started(&self) -> anyhow::Result<String> {
        self.cluster.kubectl().ok("get pod stays -o jsonpath={.status.containerStatuses[0].state.running.startedAt}")
    }
}
