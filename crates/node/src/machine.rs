//! This machine's size and identity, read once from `/proc`, `/sys` and the cgroup this process lives in.

use std::fs;
use std::path::Path;

use crate::config::Config;
use crate::context::Machine;

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
    pub disk_available_bytes: u64,
    pub disk_total_bytes: u64,
    pub inodes_free: u64,
    pub inodes_total: u64,
    pub pids: u64,
    pub pids_max: u64,
    /// Cumulative seconds of all cores, idle apart.
    pub cpu_busy_nanos: u64,
}

/// Ticks a second of `/proc/stat`.
const CLOCK_TICKS: u64 = 100;

pub fn machine(config: &Config) -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = i64::try_from(cpus).unwrap_or(1);
    let load = load(&config.data_dir);
    Machine {
        cpus,
        memory_bytes: load.memory_total_bytes,
        allocatable_cpu_milli: (cpus * 1000 - config.reserved_cpu_milli).max(0),
        allocatable_memory_bytes: (load.memory_total_bytes - config.reserved_memory_bytes).max(0),
        storage_bytes: i64::try_from(load.disk_total_bytes).unwrap_or(i64::MAX),
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
    let disk = rustix::fs::statvfs(data).or_else(|_| rustix::fs::statvfs("/"));
    let mut load = Load { memory_available_bytes, memory_total_bytes, ..Load::default() };
    if let Ok(disk) = disk {
        load.disk_available_bytes = disk.f_bavail * disk.f_frsize;
        load.disk_total_bytes = disk.f_blocks * disk.f_frsize;
        load.inodes_free = disk.f_favail;
        load.inodes_total = disk.f_files;
    }
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tasks = loadavg.split_whitespace().nth(3).and_then(|word| word.split_once('/'));
    load.pids = tasks.and_then(|(_, all)| all.parse().ok()).unwrap_or(0);
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    load.pids_max = pid_max.trim().parse().unwrap_or(32_768);
    load.cpu_busy_nanos = cpu_busy();
    load
}

fn meminfo(field: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<i64>().ok().map(|kib| kib * 1024)
}

/// Limit and use of the cgroup at the root of what this process sees: a container's, where it runs in one.
fn cgroup_memory() -> (Option<i64>, Option<i64>) {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let v2 = (number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current"));
    if v2.0.is_some() {
        return v2;
    }
    (number("/sys/fs/cgroup/memory/memory.limit_in_bytes"), number("/sys/fs/cgroup/memory/memory.usage_in_bytes"))
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
