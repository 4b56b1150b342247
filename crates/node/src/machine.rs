//! This machine's size and identity, read once from `/proc`, `/sys` and the cgroup this process lives in.

use std::fs;
use std::path::Path;

use crate::config::Config;
use crate::context::Machine;
use crate::pressure::Signal;

/// `v1.NodeSystemInfo`, but for what the runtime tells.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    pub arch: &'static str,
    pub swap_bytes: u64,
}

/// What changes: looked at for conditions and statistics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    pub memory_available_bytes: i64,
    pub memory_total_bytes: i64,
    /// Where pods' files lie; None where it cannot be asked.
    pub disk: Option<Disk>,
    pub pids: u64,
    pub pids_max: u64,
    /// Cumulative seconds of all cores, idle apart.
    pub cpu_busy_nanos: u64,
}

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub available_bytes: u64,
    pub total_bytes: u64,
    pub inodes_free: u64,
    /// 0 where the file system does not count them.
    pub inodes_total: u64,
}

/// Ticks a second of `/proc/stat`.
const CLOCK_TICKS: u64 = 100;

/// Where a kernel with AppArmor says whether it is on.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";

pub fn machine(config: &Config) -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = i64::try_from(cpus).unwrap_or(1);
    let load = load(&config.data_dir);
    let storage_bytes = i64::try_from(load.disk.unwrap_or_default().total_bytes).unwrap_or(i64::MAX);
    // What eviction keeps free is not promised to anybody.
    let kept = |signal: Signal, capacity: i64| {
        let thresholds = config.eviction_hard.iter().filter(|threshold| threshold.signal == signal);
        thresholds.map(|threshold| threshold.amount(capacity)).sum::<i64>()
    };
    let memory = load.memory_total_bytes;
    let memory_kept = config.reserved_memory_bytes + kept(Signal::MemoryAvailable, memory);
    Machine {
        cpus,
        memory_bytes: memory,
        allocatable_cpu_milli: (cpus * 1000 - config.reserved_cpu_milli).max(0),
        allocatable_memory_bytes: (memory - memory_kept).max(0),
        storage_bytes,
        apparmor: fs::read_to_string(APPARMOR).is_ok_and(|text| text.starts_with('Y')),
        allocatable_storage_bytes: (storage_bytes - kept(Signal::NodeFsAvailable, storage_bytes)).max(0),
    }
}

pub fn identity() -> Identity {
    let first_line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let machine_id = first_line("/etc/machine-id");
    let uuid = first_line("/sys/class/dmi/id/product_uuid").to_lowercase();
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    Identity {
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: first_line("/proc/sys/kernel/random/boot_id"),
        kernel: first_line("/proc/sys/kernel/osrelease"),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        arch: arch(),
        swap_bytes: meminfo("SwapTotal:").unwrap_or(0).unsigned_abs(),
    }
}

/// As container images name architectures.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        other => other,
    }
}

pub fn load(data: &Path) -> Load {
    let total = meminfo("MemTotal:").unwrap_or(0);
    let (limit, used) = cgroup_memory();
    let memory_total_bytes = limit.map_or(total, |limit| limit.min(total));
    let free = meminfo("MemAvailable:").unwrap_or(0);
    let memory_available_bytes = match (limit, used) {
        (Some(limit), Some(used)) if limit < total => free.min(limit - used),
        _ => free,
    };
    let mut load = Load { memory_available_bytes, memory_total_bytes, disk: disk(data), ..Load::default() };
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tasks = loadavg.split_whitespace().nth(3).and_then(|word| word.split_once('/'));
    load.pids = tasks.and_then(|(_, all)| all.parse().ok()).unwrap_or(0);
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    load.pids_max = pid_max.trim().parse().unwrap_or(32_768);
    load.cpu_busy_nanos = cpu_busy();
    load
}

pub fn disk(path: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        available_bytes: found.f_bavail * found.f_frsize,
        total_bytes: found.f_blocks * found.f_frsize,
        inodes_free: found.f_favail,
        inodes_total: found.f_files,
    })
}

fn meminfo(field: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<i64>().ok().map(|kib| kib * 1024)
}

/// Limit and working set of the cgroup at the root of what this process sees: a container's, where it runs in one.
/// Cached files that nobody reads could be dropped at once: they do not count.
fn cgroup_memory() -> (Option<i64>, Option<i64>) {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let inactive = |path: &str, field: &str| {
        let text = fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix(field))?.trim().parse::<i64>().ok()
    };
    let cgroup = "/sys/fs/cgroup";
    if let Some(limit) = number(&format!("{cgroup}/memory.max")) {
        let cached = inactive(&format!("{cgroup}/memory.stat"), "inactive_file ").unwrap_or(0);
        return (Some(limit), number(&format!("{cgroup}/memory.current")).map(|used| used - cached));
    }
    let cached = inactive(&format!("{cgroup}/memory/memory.stat"), "total_inactive_file ").unwrap_or(0);
    let used = number(&format!("{cgroup}/memory/memory.usage_in_bytes")).map(|used| used - cached);
    (number(&format!("{cgroup}/memory/memory.limit_in_bytes")), used)
}

/// What this process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_files: usize,
}

pub fn process() -> Process {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may hold blanks; after it user and system ticks are the twelfth and thirteenth words.
    let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = words.iter().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    Process {
        cpu_seconds: ticks as f64 / CLOCK_TICKS as f64,
        resident_bytes: kib * 1024,
        open_files: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    }
}

fn cpu_busy() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy: u64 =
        ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum();
    busy * (1_000_000_000 / CLOCK_TICKS)
}
