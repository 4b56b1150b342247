//! Many small echo requests in a moment: how many of them are lost on the way, and whether anybody is there at all.
//!
//! Asked for by whoever looks for what is wrong; nothing is sent while nobody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};

use crate::config::fnv;
use crate::echo::{answers, request};

/// Requests to each address; their spacing; and how long the last answers may take.
const ROUNDS: u16 = 100;
const SPACING: Duration = Duration::from_millis(1);
const LAST_ANSWERS: Duration = Duration::from_millis(100);
/// Addresses that are asked at once; the rest is not.
const ADDRESSES_MAX: usize = 64;
const PACKET_BYTES: u32 = 64;
const ANSWER_BYTES_MAX: usize = 1 << 11;

/// What became of the requests to one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echoes {
    pub sent: u32,
    pub heard: u32,
}

/// Asks all addresses at once. Blocks for less than half a second.
pub fn burst(addresses: &[IpAddr]) -> BTreeMap<IpAddr, Echoes> {
    let mut all = BTreeMap::new();
    for v4 in [true, false] {
        let family = addresses.iter().copied().filter(|address| address.is_ipv4() == v4);
        let family: Vec<IpAddr> = family.take(ADDRESSES_MAX).collect();
        if family.is_empty() {
            continue;
        }
        match Burst::open(v4).and_then(|burst| burst.run(&family)) {
            Ok(found) => all.extend(found),
            Err(error) => tracing::debug!(err = %error, v4, "no echo requests"),
        }
    }
    all
}

struct Burst {
    v4: bool,
    id: u16,
    socket: OwnedFd,
    heard: BTreeSet<(IpAddr, u16)>,
}

// === impl Burst ===

impl Burst {
    fn open(v4: bool) -> io::Result<Burst> {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let (family, protocol) =
            if v4 { (AddressFamily::INET, ipproto::ICMP) } else { (AddressFamily::INET6, ipproto::ICMPV6) };
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        let name = format!("burst {} {}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let id = u16::try_from(fnv(name.as_bytes()) & 0xffff).expect("16 bits");
        Ok(Burst { v4, id, socket, heard: BTreeSet::new() })
    }

    fn run(mut self, addresses: &[IpAddr]) -> io::Result<BTreeMap<IpAddr, Echoes>> {
        for round in 0..ROUNDS {
            let request = request(self.v4, self.id, round, PACKET_BYTES);
            for address in addresses {
                // What the link itself refuses is not answered either.
                let _ = sendto(&self.socket, &request, SendFlags::empty(), &SocketAddr::new(*address, 0));
            }
            self.listen(Instant::now() + SPACING, false)?;
        }
        self.listen(Instant::now() + LAST_ANSWERS, addresses.len() * usize::from(ROUNDS) == self.heard.len())?;
        let heard = |address: &IpAddr| self.heard.iter().filter(|(from, _)| from == address).count();
        let of = |address: &IpAddr| Echoes {
            sent: u32::from(ROUNDS),
            heard: u32::try_from(heard(address)).expect("no more than were sent"),
        };
        Ok(addresses.iter().map(|address| (*address, of(address))).collect())
    }

    /// Takes answers in until then; what lies in the socket already is heard in any case.
    fn listen(&mut self, until: Instant, all: bool) -> io::Result<()> {
        let mut buffer = [0; ANSWER_BYTES_MAX];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let flags = if left.is_zero() || all { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            if !left.is_zero() {
                set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            }
            let (count, from) = match recvfrom(&self.socket, &mut buffer[..], flags) {
                Ok((count, _, from)) => (count, from),
                Err(rustix::io::Errno::AGAIN) if left.is_zero() || all => return Ok(()),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            let sequence = (0..ROUNDS).find(|round| answers(self.v4, &buffer[..count], self.id, *round));
            self.heard.extend(from.map(|from| from.ip()).zip(sequence));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Echoes, burst};

    #[test]
    fn an_address_that_is_there_loses_nothing() {
        let own = "127.0.0.1".parse().unwrap();
        let found = burst(&[own]);
        assert_eq!(found[&own], Echoes { sent: 100, heard: 100 });
    }
}
