//! What the processes of a host use: proportional memory and processor time, read from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;

/// Memory and time of a group of processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub megabytes: f64,
    pub processor_seconds: f64,
}

/// Who a process belongs to, by its command name.
const GROUPS: [(&str, &str); 3] = [("containerd-shim", "shims"), ("containerd", "containerd"), ("etcd", "etcd")];

pub fn binary_megabytes() -> anyhow::Result<f64> {
    let path = PathBuf::from(std::env::var_os("EVENKEEL_BIN").context("EVENKEEL_BIN names the binary")?);
    let bytes = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?.len();
    Ok((bytes as f64 / 1e5).round() / 10.0)
}

/// Usage of every process whose executable or parents belong to Evenkeel: `evenkeel`, `containerd`, `shims`,
/// `etcd`.
pub fn usage(data: &std::path::Path) -> anyhow::Result<BTreeMap<&'static str, Usage>> {
    let mut groups: BTreeMap<&'static str, Usage> = BTreeMap::new();
    let needle = data.display().to_string();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let path = entry?.path();
        let Ok(line) = fs::read(path.join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if !line.contains(&needle) || line.starts_with("nsenter") {
            continue;
        }
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let group = GROUPS.iter().find(|(start, _)| name.starts_with(start)).map_or("evenkeel", |(_, group)| group);
        let used = groups.entry(group).or_default();
        used.megabytes += proportional_megabytes(&path).unwrap_or_default();
        used.processor_seconds += processor_seconds(&path).unwrap_or_default();
    }
    Ok(groups)
}

fn proportional_megabytes(process: &std::path::Path) -> Option<f64> {
    let text = fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// User and system time; the kernel counts it in hundredths of a second.
fn processor_seconds(process: &std::path::Path) -> Option<f64> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
