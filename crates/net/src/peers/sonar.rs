//! Asks the other nodes for echoes that fill the link, and finds out how much less arrives where none comes back.
//!
//! Echo requests (ICMP) need no listener on the other side and no port in a firewall; a node that answers none is
//! not judged. Packets must not be fragmented and ignore what the kernel believes of the path.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, Timeout, set_ip_mtu_discover, set_ipv6_mtu_discover, set_socket_timeout,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};
use tokio::sync::watch;
use view::Drain;

use super::plan::Way;
use super::search::{Found, Search};
use crate::config::fnv;
use crate::sys::checksum;

/// Between two rounds; one packet for each way where all is well.
const INTERVAL: Duration = Duration::from_secs(10);
/// An answer that takes longer counts as lost.
const ANSWER: Duration = Duration::from_millis(300);
/// Questions of one size, before it counts as unanswered.
const TRIES: usize = 3;
/// The largest IP packet.
const PACKET_BYTES_MAX: usize = 1 << 16;
const ICMP_BYTES: usize = 8;

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
        match Ears::open(id, v4).and_then(|mut ears| ears.search(searches, &mut found)) {
            Ok(()) => {}
            // A machine without that family.
            Err(error) => tracing::debug!(err = %error, v4, "no echo requests"),
        }
    }
    found
}

/// A socket for echo requests of one family.
struct Ears {
    id: u16,
    v4: bool,
    socket: OwnedFd,
    sequence: u16,
    buffer: Vec<u8>,
}

// === impl Ears ===

impl Ears {
    fn open(id: u16, v4: bool) -> io::Result<Ears> {
        let (family, protocol) =
            if v4 { (AddressFamily::INET, ipproto::ICMP) } else { (AddressFamily::INET6, ipproto::ICMPV6) };
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        if v4 {
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
        } else {
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
        }
        Ok(Ears { id, v4, socket, sequence: 0, buffer: vec![0; PACKET_BYTES_MAX] })
    }

    fn search(&mut self, mut open: BTreeMap<IpAddr, Search>, found: &mut BTreeMap<IpAddr, Found>) -> io::Result<()> {
        while !open.is_empty() {
            let mut silent: BTreeMap<IpAddr, u32> = open.iter().map(|(at, search)| (*at, search.size())).collect();
            for _ in 0..TRIES {
                self.ask(&mut silent)?;
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

    /// Sends to each of `silent` once and takes out those that answer.
    fn ask(&mut self, silent: &mut BTreeMap<IpAddr, u32>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        for (address, size) in silent.iter() {
            let request = request(self.v4, self.id, self.sequence, *size);
            // What the link itself refuses is not answered either.
            let _ = sendto(&self.socket, &request, SendFlags::empty(), &SocketAddr::new(*address, 0));
        }
        let deadline = Instant::now() + ANSWER;
        while !silent.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            let (count, from) = match recvfrom(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((count, _, from)) => (count, from),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            if let Some(from) = from
                && answers(self.v4, &self.buffer[..count], self.id, self.sequence)
            {
                silent.remove(&from.ip());
            }
        }
        Ok(())
    }
}

/// An echo request that makes an IP packet of `size` bytes.
fn request(v4: bool, id: u16, sequence: u16, size: u32) -> Vec<u8> {
    let header = if v4 { 20 } else { 40 };
    let size = usize::try_from(size).expect("a packet fits memory").saturating_sub(header).max(ICMP_BYTES);
    let mut bytes = vec![0; size];
    bytes[0] = if v4 { 8 } else { 128 };
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
    // The kernel writes the checksum of ICMPv6 itself: it covers addresses.
    if v4 {
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// Whether a received packet is the echo of ours. IPv4 comes with its header.
fn answers(v4: bool, packet: &[u8], id: u16, sequence: u16) -> bool {
    let header = if v4 { packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4) } else { 0 };
    let Some(bytes) = packet.get(header..).filter(|bytes| ICMP_BYTES <= bytes.len()) else { return false };
    let reply = if v4 { 0 } else { 129 };
    bytes[0] == reply && bytes[4..6] == id.to_be_bytes() && bytes[6..8] == sequence.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::{answers, request};
    use crate::sys::checksum;

    #[test]
    fn an_echo_is_known_by_its_numbers() {
        let asked = request(true, 7, 9, 1500);
        assert_eq!((asked.len(), checksum(&asked)), (1480, 0));
        let mut echo = vec![0; 20];
        echo[0] = 0x45;
        echo.extend(&asked);
        assert!(!answers(true, &echo, 7, 9), "that is the question");
        echo[20] = 0;
        assert!(answers(true, &echo, 7, 9) && !answers(true, &echo, 7, 8) && !answers(true, &echo, 6, 9));
        assert!(!answers(true, &echo[..24], 7, 9) && !answers(true, &[], 7, 9));
        let mut six = request(false, 7, 9, 1280);
        assert_eq!(six.len(), 1240);
        six[0] = 129;
        assert!(answers(false, &six, 7, 9));
    }
}
