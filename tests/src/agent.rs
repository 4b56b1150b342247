//! An agent on a simulated host of its own, joined to a cluster.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::cgroups::remove_cgroups;
use crate::cluster::{Cluster, EVICTION};
use crate::data::{binary, link_images, program, remove};
use crate::host::{Host, Segment, child_of};
use crate::tool::Tool;
use crate::wait::eventually;

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
        // Not inside the server's folder, which goes with the server's machine.
        let data = cluster.data.with_file_name(&host.name);
        if cluster.options().own_disk {
            host.add_disk(data.join("volumes"))?;
        }
        link_images(&data, cluster.options().small_images)?;
        Agent::start(cluster, host, data)
    }

    fn start(cluster: &Cluster, host: Host, data: PathBuf) -> anyhow::Result<Agent> {
        let create = format!("token create --data-dir={}", cluster.data.display());
        let token = cluster.evenkeel()?.ok(&create)?;
        let program = program(&data, cluster.options().own_program)?;
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
        let resolvers = cluster.options().arguments.iter().filter(|argument| argument.starts_with("--resolv-conf="));
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
            // It may end by itself at this moment.
            let _ = Tool::new("kill").ok(&format!("-9 {inner}"));
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
