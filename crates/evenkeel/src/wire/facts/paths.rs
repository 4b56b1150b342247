//! The ways to other machines and to the first router: what is lost on them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use keeper::wrong::{Answers, What};
use net::Echoes;

/// The first router as a subject.
pub const GATEWAY: &str = "gateway";
const ROUTES: &str = "/proc/net/route";
const NEIGHBOURS: &str = "/proc/net/arp";
/// Of a neighbour whose hardware address is known.
const COMPLETE: u32 = 2;

/// What was lost on the way to each machine, and whether the router is there, where that can be told.
#[derive(Default)]
pub struct Paths {
    pub losses: BTreeMap<IpAddr, What>,
    pub router: Option<What>,
}

/// Echoes of all machines at once. Nothing of one that answers none: a firewall may be why.
pub async fn look(addresses: &[IpAddr], asks_router: bool) -> Paths {
    let routes = asks_router.then(|| fs::read_to_string(ROUTES).unwrap_or_default());
    let router = routes.and_then(|routes| router(&routes));
    let asked: Vec<IpAddr> = addresses.iter().copied().chain(router.map(IpAddr::V4)).collect();
    if asked.is_empty() {
        return Paths::default();
    }
    let echoes = net::burst(&asked).await;
    let lost = addresses.iter().filter_map(|address| {
        let Echoes { sent, heard } = *echoes.get(address)?;
        (0 < heard).then(|| (*address, What::Loss { sent, lost: sent.saturating_sub(heard) }))
    });
    let router = router.and_then(|address| {
        let known = || is_known(&fs::read_to_string(NEIGHBOURS).unwrap_or_default(), address);
        let answers = match echoes.get(&IpAddr::V4(address))?.heard {
            // One that answers no echo, and whose card answers, is there.
            0 if known() => return None,
            0 => Answers::Silent,
            _ => Answers::Yes,
        };
        Some(What::Reach { api: None, agent: Some(answers) })
    });
    Paths { losses: lost.collect(), router }
}

/// The gateway of the default route, in the kernel's table of them.
fn router(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_default = words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000");
        let address = Ipv4Addr::from(u32::from_str_radix(words.get(2)?, 16).ok()?.to_le_bytes());
        (is_default && !address.is_unspecified()).then_some(address)
    })
}

/// Whether a neighbour's card answers.
fn is_known(neighbours: &str, address: Ipv4Addr) -> bool {
    neighbours.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let flags = words.get(2).and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
        words.first().and_then(|word| word.parse().ok()) == Some(address)
            && flags.is_some_and(|flags| flags & COMPLETE != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::{is_known, router};

    #[test]
    fn the_router_is_the_default_routes_and_known_by_its_card() {
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                      evk0 00002A0A 00000000 0001 0 0 0 00000000 0 0 0\n\
                      eth0 00000000 014D1FAC 0003 0 0 0 00000000 0 0 0\n";
        let found = router(routes).unwrap();
        assert_eq!(found.to_string(), "172.31.77.1");
        let head = "IP address       HW type     Flags       HW address            Mask     Device\n";
        let line = |flags: &str| {
            format!("{head}172.31.77.1      0x1         {flags}         00:00:00:00:00:00     *        eth0\n")
        };
        assert!(is_known(&line("0x2"), found) && !is_known(&line("0x0"), found) && !is_known(head, found));
    }
}
