//! Three servers and an agent, what `wrong` says of them, and how they are made well again.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use e2e::{Agent, Host, Options, Rack, Tool, eventually};
use serde_json::Value;

use crate::golden::{Golden, Names};
use crate::shell::{Said, Shell};
use crate::{RIGHT_PERCENT_MIN, time};

const HOST: u8 = 10;
/// The agent's host, and the virtual address of the servers.
const AGENT: u8 = 4;
const VIRTUAL: u8 = 9;
/// From a fault to its sentence.
pub const AT_ONCE: Duration = Duration::from_secs(30);
/// Where reports have to stop first, pods to crash a few times, or a probe to come round.
pub const NOTICED: Duration = Duration::from_secs(75);
/// Until all is well again.
pub const WELL: Duration = Duration::from_secs(150);
/// What passed is told for some minutes after.
pub const PASSED: Duration = Duration::from_secs(300);
const COMMAND_BOUND: Duration = Duration::from_secs(120);
const DISK_MEGABYTES: u32 = 400;
const DATA_MEGABYTES: u32 = 6_000;
/// Little, so that it can be filled.
pub const QUOTA_BYTES: u32 = 64 << 20;
/// In the run folder of each host, which is its own.
pub const CONFIG: &str = "/run/evenkeel-config.yaml";
/// The second disk that backups go to.
pub const BACKUPS: &str = "/run/evenkeel-backups";
pub const RESOLV_CONF: &str = "/run/evenkeel-resolv.conf";

/// A machine of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Server(usize),
    Agent,
}

/// The cause, as it was answered.
#[derive(Clone, Debug)]
pub struct Cause {
    pub command: String,
    /// Where it is to be run.
    pub on: At,
    pub others: Vec<String>,
}

/// One thing that was to be answered.
struct Look {
    case: &'static str,
    right: Option<Duration>,
    before: Vec<String>,
}

pub struct World {
    pub rack: Rack,
    pub agent: Agent,
    shell: Shell,
    golden: Golden,
    looks: Vec<Look>,
    /// How long each answer took.
    answers: RefCell<Vec<Duration>>,
    case: &'static str,
    /// Which server is which is chance in this case: all are called alike.
    pub alike: bool,
    /// What every server is started with.
    arguments: Vec<String>,
}

// === impl World ===

impl World {
    pub fn start() -> anyhow::Result<World> {
        let address = format!("172.31.77.{}/24", 10 + Options::lane("", HOST + VIRTUAL).host);
        let arguments = vec![
            format!("--virtual-address={address}"),
            format!("--config={CONFIG}"),
            format!("--resolv-conf={RESOLV_CONF}"),
            format!("--etcd-arg=quota-backend-bytes={QUOTA_BYTES}"),
            format!("--backup-dir={BACKUPS}"),
        ];
        let options = Options {
            own_program: true,
            small_images: true,
            data_megabytes: Some(DATA_MEGABYTES),
            arguments: arguments.clone(),
            ..Options::default()
        };
        let mut rack = Rack::start_with("injected", HOST, options.clone())?;
        rack.join()?;
        rack.join_with(Options { disk_megabytes: Some(DISK_MEGABYTES), ..options })?;
        rack.serves(0, 3)?;
        let mut agent = Agent::join(&rack.servers[0], Options::lane("", HOST + AGENT).host)?;
        agent.command.extend([format!("--config={CONFIG}"), format!("--resolv-conf={RESOLV_CONF}")]);
        time::make_fakeable(&mut agent)?;
        agent.start_again()?;
        let kubectl = rack.servers[0].kubectl();
        eventually("the agent registers", NOTICED, || kubectl.ok(&format!("get node {}", agent.host.name)).map(drop))?;
        kubectl.ok("wait node --all --for=condition=Ready --timeout=90s")?;
        let folder = |tool: &Path| tool.parent().map(Path::to_path_buf).unwrap_or_default();
        let (own, clients) = (folder(&rack.servers[0].binary), folder(&kubectl.program));
        let shell = Shell::new(rack.servers[0].data.join("stand-ins"), &[&own, &clients])?;
        let (golden, looks, answers) = (Golden::read(), Vec::new(), RefCell::default());
        let world = World { rack, agent, shell, golden, looks, answers, case: "", alike: false, arguments };
        world.is_well(WELL)?;
        Ok(world)
    }

