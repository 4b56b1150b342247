//! One Evenkeel server with everything on one simulated host, and the clients that talk to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::cgroups::remove_cgroups;
use crate::disk::Disk;
use crate::host::{Host, Segment, VOLUMES, child_of};
use crate::load::Endpoint;
use crate::tool::{Tool, Transcript};
use crate::wait::eventually;

/// How long a started server may take until it answers, in a debug build on a busy machine.
const READY_BOUND: Duration = Duration::from_secs(60);

/// A build machine's disk is often full by measures of a server: what is tested must not depend on it.
const EVICTION: &str = "--eviction-hard=memory.available<100Mi,nodefs.available<100Mi,imagefs.available<100Mi";

/// Choices of a cluster that differ between lanes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Number of the first host; lanes that run at once use different ones.
    pub host: u8,
    /// Further arguments of `evenkeel server`.
    pub arguments: Vec<String>,
    /// Puts the store on a disk of this size.
    pub store_megabytes: Option<u32>,
    /// Puts all data on a disk of this size: how full the machine's own is must not matter to what is tested.
    pub data_megabytes: Option<u32>,
    /// Puts the server's folder on a disk of its own with this size, which stays when the power goes.
    pub disk_megabytes: Option<u32>,
    /// The data folder of a server whose keys this one has as well: servers of one store.
    pub keys_of: Option<PathBuf>,
    /// Folder for all data; removed with the cluster.
    pub name: String,
    /// Every host has a copy of the program, which may be replaced there.
    pub own_program: bool,
    /// Only the images that small pods need: the others are large, and every host unpacks its own.
    pub small_images: bool,
    /// One of several servers: volumes lie on a disk of the host's own.
    pub own_disk: bool,
}

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

// === impl Options ===

impl Options {
    /// The cluster of a lane. `EVENKEEL_HOST` moves it to other host numbers, so that two people can run one lane.
    pub fn lane(name: &str, host: u8) -> Options {
        let shift: u8 = std::env::var("EVENKEEL_HOST").ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        Options { host: host + shift, name: format!("{name}{shift}"), ..Options::default() }
    }
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
        if self.server.is_some() {
            bail!("the server runs already");
        }
        let start = Instant::now();
        self.server = Some(self.spawn()?);
        eventually("the server is ready", READY_BOUND, || self.readyz())
            .with_context(|| format!("see {}", self.data.join("server.log").display()))?;
        self.ready_after = start.elapsed();
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

    /// Number of this cluster's host.
    pub fn number(&self) -> u8 {
        self.options.host
    }

