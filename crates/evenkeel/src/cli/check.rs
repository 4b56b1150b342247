//! `evenkeel check-config`: what on this machine would keep a server or a node from working, and what to do about it.
//!
//! Each check reads; none changes anything. The judgement is in [`judge`], apart from the reading.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::{Result, bail};

use super::args::ServerArgs;
use super::output::table;
use crate::wire::pid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Note,
    Bad,
}

struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
}

/// What was read of the machine.
#[derive(Debug, Default)]
struct Machine {
    root: bool,
    ports_taken: Vec<String>,
    controllers: Vec<String>,
    swaps: usize,
    forwarding: bool,
    bridge_filter: Option<bool>,
    firewalls: Vec<&'static str>,
    others: Vec<String>,
    missing_programs: Vec<&'static str>,
    missing_kernel: Vec<&'static str>,
    free_megabytes: u64,
}

pub fn run(args: &ServerArgs) -> Result<()> {
    let findings = judge(&read(args));
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let verdict = match finding.verdict {
                Verdict::Good => "ok",
                Verdict::Note => "note",
                Verdict::Bad => "FIX",
            };
            vec![finding.what.to_owned(), verdict.to_owned(), finding.text.clone()]
        })
        .collect();
    print!("{}", table(&["CHECK", "", ""], &rows));
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if bad > 0 {
        bail!("{bad} of {} checks need attention", findings.len());
    }
    Ok(())
}

fn judge(machine: &Machine) -> Vec<Finding> {
    let list = |what, bad: &[String], verdict, advice: &str| {
        if bad.is_empty() {
            return Finding { what, verdict: Verdict::Good, text: String::new() };
        }
        Finding { what, verdict, text: format!("{}: {advice}", bad.join(", ")) }
    };
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let flag = |what, good: bool, verdict, text: &str| {
        let (verdict, text) = if good { (Verdict::Good, String::new()) } else { (verdict, text.to_owned()) };
        Finding { what, verdict, text }
    };
    let needed = ["cpu", "memory", "pids"];
    let lacking: Vec<&str> =
        needed.into_iter().filter(|name| !machine.controllers.iter().any(|have| have == name)).collect();
    vec![
        flag("root", machine.root, Verdict::Bad, "run as root: namespaces, mounts and rules need it"),
        list("ports", &machine.ports_taken, Verdict::Bad, "stop what listens there, or choose another port"),
        list("programs", &owned(&machine.missing_programs), Verdict::Bad, "install them"),
        list("kernel", &owned(&machine.missing_kernel), Verdict::Bad, "this kernel lacks them"),
        list("cgroups", &owned(&lacking), Verdict::Bad, "enable these controllers at boot"),
        flag("swap", machine.swaps == 0, Verdict::Note, "swap is on: pods' memory limits do not bound swap"),
        flag("forwarding", machine.forwarding, Verdict::Note, "off; the node turns net.ipv4.ip_forward on"),
        flag(
            "bridges",
            machine.bridge_filter != Some(false),
            Verdict::Note,
            "bridge-nf-call-iptables is off; turned on",
        ),
        list("firewall", &owned(&machine.firewalls), Verdict::Note, "allow the API port, 10250 and the pod range"),
        list("other clusters", &machine.others, Verdict::Bad, "another Kubernetes uses this machine"),
        flag("disk", machine.free_megabytes >= 2048, Verdict::Note, "less than 2 GB are free below the data folder"),
    ]
}

fn read(args: &ServerArgs) -> Machine {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let on = |path: &str| text(path).trim() == "1";
    let programs = ["containerd", "runc", "nft"];
    let own_runtime = args.node.container_runtime_endpoint.is_none();
    let wanted = programs.into_iter().filter(|name| own_runtime || *name == "nft");
    let filter = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    Machine {
        root: rustix::process::geteuid().is_root(),
        // What runs already holds its ports itself.
        ports_taken: if pid::running(&args.common.layout()).is_some() { Vec::new() } else { ports_taken(args) },
        controllers: controllers(),
        swaps: text("/proc/swaps").lines().count().saturating_sub(1),
        forwarding: on("/proc/sys/net/ipv4/ip_forward"),
        bridge_filter: Path::new(filter).exists().then(|| on(filter)),
        firewalls: ["firewalld", "ufw"].into_iter().filter(|name| runs(name)).collect(),
        others: ["kubelet", "k3s", "rke2", "k0s", "microk8s"]
            .into_iter()
            .filter(|n| runs(n))
            .map(str::to_owned)
            .collect(),
        missing_programs: wanted.filter(|name| container::containerd::find_program(name).is_none()).collect(),
        missing_kernel: missing_kernel(&text("/proc/filesystems")),
        free_megabytes: free_megabytes(&args.common.data_dir),
    }
}

fn ports_taken(args: &ServerArgs) -> Vec<String> {
    let mut taken = Vec::new();
    for port in [args.https_listen_port, args.node.kubelet_port] {
        if TcpListener::bind(SocketAddr::new(args.bind_address, port)).is_err() {
            taken.push(format!("tcp {port}"));
        }
    }
    // The cluster's DNS has an address of its own; only a wildcard listener is in its way.
    if UdpSocket::bind(("0.0.0.0", 53)).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
        && fs::read_to_string("/proc/net/udp").unwrap_or_default().contains(" 00000000:0035 ")
    {
        taken.push("udp 53 on every address".to_owned());
    }
    taken
}

/// Controllers of either cgroup version.
fn controllers() -> Vec<String> {
    let two = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let one = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let enabled = one.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.nth(2) == Some("1")).then(|| name.to_owned())
    });
    two.split_whitespace().map(str::to_owned).chain(enabled).collect()
}

fn missing_kernel(filesystems: &str) -> Vec<&'static str> {
    let overlay = filesystems.split_whitespace().any(|name| name == "overlay");
    if overlay { Vec::new() } else { vec!["overlay"] }
}

fn runs(name: &str) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    entries.flatten().any(|entry| {
        let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        command.trim() == name
    })
}

fn free_megabytes(data: &Path) -> u64 {
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statvfs(existing).map_or(u64::MAX, |stat| (stat.f_bavail.saturating_mul(stat.f_frsize)) >> 20)
}

#[cfg(test)]
mod tests {
    use super::{Machine, Verdict, judge};

    fn good() -> Machine {
        let controllers = ["cpu", "memory", "pids"].map(str::to_owned).to_vec();
        Machine { root: true, controllers, forwarding: true, free_megabytes: 9999, ..Machine::default() }
    }

    fn check(change: impl FnOnce(&mut Machine)) -> Vec<(&'static str, Verdict)> {
        let mut machine = good();
        change(&mut machine);
        let findings = judge(&machine).into_iter().filter(|finding| finding.verdict != Verdict::Good);
        findings.map(|finding| (finding.what, finding.verdict)).collect()
    }

    #[test]
    fn each_trouble_is_named_by_its_own_check() {
        assert_eq!(check(|_| ()), []);
        assert_eq!(check(|m| m.root = false), [("root", Verdict::Bad)]);
        assert_eq!(check(|m| m.swaps = 1), [("swap", Verdict::Note)]);
        assert_eq!(check(|m| m.controllers.clear()), [("cgroups", Verdict::Bad)]);
        assert_eq!(check(|m| m.others.push("k3s".into())), [("other clusters", Verdict::Bad)]);
        assert_eq!(check(|m| m.firewalls.push("ufw")), [("firewall", Verdict::Note)]);
        assert_eq!(check(|m| m.ports_taken.push("tcp 6443".into())), [("ports", Verdict::Bad)]);
    }
}