    pub fn begin(&mut self, case: &'static str) {
        self.case = case;
        self.alike = false;
    }

    /// Prints how many first causes were right, and whether they were enough.
    pub fn conclude(&mut self, all: bool) -> bool {
        let looks = std::mem::take(&mut self.looks);
        for look in looks.iter().filter(|look| !look.before.is_empty()) {
            println!("  before the right one, {} was answered {}", look.case, look.before.join(", "));
        }
        let right: Vec<Duration> = looks.iter().filter_map(|look| look.right).collect();
        let (first, total) = (right.len(), looks.len());
        println!("first cause right: {first} of {total}; after {}", spread(right));
        let answers = self.answers.take();
        println!("evenkeel wrong was asked {} times; it took {}", answers.len(), spread(answers));
        !all || total * RIGHT_PERCENT_MIN <= first * 100
    }

    pub fn host(&self, at: At) -> &Host {
        match at {
            At::Server(number) => &self.rack.servers[number].host,
            At::Agent => &self.agent.host,
        }
    }

    pub fn data(&self, at: At) -> PathBuf {
        match at {
            At::Server(number) => self.rack.servers[number].data.clone(),
            At::Agent => self.agent.data.clone(),
        }
    }

    pub fn name(&self, at: At) -> &str {
        &self.host(at).name
    }

    pub fn kubectl(&self) -> Tool {
        self.rack.servers[0].kubectl()
    }

    pub fn evenkeel(&self, at: At) -> anyhow::Result<Tool> {
        self.host(at).tool(&self.rack.servers[0].binary.display().to_string())
    }

    fn machine(&self, name: &str) -> Option<At> {
        [At::Server(0), At::Server(1), At::Server(2), At::Agent].into_iter().find(|at| self.name(*at) == name)
    }

    /// Runs something that has to succeed on a host.
    pub fn ok(&self, at: At, words: &str) -> anyhow::Result<String> {
        let (program, rest) = words.split_once(' ').unwrap_or((words, ""));
        self.host(at).tool(program)?.ok(rest)
    }

    /// A line of shell that has to succeed on a host.
    pub fn sh(&self, at: At, line: &str) -> anyhow::Result<String> {
        self.host(at).tool("sh")?.ok_with(&["-c", line])
    }

    /// What `wrong` says on a machine: its exit code, and the answer.
    pub fn wrong(&self, at: At, more: &[&str]) -> anyhow::Result<(i32, Value)> {
        let (data, config) = (format!("--data-dir={}", self.data(at).display()), format!("--config={CONFIG}"));
        let words = [&["wrong", "--json", &data, &config], more].concat();
        let start = Instant::now();
        let said = self.evenkeel(at)?.call(&words, "")?;
        self.answers.borrow_mut().push(start.elapsed());
        ensure!(said.code != 1, "{said:?}");
        Ok((said.code, serde_json::from_str(&said.stdout)?))
    }

    /// Waits until this is the first cause, as this machine sees it, and holds it against its golden line.
    pub fn says(&mut self, from: At, code: &str, bound: Duration) -> anyhow::Result<Cause> {
        self.says_with(from, code, bound, &[])
    }

    pub fn says_with(&mut self, from: At, code: &str, bound: Duration, more: &[&str]) -> anyhow::Result<Cause> {
        let (start, mut before) = (Instant::now(), Vec::new());
        let answer = eventually(code, bound, || {
            let (exit, said) = self.wrong(from, more)?;
            let first = said["cause"]["code"].as_str().unwrap_or("nothing").to_owned();
            if first != code {
                if first != "nothing" && !before.contains(&first) {
                    before.push(first);
                }
                bail!("exit {exit}: {said:#}");
            }
            ensure!(exit == 2 || exit == 4, "exit {exit}");
            Ok(said)
        });
        let right = answer.is_ok().then(|| start.elapsed());
        self.looks.push(Look { case: self.case, right, before });
        let answer = answer?;
        let cause = &answer["cause"];
        let text = |key: &str| cause[key].as_str().unwrap_or_default().to_owned();
        println!(
            "  {} sees {code} after {:.1} s: {}",
            self.name(from),
            start.elapsed().as_secs_f64(),
            text("sentence")
        );
        self.compare(from, code, &format!("{} | {} | {}", text("risk"), text("command"), text("sentence")))?;
        let others = answer["others"].as_array().into_iter().flatten();
        let others = others.filter_map(|one| one["code"].as_str().map(str::to_owned)).collect();
        let on = cause["on"].as_str().and_then(|name| self.machine(name)).unwrap_or(from);
        Ok(Cause { command: text("command"), on, others })
    }

