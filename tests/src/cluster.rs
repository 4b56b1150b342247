//! One Evenkeel server with everything on one simulated host, and the clients that talk to it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::cgroups::remove_cgroups;
use crate::data::{link_images, program, remove, target};
use crate::disk::Disk;
use crate::host::{Host, VOLUMES, child_of};
use crate::load::Endpoint;
use crate::options::Options;
use crate::tool::{CALL_BOUND, Tool, Transcript};
use crate::wait::eventually;

/// How long a started server may take until it answers, in a debug build on a busy machine.
const READY_BOUND: Duration = Duration::from_secs(120);
/// How long all nodes may take to register and get ready, likewise.
const NODES_BOUND: Duration = Duration::from_secs(120);
/// How long one look may take.
const ANSWER_BOUND: Duration = Duration::from_secs(20);
/// What `timeout` ends with where it had to end the command.
const TIMED_OUT: i32 = 124;

/// A build machine's disk is often full by measures of a server: what is tested must not depend on it.
pub(crate) const EVICTION: &str =
    "--eviction-hard=memory.available<100Mi,nodefs.available<100Mi,imagefs.available<100Mi";

/// A running server. Dropping it stops everything it started.
pub struct Cluster {
    pub host: Host,
    pub data: PathBuf,
    /// From the start of the server's process until /readyz was good.
    pub ready_after: Duration,
    /// The program that is started.
    pub binary: PathBuf,
    options: Options,
    server: Option<Child>,
}

// === impl Cluster ===

impl Cluster {
    /// Starts a server in an empty folder and waits until it is ready.
    pub fn start(options: Options) -> anyhow::Result<Cluster> {
        let data = PathBuf::from("/var/tmp/evenkeel-e2e").join(&options.name);
        remove(&data)?;
        fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        if let Some(megabytes) = options.data_megabytes {
            Disk::new(data.with_extension("data"), data.clone()).attach(megabytes)?;
        }
        let mut host = Host::up(options.host)?;
        if options.own_disk {
            host.add_disk(data.join("volumes"))?;
        }
        let binary = program(&data, options.own_program)?;
        let mut cluster = Cluster { host, data, ready_after: Duration::ZERO, binary, options, server: None };
        link_images(&cluster.data, cluster.options.small_images)?;
        cluster.limit_store()?;
        cluster.copy_keys()?;
        cluster.start_server()?;
        Ok(cluster)
    }

    fn limit_store(&self) -> anyhow::Result<()> {
        let Some(megabytes) = self.options.store_megabytes else { return Ok(()) };
        let folder = self.data.join("server");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let words = format!("-t tmpfs -o size={megabytes}m,mode=700 store {}", folder.display());
        self.host.tool("mount")?.ok(&words).map(drop)
    }

    fn copy_keys(&self) -> anyhow::Result<()> {
        let Some(from) = &self.options.keys_of else { return Ok(()) };
        let to = self.data.join("server");
        fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
        for name in ["tls", "cred", "token"] {
            let words = format!("-a {} {}", from.join("server").join(name).display(), to.display());
            Tool::new("cp").ok(&words)?;
        }
        Ok(())
    }

    /// Starts the server's process, waits until it answers /readyz.
    pub fn start_server(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        self.launch()?;
        eventually("the server is ready", READY_BOUND, || self.readyz())
            .with_context(|| format!("see {}", self.data.join("server.log").display()))?;
        self.ready_after = start.elapsed();
        Ok(())
    }

