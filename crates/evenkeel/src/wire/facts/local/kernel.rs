//! What the kernel says: connections it tracks, when it booted, its default route, and whether our rules are there.

use std::fs;

use jiff::Timestamp;
use keeper::wrong::What;

use super::super::ANSWER_TIMEOUT;
use crate::layout::Layout;
use crate::wire::host;

/// Of the words behind the name; see proc_pid_stat(5).
const STARTED_AT: usize = 19;
/// What the kernel counts in for programs, on every architecture there is.
const TICKS_PER_SECOND: i64 = 100;
const CONNTRACK: &str = "/proc/sys/net/netfilter";

/// What is read from files and takes no time.
pub fn facts(layout: &Layout) -> Vec<What> {
    conntrack().into_iter().chain(boot(layout)).collect()
}

/// Whether the table of this node is in the kernel; nothing where no network of ours was ever made.
pub async fn rules(layout: &Layout) -> Option<What> {
    if !layout.net().exists() {
        return None;
    }
    let table = host::network(layout, "").names().table;
    let found = tokio::time::timeout(ANSWER_TIMEOUT, net::service::nft::exists(&table)).await.ok()?.ok()?;
    Some(What::Network { table: found, unrouted: Vec::new() })
}

fn conntrack() -> Option<What> {
    let number = |name: &str| fs::read_to_string(format!("{CONNTRACK}/{name}")).ok()?.trim().parse().ok();
    Some(What::Conntrack { count: number("nf_conntrack_count")?, max: number("nf_conntrack_max")? })
}

/// When this machine's first process started: where machines share a kernel, that is their boot.
fn boot(layout: &Layout) -> Option<What> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let kernel: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let first = started(&fs::read_to_string("/proc/1/stat").ok()?)?;
    let booted = Timestamp::from_second(kernel.checked_add(first)?).ok()?;
    let drawn = fs::metadata(layout.machine_key()).and_then(|key| key.modified()).ok()?;
    Some(What::Boot { booted, member: Timestamp::try_from(drawn).ok()? < booted })
}

/// Seconds after the kernel's start, in a process's line.
fn started(stat: &str) -> Option<i64> {
    // The name in brackets may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: i64 = rest.split_whitespace().nth(STARTED_AT)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// The name of the link in the line whose destination and mask are zero.
pub fn default_link(routes: &str) -> Option<String> {
    routes.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_default = words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000");
        is_default.then(|| words[0].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{default_link, started};

    #[test]
    fn the_start_of_a_process_is_behind_its_name() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 4200 1000 10 18446744073709551615";
        assert_eq!(started(stat), Some(42));
        assert_eq!(started("1 (a"), None);
    }

    #[test]
    fn the_default_route_names_its_link() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      evk0\t00002A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                      eth0\t00000000\t014D1FAC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_link(routes).as_deref(), Some("eth0"));
        assert_eq!(default_link("Iface\n"), None);
    }
}