    /// Waits until this is told beside the cause, or where nothing is wrong; answers its sentence.
    pub fn tells(&mut self, from: At, code: &str, bound: Duration) -> anyhow::Result<String> {
        let start = Instant::now();
        let told = eventually(code, bound, || {
            let (_, said) = self.wrong(from, &[])?;
            let one = said["others"].as_array().into_iter().flatten().find(|one| one["code"] == code);
            one.cloned().with_context(|| format!("{said:#}"))
        });
        self.looks.push(Look { case: self.case, right: told.is_ok().then(|| start.elapsed()), before: Vec::new() });
        let told = told?;
        let text = |key: &str| told[key].as_str().unwrap_or_default();
        println!(
            "  {} tells {code} after {:.1} s: {}",
            self.name(from),
            start.elapsed().as_secs_f64(),
            text("sentence")
        );
        self.compare(from, code, &format!("{} | {}", text("class"), text("sentence")))?;
        Ok(text("sentence").to_owned())
    }

    fn compare(&mut self, from: At, code: &str, line: &str) -> anyhow::Result<()> {
        let names = self.names();
        let key = format!("{} from {}, {code}", self.case, names.plain(self.name(from)));
        self.golden.check(&key, &names.plain(line))
    }

    fn names(&self) -> Names {
        let mut names = Names::default();
        let all = [
            (At::Server(0), "server-a"),
            (At::Server(1), "server-b"),
            (At::Server(2), "server-c"),
            (At::Agent, "agent-d"),
        ];
        names.add(self.data(At::Agent).display().to_string(), "DATA");
        for (at, _) in all {
            names.add(self.data(at).display().to_string(), "DATA");
        }
        for (at, stands) in all {
            let stands = if self.alike && at != At::Agent { "a server" } else { stands };
            names.add(self.name(at), stands);
            names.add(format!("{}:6443", self.host(at).address), stands);
        }
        names
    }

    /// Runs the printed command as it stands, where it is to be run.
    pub fn follow(&mut self, cause: &Cause) -> anyhow::Result<Said> {
        self.run(cause.on, &cause.command)
    }

    pub fn run(&mut self, at: At, command: &str) -> anyhow::Result<Said> {
        self.run_with(at, command, COMMAND_BOUND, |_, _| Ok(()))
    }

