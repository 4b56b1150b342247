//! `evenkeel check-config`: what on this machine would keep a server or a node from working, and what to do about it.
//!
//! Each check reads; none changes anything. The judgement is in [`judge`], apart from the reading. The exit code is 0
//! where all is well, 1 where something must be fixed first, 2 where something should be known.

mod machine;

use std::fmt::Write as _;
use std::process::ExitCode;

use super::args::ServerArgs;
use machine::Machine;

/// Free space that images of a few applications fit in.
const FREE_MEGABYTES_WANTED: u64 = 4096;
/// Below this a database soon has no room for its next write.
const FREE_MEGABYTES_MIN: u64 = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    Note,
    Bad,
}

/// One thing that was looked at: what is the case, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    sentence: String,
    action: &'static str,
}

pub fn run(args: &ServerArgs) -> ExitCode {
    let findings = judge(&machine::read(args));
    print!("{}", text(&findings));
    match findings.iter().map(|finding| finding.verdict).max() {
        None | Some(Verdict::Good) => ExitCode::SUCCESS,
        Some(Verdict::Note) => super::attention(),
        Some(Verdict::Bad) => ExitCode::FAILURE,
    }
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { what, verdict, sentence, action } in findings {
        let word = match verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "FIX",
        };
        let _ = match verdict {
            Verdict::Good => writeln!(out, "{word:<6}{what}"),
            Verdict::Note | Verdict::Bad => writeln!(out, "{word:<6}{what}: {sentence}\n      {action}"),
        };
    }
    out
}

fn judge(machine: &Machine) -> Vec<Finding> {
    let check = |what, good: bool, verdict, sentence: String, action| {
        let verdict = if good { Verdict::Good } else { verdict };
        Finding { what, verdict, sentence, action }
    };
    let list = |what, bad: &[String], verdict, sentence: &str, action| {
        check(what, bad.is_empty(), verdict, format!("{}: {sentence}", bad.join(", ")), action)
    };
    let flag = |what, good, verdict, sentence: &str, action| check(what, good, verdict, sentence.to_owned(), action);
    let mut findings = vec![
        flag(
            "root",
            machine.root,
            Verdict::Bad,
            "this is not root, and namespaces, mounts and packet rules need it",
            "run it as root, or through sudo",
        ),
        flag(
            "data folder",
            machine.data_free,
            Verdict::Note,
            "a server or an agent runs with it already",
            "evenkeel status shows it; a second one needs a --data-dir and ports of its own",
        ),
        list(
            "ports",
            &machine.ports_taken,
            Verdict::Bad,
            "something listens there already",
            "stop it (ss -tulpn names it), or choose others with --https-listen-port and --kubelet-port",
        ),
        list(
            "other clusters",
            &machine.others,
            Verdict::Bad,
            "another Kubernetes runs on this machine; two fight over pods, rules and ports",
            "uninstall or stop it first",
        ),
        list(
            "programs",
            &machine.missing_programs,
            Verdict::Bad,
            "not found on this machine",
            "install them: apt-get install containerd runc nftables; for etcd: etcd-server",
        ),
    ];
    findings.extend(kernel(machine, &list, &flag));
    findings.extend(surroundings(machine, &list, &flag));
    findings
}

type List<'a> = &'a dyn Fn(&'static str, &[String], Verdict, &str, &'static str) -> Finding;
type Flag<'a> = &'a dyn Fn(&'static str, bool, Verdict, &str, &'static str) -> Finding;