    /// Asks /readyz over a connection of its own.
    pub fn readyz(&self) -> anyhow::Result<()> {
        let answer = Endpoint::of(&self.kubectl())?.connect()?.call("GET", "/readyz", "")?;
        ensure!(answer.code == 200, "/readyz answered {}", answer.code);
        Ok(())
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
        let inner = child_of(server.id())?;
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
        self.evenkeel()?.call(&words.split_whitespace().collect::<Vec<_>>(), "")
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

/// A machine that joined a cluster with a token.
pub struct Agent {
    pub host: Host,
    pub data: PathBuf,
    /// What it is started by: a program, and its arguments.
    pub command: Vec<String>,
    process: Child,
}

impl Agent {
    /// Starts `evenkeel agent` on a host of its own.
    pub fn join(cluster: &Cluster, number: u8) -> anyhow::Result<Agent> {
        Agent::join_in(cluster, Segment::First, number)
    }

    pub fn join_in(cluster: &Cluster, segment: Segment, number: u8) -> anyhow::Result<Agent> {
        let mut host = Host::up_in(segment, number)?;
        let data = cluster.data.join(&host.name);
        if cluster.options.own_disk {
            host.add_disk(data.join("volumes"))?;
        }
        link_images(&data, cluster.options.small_images)?;
        Agent::start(cluster, host, data)
    }

    fn start(cluster: &Cluster, host: Host, data: PathBuf) -> anyhow::Result<Agent> {
        let create = format!("token create --data-dir={}", cluster.data.display());
        let token = cluster.evenkeel()?.ok(&create)?;
        let program = program(&data, cluster.options.own_program)?;
        let mut command = vec![
            program.display().to_string(),
            "agent".to_owned(),
            format!("--server=https://{}:6443", cluster.host.address),
            format!("--token={}", token.trim()),
            format!("--data-dir={}", data.display()),
            format!("--node-name={}", host.name),
            format!("--node-ip={}", host.address),
            EVICTION.to_owned(),
        ];
        // Whom names are asked of is the rack's.
        let resolvers = cluster.options.arguments.iter().filter(|argument| argument.starts_with("--resolv-conf="));
        command.extend(resolvers.cloned());
        let process = spawn(&host, &data, &command)?;
        Ok(Agent { host, data, command, process })
    }
}

fn spawn(host: &Host, data: &Path, command: &[String]) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(data.join("agent.log"))?;
    let (program, arguments) = command.split_first().context("what starts an agent is a program")?;
    let tool = host.tool(program)?;
    let mut command = Command::new(&tool.program);
    command.args(&tool.leading).args(arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("start the agent")
}

impl Agent {
    /// `evenkeel` itself, run on the agent's host.
    pub fn evenkeel(&self) -> anyhow::Result<Tool> {
        self.host.tool(&binary().display().to_string())
    }

    /// Where the agent keeps its things.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Waits until the agent ended by itself; answers its log.
    pub fn ended(&mut self, bound: Duration) -> anyhow::Result<String> {
        eventually("the agent ends", bound, || self.process.try_wait()?.context("it still runs"))?;
        fs::read_to_string(self.data.join("agent.log")).context("read its log")
    }

    /// Starts it again, after it was killed if it still ran.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        if let Ok(inner) = child_of(self.process.id()) {
            Tool::new("kill").ok(&format!("-9 {inner}"))?;
        }
        // Where it was stopped it would not notice.
        let _ = self.process.kill();
        self.process.wait().context("wait for the agent")?;
        self.process = spawn(&self.host, &self.data, &self.command)?;
        Ok(())
    }

    /// Kills the agent's process, and nothing else, without a word of warning. Whoever looks on may start it again.
    pub fn kill(&self) -> anyhow::Result<()> {
        let inner = child_of(self.process.id())?;
        Tool::new("kill").ok(&format!("-9 {inner}")).map(drop)
    }

    /// Stops the agent's process without ending it, or lets it go on: `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let outer = self.process.id();
        // The one outside stops with its child and does not go on with it.
        Tool::new("kill").ok(&format!("-{signal} {} {outer}", child_of(outer)?)).map(drop)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let cut = self.host.power_cut();
        // Where it was stopped it would not notice.
        let _ = self.process.kill();
        let cut = cut.and_then(|()| self.process.wait().map(drop).context("wait for the agent"));
        let cleaned = cut.and_then(|()| remove_cgroups(&self.data)).and_then(|()| remove(&self.data));
        if let Err(error) = cleaned {
            eprintln!("{error:#}");
        }
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

const SMALL_IMAGES: [&str; 2] = ["busybox-1.tar", "pause-1.tar"];

/// The demo and test images, where a node imports them from at start.
fn link_images(data: &Path, small: bool) -> anyhow::Result<()> {
    let from = target().join("images");
    let to = data.join("agent/images");
    fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(&from).with_context(|| format!("read {}: run cargo xtask images", from.display()))? {
        let entry = entry?;
        let wanted = !small || SMALL_IMAGES.iter().any(|name| entry.file_name() == *name);
        if wanted && entry.path().extension().is_some_and(|extension| extension == "tar") {
            let link = to.join(entry.file_name());
            fs::hard_link(entry.path(), &link).or_else(|_| fs::copy(entry.path(), &link).map(drop))?;
        }
    }
    Ok(())
}

/// The build folder this test binary was built into.
pub fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the kit lies in the workspace");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}

fn binary() -> PathBuf {
    std::env::var_os("EVENKEEL_BIN").map_or_else(|| target().join("debug/evenkeel"), PathBuf::from)
}

/// The program that a host starts: the one that was built, or a copy below `data`.
fn program(data: &Path, own: bool) -> anyhow::Result<PathBuf> {
    if !own {
        return Ok(binary());
    }
    let copy = data.join("bin/evenkeel");
    fs::create_dir_all(data.join("bin"))?;
    fs::copy(binary(), &copy).with_context(|| format!("write {}", copy.display()))?;
    Ok(copy)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}