    /// Likewise; `hear` is told what was said so far, and may act on it.
    pub fn run_with(
        &mut self,
        at: At,
        command: &str,
        bound: Duration,
        mut hear: impl FnMut(&mut World, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Said> {
        let tool = self.host(at).tool("sh")?;
        let environment = [
            ("EVENKEEL_DATA_DIR", self.data(at).display().to_string()),
            ("EVENKEEL_CONFIG", CONFIG.to_owned()),
            ("HOME", "/root".to_owned()),
        ];
        let folder = self.rack.servers[0].data.join("stand-ins");
        let shell = std::mem::replace(&mut self.shell, Shell::none(folder));
        let said = shell.run(tool, &environment, command, bound, |asked, said| {
            if !asked.is_empty() {
                self.act(at, asked)?;
            }
            hear(self, said)
        });
        self.shell = shell;
        said
    }

    /// What a service manager or a clock of the host would do.
    fn act(&mut self, at: At, asked: &str) -> anyhow::Result<()> {
        match asked.split(' ').collect::<Vec<_>>()[..] {
            ["systemctl", "start", "evenkeel"] => self.start_program(at),
            ["systemctl", "restart", "evenkeel"] | ["systemctl", "kill", "--signal=KILL", "evenkeel"] => {
                self.kill_program(at);
                self.start_program(at)
            }
            ["systemctl", "reboot", "--force"] => self.reboot(at),
            ["chronyc", "makestep"] => time::set_right(self),
            _ => bail!("no simulated host can {asked}"),
        }
    }

    pub fn kill_program(&mut self, at: At) {
        // One that ended by itself is as dead.
        let _ = match at {
            At::Server(number) => self.rack.servers[number].kill_server(),
            At::Agent => self.agent.kill(),
        };
    }

    pub fn start_program(&mut self, at: At) -> anyhow::Result<()> {
        match at {
            At::Server(number) => {
                // One that was told to stop has ended by itself.
                let _ = self.rack.servers[number].ended(Duration::ZERO);
                self.rack.servers[number].start_server()
            }
            At::Agent => self.agent.start_again(),
        }
    }

    /// A server that left joins again by the one command.
    pub fn rejoin(&mut self, server: usize) -> anyhow::Result<()> {
        let joining = self.rack.servers[0].joining()?;
        self.rack.servers[server].ended(AT_ONCE)?;
        self.start_with(server, joining)?;
        self.rack.serves(0, 3)
    }

    /// Starts a server with further arguments, which it needs once.
    pub fn start_with(&mut self, server: usize, once: Vec<String>) -> anyhow::Result<()> {
        let (own, server) = (self.arguments.clone(), &mut self.rack.servers[server]);
        server.set_arguments([own.clone(), once].concat());
        server.start_server()?;
        server.set_arguments(own);
        Ok(())
    }

    pub fn power_cut(&mut self, at: At) -> anyhow::Result<()> {
        self.host(at).unplug()?;
        match at {
            At::Server(number) => self.rack.servers[number].power_cut(),
            At::Agent => self.agent.host.power_cut(),
        }
    }

    /// Power and cable; nothing is started.
    pub fn power_on(&mut self, at: At) -> anyhow::Result<()> {
        self.host(at).plug()?;
        match at {
            At::Server(number) => self.rack.servers[number].host.power_on(),
            At::Agent => self.agent.host.power_on(),
        }
    }

    pub fn reboot(&mut self, at: At) -> anyhow::Result<()> {
        if at == At::Server(2) {
            // A disk that hung answers again after a reset.
            let _ = self.rack.servers[2].disk().thaw(&self.rack.servers[2].host);
        }
        self.power_cut(at)?;
        self.power_on(at)?;
        self.start_program(at)
    }

    /// Every machine answered, and nothing is wrong.
    pub fn is_well(&self, bound: Duration) -> anyhow::Result<()> {
        eventually("all is well", bound, || {
            let (exit, said) = self.wrong(At::Server(0), &[])?;
            let all = said["unknown"].as_array().is_some_and(Vec::is_empty);
            ensure!(exit == 0 && all, "exit {exit}: {said:#}");
            Ok(())
        })
    }

    /// After a case that failed: whatever it left is taken away.
    pub fn mend(&mut self) -> anyhow::Result<()> {
        let _ = self.rack.servers[2].disk().thaw(&self.rack.servers[2].host);
        for at in [At::Server(0), At::Server(1), At::Server(2), At::Agent] {
            let _ = self.power_cut(at);
        }
        for at in [At::Server(0), At::Server(1), At::Server(2), At::Agent] {
            self.power_on(at)?;
            // The first of them waits for a second one.
            let _ = self.start_program(at);
        }
        eventually("what the case made is taken away", PASSED, || {
            LEFT.iter().try_for_each(|words| self.kubectl().ok(words).map(drop))
        })?;
        self.is_well(PASSED)
    }
}

/// What a case that failed may have left in the cluster.
const LEFT: [&str; 4] = [
    "uncordon --selector=kubernetes.io/os=linux",
    "delete validatingwebhookconfiguration policy --ignore-not-found --request-timeout=10s",
    "delete namespace filler shop --ignore-not-found --wait=false --request-timeout=10s",
    "delete pod/db pvc/data configmap/marker --ignore-not-found --wait=false --request-timeout=10s",
];

/// Half of them, and 95 of 100.
fn spread(mut spans: Vec<Duration>) -> String {
    spans.sort_unstable();
    let at = |percent: usize| spans.get((spans.len() * percent / 100).min(spans.len().saturating_sub(1)));
    let seconds = |percent: usize| at(percent).map_or(0.0, Duration::as_secs_f64);
    format!("{:.1} s, p95 {:.1} s", seconds(50), seconds(95))
}