    /// Starts the server's process, and waits for nothing.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        ensure!(self.server.is_none(), "the server runs already");
        self.server = Some(self.spawn()?);
        Ok(())
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        if let Some(megabytes) = self.options.disk_megabytes {
            self.disk().insert(&self.host, megabytes)?;
        }
        let log = File::options().create(true).append(true).open(self.data.join("server.log"))?;
        let mut tool = self.evenkeel()?;
        tool.leading.extend(self.arguments().into_iter().map(Into::into));
        let mut command = Command::new(&tool.program);
        command.args(&tool.leading).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().context("start evenkeel")
    }

    /// Starts the server, and cuts the power once a file of its data folder says something.
    pub fn cut_when(&mut self, file: &str, says: &str) -> anyhow::Result<()> {
        self.server = Some(self.spawn()?);
        let path = self.data.join(file);
        eventually(&format!("{file} says {says}"), READY_BOUND, || {
            let text = fs::read_to_string(&path)?;
            ensure!(text.contains(says), "it says {text}");
            Ok(())
        })?;
        self.power_cycle()
    }

    /// Starts the server again where its process ended by itself, as a service manager does. True where it had.
    pub fn keep_up(&mut self) -> anyhow::Result<bool> {
        let ended = self.server.as_mut().context("the server does not run")?.try_wait()?.is_some();
        if ended {
            self.server = None;
            self.launch()?;
        }
        Ok(ended)
    }

    /// Waits until the server ended by itself; answers its log.
    pub fn ended(&mut self, bound: Duration) -> anyhow::Result<String> {
        let server = self.server.as_mut().context("the server does not run")?;
        eventually("the server ends", bound, || server.try_wait()?.context("it still runs"))?;
        self.server = None;
        fs::read_to_string(self.data.join("server.log")).context("read its log")
    }

    /// The disk of the server's folder, where it has one of its own.
    pub fn disk(&self) -> Disk {
        Disk::new(self.data.with_extension("disk"), self.data.join("server"))
    }

    /// Further arguments of the starts from now on.
    pub fn set_arguments(&mut self, arguments: Vec<String>) {
        self.options.arguments = arguments;
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Number of this cluster's host.
    pub fn number(&self) -> u8 {
        self.options.host
    }

    /// Asks /readyz over a connection of its own.
    pub fn readyz(&self) -> anyhow::Result<()> {
        // At the virtual address of a rack another server may answer.
        let own = Endpoint::read(&self.kubeconfig())?.at(&self.host.address);
        let answer = own.connect_within(ANSWER_BOUND)?.call("GET", "/readyz", "")?;
        ensure!(answer.code == 200, "/readyz answered {}", answer.code);
        Ok(())
    }

    /// Waits until so many nodes have registered, and all of them are ready.
    pub fn nodes_ready(&self, count: usize) -> anyhow::Result<()> {
        let path = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        let kubectl = self.kubectl();
        eventually("all nodes are ready", NODES_BOUND, || {
            let told = kubectl.ok_with(&["get", "nodes", "-o", path])?;
            let ready: Vec<&str> = told.split_whitespace().collect();
            ensure!(ready.len() == count && ready.iter().all(|one| *one == "True"), "of {count} nodes: {told:?}");
            Ok(())
        })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "server".to_owned(),
            format!("--data-dir={}", self.data.display()),
            format!("--node-name={}", self.host.name),
            format!("--node-ip={}", self.host.address),
            format!("--write-kubeconfig={}", self.kubeconfig().display()),
            EVICTION.to_owned(),
        ];
        if self.options.own_disk {
            arguments.push(format!("--default-local-storage-path={VOLUMES}"));
        }
        arguments.extend(self.options.arguments.iter().cloned());
        arguments
    }

    /// Kills the server's process, and nothing else, without a word of warning.
    pub fn kill_server(&mut self) -> anyhow::Result<()> {
        let Some(mut server) = self.server.take() else { bail!("the server does not run") };
        // Right after its start there is only the one outside.
        let inner = eventually("the server's process is there", ANSWER_BOUND, || child_of(server.id()))?;
        // Where it was frozen the one outside stopped with it, and would not notice its end.
        Tool::new("kill").ok(&format!("-9 {inner}"))?;
        Tool::new("kill").ok(&format!("-CONT {}", server.id()))?;
        server.wait().map(drop).context("wait for the killed server")
    }

    /// Stops the server's process without ending it.
    pub fn freeze_server(&self) -> anyhow::Result<()> {
        // The one outside stops itself when it sees its child stop: told as well, it would stop twice.
        Tool::new("kill").ok(&format!("-STOP {}", child_of(self.outer()?)?)).map(drop)
    }

    /// Lets it go on.
    pub fn thaw_server(&self) -> anyhow::Result<()> {
        let outer = self.outer()?;
        Tool::new("kill").ok(&format!("-CONT {outer} {}", child_of(outer)?)).map(drop)
    }

    fn outer(&self) -> anyhow::Result<u32> {
        Ok(self.server.as_ref().context("the server does not run")?.id())
    }

    /// Kills this host's containerd without a word of warning and waits until another one runs.
    pub fn kill_containerd(&self) -> anyhow::Result<()> {
        let old = self.containerd()?;
        self.host.tool("kill")?.ok(&format!("-9 {old}"))?;
        eventually("containerd is back", Duration::from_secs(30), || {
            ensure!(self.containerd()? != old, "the killed process is still listed");
            Ok(())
        })
    }

    /// Process id of containerd, as the host sees it.
    fn containerd(&self) -> anyhow::Result<String> {
        let pids = self.host.tool("pgrep")?.ok("-x containerd")?;
        pids.lines().next().map(str::to_owned).context("containerd does not run")
    }

    /// Resident memory of the server's process, in MiB.
    pub fn server_megabytes(&self) -> anyhow::Result<u64> {
        let server = self.server.as_ref().context("the server does not run")?;
        let path = format!("/proc/{}/status", child_of(server.id())?);
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        Ok(kilobytes / 1024)
    }

    /// Runs the server until it ends by itself, which it is expected to; answers what it said.
    pub fn refused(&self, arguments: &[String]) -> anyhow::Result<String> {
        let mut words = self.arguments();
        words.extend_from_slice(arguments);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.evenkeel()?.call(&words, "")?.failed()
    }

    /// Asks the server to stop, as a service manager does, and waits for its end.
    pub fn stop_server(&mut self) -> anyhow::Result<()> {
        let Some(mut server) = self.server.take() else { bail!("the server does not run") };
        let inner = child_of(server.id())?;
        Tool::new("kill").ok(&format!("-TERM {inner}"))?;
        let bound = Duration::from_secs(30);
        let ended = eventually("the server ends", bound, || server.try_wait()?.context("it still runs"));
        let status = ended?;
        if !status.success() {
            bail!("the server ended with {status}");
        }
        Ok(())
    }

    /// Empties the data folder, but for the images, as if the disk had been replaced. The host must be rebooted before.
    pub fn wipe(&mut self) -> anyhow::Result<()> {
        if self.options.data_megabytes.is_some() {
            Tool::new("find").ok(&format!("{} -mindepth 1 -delete", self.data.display()))?;
        } else {
            remove(&self.data)?;
        }
        self.disk().throw_away()?;
        link_images(&self.data, self.options.small_images)?;
        self.binary = program(&self.data, self.options.own_program)?;
        Ok(())
    }

    /// What another machine is told so that it joins this one.
    pub fn joining(&self) -> anyhow::Result<Vec<String>> {
        let token = fs::read_to_string(self.data.join("server/token")).context("the servers' token")?;
        Ok(vec![format!("--server=https://{}:6443", self.host.address), format!("--token={}", token.trim())])
    }

    /// A blank machine in this one's place, started by one command.
    pub fn start_blank(&mut self, arguments: Vec<String>) -> anyhow::Result<()> {
        self.wipe()?;
        self.host.plug()?;
        self.host.power_on()?;
        self.set_arguments(arguments);
        self.start_server()?;
        // What it was told once it does not need again.
        self.set_arguments(Vec::new());
        Ok(())
    }

    /// Power and cable are gone: nothing answers any more, not even with a refusal.
    pub fn vanish(&mut self) -> anyhow::Result<()> {
        self.host.unplug()?;
        self.power_cut()
    }

    /// `evenkeel WORDS` on the host, for this server, however it ends.
    pub fn call(&self, words: &str) -> anyhow::Result<Transcript> {
        let words = format!("{words} --data-dir={}", self.data.display());
        // What runs on a host does not end with what entered it.
        let mut tool = self.host.tool("timeout")?;
        let bound = CALL_BOUND.as_secs().to_string();
        tool.leading.extend(["-k".into(), "10".into(), bound.into(), self.binary.clone().into()]);
        let said = tool.call(&words.split_whitespace().collect::<Vec<_>>(), "")?;
        ensure!(said.code != TIMED_OUT, "it does not end within {CALL_BOUND:?}: {said:?}");
        Ok(said)
    }

    /// Likewise; it must succeed. Answers what it said.
    pub fn succeeds(&self, words: &str) -> anyhow::Result<String> {
        self.call(words)?.succeeded()
    }

    /// Power off and on, without starting the server.
    pub fn power_cycle(&mut self) -> anyhow::Result<()> {
        self.power_cut()?;
        self.host.power_on()
    }

    /// Everything on the host is gone at once; its disk stays.
    pub fn power_cut(&mut self) -> anyhow::Result<()> {
        self.host.power_cut()?;
        if let Some(mut server) = self.server.take() {
            server.wait().context("wait for the server's end")?;
        }
        Ok(())
    }

    /// Power off, power on, start again: everything but the disk is lost.
    pub fn reboot(&mut self) -> anyhow::Result<()> {
        self.power_cycle()?;
        self.start_server()
    }

    /// kubectl of the server's minor, as the cluster's administrator.
    pub fn kubectl(&self) -> Tool {
        self.client("kubectl")
    }

    /// A client of `target/tools` with the administrator's kubeconfig.
    pub fn client(&self, name: &str) -> Tool {
        let mut tool = Tool::new(target().join("tools").join(name));
        tool.environment = vec![
            ("KUBECONFIG".into(), self.kubeconfig().into()),
            ("HOME".into(), self.data.clone().into()),
            ("TERM".into(), "dumb".into()),
        ];
        tool
    }

    /// `evenkeel` itself, run on the host.
    pub fn evenkeel(&self) -> anyhow::Result<Tool> {
        self.host.tool(&self.binary.display().to_string())
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.host.power_cut() {
            eprintln!("{error:#}");
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
        if let Err(error) = remove_cgroups(&self.data) {
            eprintln!("{error:#}");
        }
        if self.options.data_megabytes.is_some()
            && let Err(error) = Disk::new(self.data.with_extension("data"), self.data.clone()).detach()
        {
            eprintln!("{error:#}");
        }
        if std::env::var_os("EVENKEEL_KEEP").is_none()
            && let Err(error) = remove(&self.data).and_then(|()| self.disk().throw_away())
        {
            eprintln!("{error:#}");
        }
    }
}
