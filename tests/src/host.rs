//! A simulated host: network, mount and process namespaces of its own, joined to others by a bridge.
//!
//! Killing the namespace's first process is a power cut: everything on the host is gone at once, its disk stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::tool::Tool;
use crate::wait::eventually;

/// What joins hosts with the machine the tests run on, which is the router between the two: a bridge with a /24 of its own
/// that no cluster range overlaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    First,
    Second,
}

/// What the first process of a host does: private run folder, a `/sys` that shows the host's own links, shared mounts, then
/// adopt and reap orphans.
const INIT: &str = "mount -t tmpfs tmpfs /run && mkdir /run/cgroup && mount --rbind /sys/fs/cgroup /run/cgroup && \
                    mount -t sysfs sysfs /sys && mount --rbind /run/cgroup /sys/fs/cgroup && umount -R /run/cgroup && \
                    mount --make-rshared / && mkdir /run/lock && while :; do wait; sleep 1; done";

/// Where a host's own disk for volumes is: hosts share the rest of this machine's file system, and a path of one is a path of all.
pub const VOLUMES: &str = "/mnt";

/// One host. Dropping it cuts its power and removes its links.
pub struct Host {
    pub name: String,
    pub address: String,
    segment: Segment,
    init: Option<Child>,
    /// What lies at [`VOLUMES`].
    disk: Option<PathBuf>,
}

// === impl Segment ===

impl Segment {
    fn bridge(self) -> &'static str {
        match self {
            Segment::First => "ekt0",
            Segment::Second => "ekt1",
        }
    }

    /// Of its addresses the first three bytes.
    fn network(self) -> &'static str {
        match self {
            Segment::First => "172.31.77",
            Segment::Second => "172.31.78",
        }
    }

    fn up(self) -> anyhow::Result<()> {
        let bridge = self.bridge();
        if Path::new("/sys/class/net").join(bridge).exists() {
            return Ok(());
        }
        ip(&format!("link add {bridge} type bridge"))?;
        // Said aloud, it stays, whatever the links of hosts take.
        ip(&format!("link set {bridge} mtu 1500"))?;
        ip(&format!("addr add {}.1/24 dev {bridge}", self.network()))?;
        ip(&format!("link set {bridge} up"))?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward between segments")
    }
}

// === impl Host ===

impl Host {
    /// Brings a host up at `172.31.77.(10 + number)`.
    pub fn up(number: u8) -> anyhow::Result<Host> {
        Host::up_in(Segment::First, number)
    }

    pub fn up_in(segment: Segment, number: u8) -> anyhow::Result<Host> {
        let name = format!("ekt-h{number}");
        let address = format!("{}.{}", segment.network(), 10 + number);
        let mut host = Host { address, name, segment, init: None, disk: None };
        host.remove_links();
        segment.up()?;
        host.add_links()?;
        host.power_on()?;
        Ok(host)
    }

    fn add_links(&self) -> anyhow::Result<()> {
        let Host { name, address, segment, .. } = self;
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add v{name} type veth peer name eth0 netns {name}"))?;
        ip(&format!("link set v{name} master {} up", segment.bridge()))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {name} route add default via {}.1", segment.network()))
    }

    /// What the other end of this host's cable takes; larger packets vanish without a word.
    pub fn take_at_most(&self, bytes: u32) -> anyhow::Result<()> {
        let Host { name, .. } = self;
        // Links of the kernel's own kind pass on many packets as a large one, unless told not to.
        ip(&format!("-n {name} link set eth0 gso_max_segs 1"))?;
        ip(&format!("link set v{name} mtu {bytes}"))
    }

    fn remove_links(&self) {
        let _ = ip(&format!("link del v{}", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }

    /// Starts the host's first process. The host must be off.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        if self.init.is_some() {
            bail!("host {} is on already", self.name);
        }
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name));
        command.args(["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["--propagation", "private", "sh", "-c"]).arg(format!("hostname {}; {INIT}", self.name));
        command.stdin(Stdio::null());
        self.init = Some(command.spawn().with_context(|| format!("start host {}", self.name))?);
        eventually("the host's first process", Duration::from_secs(5), || {
            self.tool("true")?.ok("").context("enter the host")?;
            self.tool("test")?.ok("-d /run/lock").map(drop)
        })?;
        self.mount_disk()
    }

    /// From now on a folder is the host's disk for volumes.
    pub fn add_disk(&mut self, folder: PathBuf) -> anyhow::Result<()> {
        self.disk = Some(folder);
        self.mount_disk()
    }

    fn mount_disk(&self) -> anyhow::Result<()> {
        let Some(folder) = &self.disk else { return Ok(()) };
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        self.tool("mount")?.ok(&format!("--bind {} {VOLUMES}", folder.display())).map(drop)
    }

    /// Kills everything on the host at once.
    pub fn power_cut(&mut self) -> anyhow::Result<()> {
        let Some(mut init) = self.init.take() else { return Ok(()) };
        if let Ok(first) = first_process(&init) {
            Tool::new("kill").ok(&format!("-9 {first}"))?;
        }
        init.kill().context("kill the host's parent process")?;
        init.wait().map(drop).context("wait for the host's end")
    }

    /// Pulls the network cable: a machine without power does not even refuse a connection.
    pub fn unplug(&self) -> anyhow::Result<()> {
        ip(&format!("link set v{} down", self.name))
    }

    pub fn plug(&self) -> anyhow::Result<()> {
        ip(&format!("link set v{} up", self.name))
    }

    /// A program that runs on this host.
    pub fn tool(&self, program: &str) -> anyhow::Result<Tool> {
        let init = self.init.as_ref().with_context(|| format!("host {} is off", self.name))?;
        let mut tool = Tool::new("nsenter");
        let target = first_process(init)?;
        tool.leading = ["-t", &target.to_string(), "-m", "-u", "-n", "-p", "--", program].map(Into::into).to_vec();
        Ok(tool)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.power_cut() {
            eprintln!("host {}: {error:#}", self.name);
        }
        self.remove_links();
    }
}

/// The process that is number 1 inside the namespace: the only child of `unshare --fork`.
fn first_process(parent: &Child) -> anyhow::Result<u32> {
    child_of(parent.id()).with_context(|| "the host has no first process".to_owned())
}

/// The only child of a process, as a process id of this machine.
pub(crate) fn child_of(parent: u32) -> anyhow::Result<u32> {
    let path = PathBuf::from(format!("/proc/{parent}/task/{parent}/children"));
    let children = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let child = children.split_whitespace().next().with_context(|| format!("process {parent} has no child"))?;
    child.parse().with_context(|| format!("process id {child:?}"))
}

fn ip(words: &str) -> anyhow::Result<()> {
    Tool::new("ip").ok(words).map(drop)
}

#[cfg(test)]
mod tests {
    use super::Host;
    use std::path::Path;

    #[test]
    fn a_host_survives_its_power_cut_and_leaves_nothing_behind() {
        let mut host = Host::up(99).expect("namespaces can be made; needs root");
        let name = |host: &Host| host.tool("hostname").and_then(|tool| tool.ok("")).expect("the host is on");
        assert_eq!(name(&host).trim(), "ekt-h99");
        host.power_cut().expect("it is on");
        assert!(host.tool("true").is_err());
        host.power_on().expect("it is off");
        assert_eq!(name(&host).trim(), "ekt-h99");
        drop(host);
        assert!(!Path::new("/run/netns/ekt-h99").exists());
        assert!(!Path::new("/sys/class/net/vekt-h99").exists());
    }
}
