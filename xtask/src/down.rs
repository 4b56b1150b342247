//! Takes the demo away: processes, mounts, links, rules, cgroups, files. Checks that nothing is left.
//!
//! `evenkeel stop --pods` does it in order; what follows is for when that was not possible, and finds its prey by the
//! demo's own data folder and instance name, never by a name that another program could have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::demo::{DATA, binary, instance, processes, rack_program};
use crate::process::{output, run as run_program};
use crate::wait::eventually;

/// How long processes get to end before they are killed, and to be gone after that.
const END_BOUND: Duration = Duration::from_secs(10);

/// Leaves nothing of the demo behind; harmless when there is nothing.
pub fn run() -> anyhow::Result<()> {
    // Of three servers: their program takes all away when it ends, and this is for where it was killed.
    if let Some(program) = rack_program().ok().filter(|program| program.exists()) {
        run_program(&program.display().to_string(), &["--down"])?;
    }
    if left().is_empty() {
        println!("nothing to take away");
        return Ok(());
    }
    stop();
    // Each is tried, whatever became of the one before; what is left is told at the end.
    let mut failures = Vec::new();
    let mut tried = |outcome: anyhow::Result<()>| failures.extend(outcome.err());
    tried(end_processes());
    tried(unmount());
    for folder in cgroups() {
        remove_cgroup(&folder);
    }
    for link in links() {
        tried(run_program("ip", &["link", "delete", &link]));
    }
    for table in tables() {
        tried(run_program("nft", &[&["delete", "table"], table.split(' ').collect::<Vec<_>>().as_slice()].concat()));
    }
    match fs::remove_dir_all(DATA) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tried(Err(error).with_context(|| format!("remove {DATA}")));
        }
        _ => {}
    }
    for failure in failures {
        eprintln!("   {failure:#}");
    }
    let left = left();
    if !left.is_empty() {
        bail!("left behind: {}", left.join(", "));
    }
    println!("the demo is gone; packages that it installed and net.ipv4.ip_forward stay as they are");
    Ok(())
}

/// The orderly way: containers with their grace, then the runtime, then the network.
fn stop() {
    let Ok(binary) = binary() else { return };
    if !binary.exists() {
        eprintln!("   {} is not there; stopping by hand", binary.display());
        return;
    }
    let data = format!("--data-dir={DATA}");
    if let Err(error) = run_program(&binary.display().to_string(), &["stop", "--pods", &data]) {
        eprintln!("   {error:#}; stopping by hand");
    }
}

/// The demo's processes: those that name its data folder, and what they started.
fn ours() -> BTreeSet<u32> {
    let mut all: BTreeSet<u32> =
        processes(|line| line.contains(&format!("{DATA}/")) || line.contains(&format!("={DATA} ")))
            .into_iter()
            .filter(|pid| !ancestors().contains(pid))
            .collect();
    loop {
        let children =
            processes(|_| true).into_iter().filter(|pid| parent(*pid).is_some_and(|parent| all.contains(&parent)));
        let before = all.len();
        all.extend(children.collect::<Vec<_>>());
        if all.len() == before {
            return all;
        }
    }
}

/// This program and who started it: a shell's command line may name the data folder too.
fn ancestors() -> BTreeSet<u32> {
    let mut chain = BTreeSet::new();
    let mut next = Some(std::process::id());
    while let Some(pid) = next.filter(|pid| chain.insert(*pid)) {
        next = parent(pid);
    }
    chain
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn end_processes() -> anyhow::Result<()> {
    for signal in ["-TERM", "-KILL"] {
        let all = ours();
        if all.is_empty() {
            return Ok(());
        }
        for pid in &all {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            eprintln!("   ending process {pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "));
        }
        let mut arguments = vec![signal.to_owned()];
        arguments.extend(all.iter().map(u32::to_string));
        // Some may have ended in between; the wait below is the judge.
        let _ = std::process::Command::new("kill").args(&arguments).status();
        let _ = eventually(END_BOUND, || {
            ensure!(!all.iter().any(|pid| alive(*pid)), "some still run");
            Ok(())
        });
    }
    Ok(())
}

fn alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// Mount points below the data folder, the innermost first.
fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(|point| point.replace("\\040", " "));
    let mut ours: Vec<String> = points.filter(|point| point.starts_with(&format!("{DATA}/"))).collect();
    ours.reverse();
    ours
}

fn unmount() -> anyhow::Result<()> {
    for point in mounts() {
        run_program("umount", &[&point]).or_else(|_| run_program("umount", &["--lazy", &point]))?;
    }
    Ok(())
}

/// The demo's root in each cgroup hierarchy.
fn cgroups() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(base).map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
    let mut hierarchies = hierarchies.unwrap_or_default();
    hierarchies.push(base.to_path_buf());
    // The pods' root, and those of the processes that outlive the agent.
    let names = ["", "-containerd", "-names", "-etcd"].map(|end| format!("{}{end}", instance()));
    let all = hierarchies.iter().flat_map(|path| names.iter().map(|name| path.join(name)));
    // A hierarchy may be there under two names.
    let all: BTreeSet<PathBuf> = all.filter_map(|path| fs::canonicalize(path).ok()).collect();
    all.into_iter().collect()
}

/// Folders of a cgroup go by `rmdir`, children first; one that still holds a process stays and is told of.
fn remove_cgroup(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// The bridge and the pods' links of the demo: `ek` or `ekv` and four hex digits of its instance's name.
fn links() -> Vec<String> {
    let digits = format!("{:04x}", fnv(instance().as_bytes()) & 0xffff);
    let (bridge, pods) = (format!("ek{digits}"), format!("ekv{digits}"));
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| *name == bridge || name.starts_with(&pods)).collect()
}

/// FNV-1a, with which `evenkeel` names links.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The demo's nftables tables, with their families, if they are there.
fn tables() -> Vec<String> {
    let name = format!("evenkeel_{}", instance().replace('-', "_"));
    let listed = output("nft", &["list", "tables"]).unwrap_or_default();
    let tables = listed.lines().filter_map(|line| line.strip_prefix("table "));
    tables.filter(|table| table.ends_with(&format!(" {name}"))).map(str::to_owned).collect()
}

/// What containerd's CNI library remembers of the demo's pods.
fn results() -> Vec<String> {
    let names = fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("{}-", instance()))).collect()
}

fn left() -> Vec<String> {
    let processes = ours().into_iter().map(|pid| format!("process {pid}"));
    let mounts = mounts().into_iter().map(|point| format!("mount {point}"));
    let cgroups = cgroups().into_iter().map(|folder| format!("cgroup {}", folder.display()));
    let files = Path::new(DATA).exists().then(|| DATA.to_owned());
    let links = links().into_iter().map(|link| format!("link {link}"));
    let tables = tables().into_iter().map(|table| format!("nftables table {table}"));
    let results = results().into_iter().map(|name| format!("/var/lib/cni/results/{name}"));
    processes.chain(mounts).chain(links).chain(tables).chain(cgroups).chain(results).chain(files).collect()
}
