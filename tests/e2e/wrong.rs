//! `evenkeel wrong` on a cluster that is broken on purpose, one fault after the other: the right cause first, the right
//! next command, and well again once it was followed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Agent, Case, Cluster, Options, Tool, eventually, manifests};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

pub const ALONE: [Case<()>; 1] = [Case { name: "wrong_names_the_cause", run: faults }];

const STORE_MEGABYTES: u32 = 64;
/// From a fault to its sentence, where nothing has to be waited for.
const AT_ONCE: Duration = Duration::from_secs(20);
/// Where the record has to notice first that reports stopped, or a pod has to crash a few times.
const NOTICED: Duration = Duration::from_secs(60);
/// `wrong` as the bench measures it; a debug build on a busy machine gets more.
const LOOKS: usize = 5;

fn faults(_: &()) -> anyhow::Result<()> {
    // A build machine's resolvers are not reached from here, which `wrong` would rightly tell.
    let arguments = vec!["--resolv-conf=/dev/null".to_owned()];
    let options = Options { store_megabytes: Some(STORE_MEGABYTES), arguments, ..Options::lane("wrong", 9) };
    let mut lab = Lab { cluster: Cluster::start(options)? };
    let agent = Agent::join(&lab.cluster, 20 + lab.cluster.number())?;
    let kubectl = lab.cluster.kubectl();
    let node = &lab.cluster.host.name.clone();
    kubectl.ok_fed("apply -f -", &manifests::shop(node))?;
    kubectl.ok("-n shop rollout status deployment/api --timeout=90s")?;
    eventually("the agent registers", NOTICED, || kubectl.ok(&format!("get node {}", agent.host.name)).map(drop))?;
    kubectl.ok(&format!("wait node/{} --for=condition=Ready --timeout=60s", agent.host.name))?;
    lab.is_well()?;
    lab.is_quick()?;

    lab.config()?;
    lab.webhook(&kubectl)?;
    lab.full_disk()?;
    lab.names()?;
    lab.certificates()?;
    lab.crash(&kubectl)?;
    lab.registry(&kubectl)?;
    lab.drain(&kubectl)?;
    lab.runtime()?;
    lab.frozen(&agent, &kubectl)?;
    lab.without_power(agent)?;
    kubectl.ok("delete nodes -l !node-role.kubernetes.io/control-plane")?;
    lab.is_well()?;
    lab.stopped()
}

/// A cluster, and what `wrong` says of it.
struct Lab {
    cluster: Cluster,
}

impl Lab {
    fn wrong(&self, form: &str) -> anyhow::Result<(i32, String)> {
        let said = self.cluster.call(&format!("wrong {form}"))?;
        ensure!(said.code != 1, "{said:?}");
        Ok((said.code, said.stdout))
    }

    /// Waits until this is the cause; answers the printed command.
    fn says(&self, code: &str, bound: Duration) -> anyhow::Result<String> {
        let start = Instant::now();
        let answer = eventually(code, bound, || {
            let (exit, said) = self.wrong("--json")?;
            let said: Value = serde_json::from_str(&said)?;
            ensure!(said["cause"]["code"] == code && exit >= 2, "exit {exit}: {said:#}");
            Ok(said)
        })?;
        let cause = &answer["cause"];
        println!(
            "  {code} after {} ms: {}",
            start.elapsed().as_millis(),
            cause["sentence"].as_str().unwrap_or_default()
        );
        cause["command"].as_str().map(str::to_owned).context("a cause has a command")
    }

    fn is_well(&self) -> anyhow::Result<()> {
        eventually("nothing is wrong", NOTICED, || {
            let (exit, said) = self.wrong("--short")?;
            ensure!(exit == 0 && said.contains("Apps OK. Nothing is wrong."), "exit {exit}: {said}");
            ensure!(said.starts_with("Cluster ") && said.contains("Margin 0: the state is on one server"), "{said}");
            Ok(())
        })
    }

    fn is_quick(&self) -> anyhow::Result<()> {
        let mut times = Vec::new();
        for _ in 0..LOOKS {
            let start = Instant::now();
            self.wrong("--short")?;
            times.push(start.elapsed());
        }
        times.sort();
        println!("  wrong answers within {:?} (of {LOOKS}: {:?} at best)", times[LOOKS - 1], times[0]);
        ensure!(times[0] < Duration::from_secs(2), "the quickest of {LOOKS} looks took {:?}", times[0]);
        Ok(())
    }

