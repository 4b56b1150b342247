//! Asks the other nodes for echoes that fill the link, and finds out how much less arrives where none comes back.
//!
//! Echo requests (ICMP) need no listener on the other side and no port in a firewall; a node that answers none is
//! not judged. Packets must not be fragmented and ignore what the kernel believes of the path.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use view::Drain;

use super::plan::Way;
use super::search::{Found, Search};
use crate::config::fnv;
use crate::echo::Ears;

/// Between two rounds; one packet for each way where all is well.
const INTERVAL: Duration = Duration::from_secs(10);
/// Questions of one size, before it counts as unanswered.
const TRIES: usize = 3;

/// What narrow paths carry, by the node's address.
pub type Paths = BTreeMap<IpAddr, u32>;

/// Probes the ways it is given.
pub struct Sonar {
    /// Tells our answers from those of others.
    id: u16,
    targets: watch::Receiver<Vec<Way>>,
    paths: watch::Sender<Paths>,
}

// === impl Sonar ===

impl Sonar {
    pub fn new(node: &str, targets: watch::Receiver<Vec<Way>>) -> Sonar {
        let name = format!("{node} {}", std::process::id());
        let id = u16::try_from(fnv(name.as_bytes()) & 0xffff).expect("16 bits");
        Sonar { id, targets, paths: watch::Sender::new(Paths::new()) }
    }

    pub fn paths(&self) -> watch::Receiver<Paths> {
        self.paths.subscribe()
    }

    pub async fn run(mut self, drain: Drain) {
        loop {
            let ways = self.targets.borrow_and_update().clone();
            let id = self.id;
            let round = tokio::task::spawn_blocking(move || round(id, &ways));
            match drain.run_until_cancelled(round).await {
                None => return,
                Some(Ok(found)) => self.learn(&found),
                Some(Err(error)) => tracing::error!(err = %error, "a probe of paths ended badly"),
            }
            tokio::select! { biased;
                () = drain.cancelled() => return,
                changed = self.targets.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// A silent node keeps what was known of it; one that is no target any more is forgotten.
    fn learn(&self, found: &BTreeMap<IpAddr, Found>) {
        self.paths.send_if_modified(|paths| {
            let old = paths.clone();
            paths.retain(|address, _| found.contains_key(address));
            for (address, found) in found {
                match found {
                    Found::Whole => drop(paths.remove(address)),
                    Found::Narrow(size) => drop(paths.insert(*address, *size)),
                    Found::Silent => {}
                }
            }
            *paths != old
        });
    }
}

/// Searches along all ways at once. Blocks for some seconds where a path is narrow.
fn round(id: u16, ways: &[Way]) -> BTreeMap<IpAddr, Found> {
    let mut found = BTreeMap::new();
    for v4 in [true, false] {
        let of_family = ways.iter().filter(|way| way.address.is_ipv4() == v4);
        let searches = of_family.map(|way| (way.address, Search::new(way.link_mtu, v4))).collect();
        match Ears::open(id, v4).and_then(|mut ears| search(&mut ears, searches, &mut found)) {
            Ok(()) => {}
            // A machine without that family.
            Err(error) => tracing::debug!(err = %error, v4, "no echo requests"),
        }
    }
    found
}

fn search(ears: &mut Ears, mut open: BTreeMap<IpAddr, Search>, found: &mut BTreeMap<IpAddr, Found>) -> io::Result<()> {
    while !open.is_empty() {
        let mut silent: BTreeMap<IpAddr, u32> = open.iter().map(|(at, search)| (*at, search.size())).collect();
        for _ in 0..TRIES {
            ears.ask(&mut silent)?;
        }
        for (address, search) in std::mem::take(&mut open) {
            match search.step(!silent.contains_key(&address)) {
                Ok(next) => drop(open.insert(address, next)),
                Err(end) => drop(found.insert(address, end)),
            }
        }
    }
    Ok(())
}