fn kernel(machine: &Machine, list: List<'_>, flag: Flag<'_>) -> Vec<Finding> {
    vec![
        list(
            "kernel",
            &machine.missing_kernel,
            Verdict::Bad,
            "this kernel lacks them",
            "boot a kernel of the distribution, or install its package of modules",
        ),
        list(
            "cgroups",
            &machine.missing_controllers,
            Verdict::Bad,
            "these controllers are off, and pods' limits need them",
            "boot with cgroup_enable=memory, or with systemd.unified_cgroup_hierarchy=1",
        ),
        flag(
            "forwarding",
            machine.forwarding,
            Verdict::Note,
            "net.ipv4.ip_forward is off",
            "nothing: the node turns it on; keep configuration management from turning it off again",
        ),
        flag(
            "bridge filter",
            machine.bridge_filter,
            Verdict::Note,
            "bridged traffic does not pass the packet filter",
            "nothing: the node turns net.bridge.bridge-nf-call-iptables on",
        ),
        flag(
            "swap",
            !machine.swap,
            Verdict::Note,
            "swap is on, and the memory limits of pods do not bound what they swap",
            "swapoff -a, and remove it from /etc/fstab, unless you want it so",
        ),
    ]
}

fn surroundings(machine: &Machine, list: List<'_>, flag: Flag<'_>) -> Vec<Finding> {
    let free = machine.free_megabytes;
    let verdict = if free < FREE_MEGABYTES_MIN { Verdict::Bad } else { Verdict::Note };
    vec![
        list(
            "firewall",
            &machine.firewalls,
            Verdict::Note,
            "it may drop what nodes and pods send",
            "allow the API port and 10250 from nodes, and everything from the pod and service ranges",
        ),
        flag(
            "clock",
            machine.clock_good,
            Verdict::Bad,
            "it is behind what has happened already, and certificates would not be valid",
            "set it, and keep it right with chrony or systemd-timesyncd",
        ),
        flag(
            "disk",
            free >= FREE_MEGABYTES_WANTED,
            verdict,
            &format!("{free} MB are free below the data folder"),
            "free some, or put --data-dir on a larger disk: state, images and local volumes lie there",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::machine::Machine;
    use super::{Verdict, judge, text};

    fn good() -> Machine {
        Machine {
            root: true,
            data_free: true,
            ports_taken: Vec::new(),
            missing_controllers: Vec::new(),
            swap: false,
            forwarding: true,
            bridge_filter: true,
            firewalls: Vec::new(),
            others: Vec::new(),
            missing_programs: Vec::new(),
            missing_kernel: Vec::new(),
            clock_good: true,
            free_megabytes: 9999,
        }
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
        assert_eq!(check(|m| m.data_free = false), [("data folder", Verdict::Note)]);
        assert_eq!(check(|m| m.swap = true), [("swap", Verdict::Note)]);
        assert_eq!(check(|m| m.forwarding = false), [("forwarding", Verdict::Note)]);
        assert_eq!(check(|m| m.bridge_filter = false), [("bridge filter", Verdict::Note)]);
        assert_eq!(check(|m| m.missing_controllers.push("memory".into())), [("cgroups", Verdict::Bad)]);
        assert_eq!(check(|m| m.missing_kernel.push("nf_tables".into())), [("kernel", Verdict::Bad)]);
        assert_eq!(check(|m| m.missing_programs.push("runc".into())), [("programs", Verdict::Bad)]);
        assert_eq!(check(|m| m.others.push("k3s".into())), [("other clusters", Verdict::Bad)]);
        assert_eq!(check(|m| m.firewalls.push("ufw".into())), [("firewall", Verdict::Note)]);
        assert_eq!(check(|m| m.ports_taken.push("tcp 6443".into())), [("ports", Verdict::Bad)]);
        assert_eq!(check(|m| m.clock_good = false), [("clock", Verdict::Bad)]);
        assert_eq!(check(|m| m.free_megabytes = 600), [("disk", Verdict::Note)]);
        assert_eq!(check(|m| m.free_megabytes = 100), [("disk", Verdict::Bad)]);
    }

    #[test]
    fn a_finding_is_a_sentence_and_an_action() {
        let mut machine = good();
        machine.ports_taken.push("tcp 6443".into());
        let said = text(&judge(&machine));
        assert!(said.contains("\nFIX   ports: tcp 6443: something listens there already\n      stop it"), "{said}");
        assert!(said.starts_with("ok    root\n"), "{said}");
    }
}