    /// Runs a printed command as it stands, on the server's host.
    fn follow(&self, command: &str) -> anyhow::Result<String> {
        let mut shell = self.cluster.host.tool("sh")?;
        let folder = |tool: &Tool| tool.program.parent().map(|path| path.display().to_string()).unwrap_or_default();
        let tools = folder(&self.cluster.kubectl());
        let own = self.cluster.binary.parent().map(|path| path.display().to_string()).unwrap_or_default();
        let path = std::env::var("PATH").unwrap_or_default();
        shell.environment = vec![
            ("PATH".into(), format!("{own}:{tools}:{path}").into()),
            ("EVENKEEL_DATA_DIR".into(), self.cluster.data.clone().into()),
        ];
        shell.ok_with(&["-c", command]).with_context(|| command.to_owned())
    }

    /// A file that the program would not start with, and that it has read before.
    fn config(&self) -> anyhow::Result<()> {
        let config = self.cluster.data.join("config.yaml");
        let ask = || {
            let said = self.cluster.call(&format!("wrong --json --config={}", config.display()))?;
            Ok::<_, anyhow::Error>(serde_json::from_str::<Value>(&said.stdout)?)
        };
        ensure!(ask()?["cause"].is_null());
        fs::write(&config, "no-such-key: 1\n")?;
        let said = ask()?;
        ensure!(
            said["cause"]["code"] == "CONFIG_BAD" && said["cause"]["command"] == "evenkeel check-config",
            "{said:#}"
        );
        fs::remove_file(config).map_err(Into::into)
    }

    fn webhook(&self, kubectl: &Tool) -> anyhow::Result<()> {
        kubectl.ok_fed("create -f -", manifests::WEBHOOK)?;
        let command = self.says("WEBHOOK_DEAD", AT_ONCE)?;
        self.follow(&command)?;
        kubectl.ok("delete validatingwebhookconfiguration policy")?;
        self.is_well()
    }

    fn full_disk(&self) -> anyhow::Result<()> {
        let filler = self.cluster.data.join("server/filler");
        let fill = format!("if=/dev/zero of={} bs=1M count={STORE_MEGABYTES}", filler.display());
        self.cluster.host.tool("dd")?.call(&fill.split(' ').collect::<Vec<_>>(), "")?.failed()?;
        let command = self.says("DISK_FULL", AT_ONCE)?;
        let largest = self.follow(&command)?;
        ensure!(largest.contains("server"), "{largest}");
        self.cluster.host.tool("rm")?.ok(&filler.display().to_string())?;
        self.is_well()
    }

    fn names(&self) -> anyhow::Result<()> {
        let record = fs::read_to_string(self.cluster.data.join("agent/names/names.json"))?;
        let record: Value = serde_json::from_str(&record)?;
        let pid = &record["process"]["pid"];
        let kill = self.cluster.host.tool("kill")?;
        kill.ok(&format!("-STOP {pid}"))?;
        let said = self.says("NAMES_DOWN", AT_ONCE);
        kill.ok(&format!("-CONT {pid}"))?;
        ensure!(said? == "systemctl restart evenkeel");
        self.is_well()
    }

    /// One that should have been renewed, and one that is over, beside those that renew themselves.
    fn certificates(&self) -> anyhow::Result<()> {
        let path = self.cluster.data.join("agent/tls/by-hand.crt");
        let now = std::time::SystemTime::now();
        let day = Duration::from_secs(86_400);
        for (code, ends) in [("CERT_EXPIRING", now + day), ("CERT_EXPIRED", now - day)] {
            let mut params = CertificateParams::new(Vec::new())?;
            (params.not_before, params.not_after) = ((now - 10 * day).into(), ends.into());
            fs::write(&path, params.self_signed(&KeyPair::generate()?)?.pem())?;
            self.says(code, AT_ONCE)?;
        }
        fs::remove_file(path)?;
        self.is_well()
    }

