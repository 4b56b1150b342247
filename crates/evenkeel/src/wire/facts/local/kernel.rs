//! What the kernel says: connections it tracks, when it booted, its default route, and whether our rules are there.

use std::fs;

use jiff::Timestamp;
use keeper::wrong::What;

use super::super::ANSWER_TIMEOUT;
use crate::layout::Layout;
use crate::wire::host;

const CONNTRACK: &str = "/proc/sys/net/netfilter";

/// What is read from files and takes no time.
pub fn facts() -> Vec<What> {
    conntrack().into_iter().chain(boot()).collect()
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

fn boot() -> Option<What> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(What::Boot { booted: Timestamp::from_second(seconds).ok()?, clean: true })
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
    use super::default_link;

    #[test]
    fn the_default_route_names_its_link() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      evk0\t00002A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                      eth0\t00000000\t014D1FAC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_link(routes).as_deref(), Some("eth0"));
        assert_eq!(default_link("Iface\n"), None);
    }
}