    fn crash(&self, kubectl: &Tool) -> anyhow::Result<()> {
        let patch = r#"[{"op":"replace","path":"/spec/template/spec/containers/0/command","value":["false"]}]"#;
        kubectl.ok_with(&["-n", "shop", "patch", "deployment", "api", "--type=json", "-p", patch])?;
        let command = self.says("CRASH_AFTER_CHANGE", NOTICED)?;
        ensure!(command == "evenkeel kubectl rollout undo deployment/api -n shop", "{command}");
        self.follow(&command)?;
        self.is_well()
    }

    fn registry(&self, kubectl: &Tool) -> anyhow::Result<()> {
        kubectl.ok_fed("create -f -", &manifests::unpullable(&self.cluster.host.name))?;
        let command = self.says("REGISTRY_DOWN", NOTICED)?;
        ensure!(command == "evenkeel images pull 127.0.0.1:9/none:1", "{command}");
        kubectl.ok("-n shop delete pod pull --timeout=30s")?;
        self.is_well()
    }

    fn drain(&self, kubectl: &Tool) -> anyhow::Result<()> {
        kubectl.ok("-n shop create poddisruptionbudget api --selector=app=api --min-available=1")?;
        kubectl.ok("-n shop wait pdb/api --for=jsonpath={.status.expectedPods}=1 --timeout=30s")?;
        kubectl.ok(&format!("cordon {}", self.cluster.host.name))?;
        let command = self.says("DRAIN_BLOCKED", AT_ONCE)?;
        ensure!(self.wrong("--short")?.0 == 4, "a person must choose");
        self.follow(&command)?;
        kubectl.ok("-n shop delete pdb api")?;
        self.is_well()
    }

    /// A frozen machine, and a namespace that does not go away: the one that is urgent comes first.
    fn frozen(&self, agent: &Agent, kubectl: &Tool) -> anyhow::Result<()> {
        kubectl.ok_fed("apply -f -", manifests::STAYS)?;
        kubectl.ok("delete namespace old --wait=false")?;
        agent.signal("STOP")?;
        self.says("AGENT_HUNG", NOTICED)?;
        agent.signal("CONT")?;
        let command = self.says("STUCK_FINALIZER", NOTICED)?;
        ensure!(self.follow(&command)?.contains("foo.example/cleanup"));
        let none = r#"{"metadata":{"finalizers":[]}}"#;
        kubectl.ok_with(&["-n", "old", "patch", "configmap", "held", "--type=merge", "-p", none])?;
        kubectl.ok("wait namespace/old --for=delete --timeout=30s")?;
        self.is_well()
    }

    /// Killed, and kept from being started again by what lies in its place.
    fn runtime(&mut self) -> anyhow::Result<()> {
        let program = self.cluster.host.tool("which")?.ok("containerd")?;
        let program = program.trim();
        self.cluster.host.tool("mount")?.ok(&format!("--bind /bin/false {program}"))?;
        let pid = self.cluster.host.tool("pgrep")?.ok("-x containerd")?;
        self.cluster.host.tool("kill")?.ok(&format!("-9 {}", pid.lines().next().context("containerd runs")?))?;
        let said = self.says("RUNTIME_DOWN", NOTICED);
        self.cluster.host.tool("umount")?.ok(program)?;
        ensure!(said? == "systemctl restart evenkeel");
        self.cluster.stop_server()?;
        self.cluster.start_server()?;
        self.is_well()
    }

    fn without_power(&self, agent: Agent) -> anyhow::Result<()> {
        let name = agent.host.name.clone();
        drop(agent);
        let command = self.says("NODE_DOWN", NOTICED)?;
        // It waits for a machine to put in the place: the lane `wrong` has one.
        ensure!(command == format!("evenkeel replace {name}"), "{command}");
        Ok(())
    }

    fn stopped(&mut self) -> anyhow::Result<()> {
        self.cluster.stop_server()?;
        let command = self.says("SERVER_STOPPED", AT_ONCE)?;
        ensure!(command == "systemctl start evenkeel", "{command}");
        let (exit, said) = self.wrong("--short")?;
        ensure!(exit == 2 && said.contains("Apps not known; 1 containers run."), "{said}");
        self.cluster.start_server()?;
        self.is_well()
    }
}
