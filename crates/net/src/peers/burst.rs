//! Many small echo requests in a moment: how many of them are lost on the way, and whether anybody is there at all.
//!
//! Asked for by whoever looks for what is wrong; nothing is sent while nobody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};

use crate::config::fnv;
use crate::echo::{answers, request};

/// Requests to each address, so many at a time; the spacing of these; and how long the last answers may take.
const ROUNDS: u16 = 100;
const AT_A_TIME: u16 = 2;
const SPACING: Duration = Duration::from_millis(1);
const LAST_ANSWERS: Duration = Duration::from_millis(100);
/// Packets that are read between two sendings: a flood of others' must end somewhere.
const PACKETS_MAX: usize = 1024;
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

/// Asks all addresses at once. Takes a fifth of a second, and half of that where all answer.
pub async fn burst(addresses: &[IpAddr]) -> BTreeMap<IpAddr, Echoes> {
    let mut all = BTreeMap::new();
    for v4 in [true, false] {
        let family = addresses.iter().copied().filter(|address| address.is_ipv4() == v4);
        let family: Vec<IpAddr> = family.take(ADDRESSES_MAX).collect();
        if family.is_empty() {
            continue;
        }
        let run = async { Burst::open(v4)?.run(&family).await };
        match run.await {
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

    async fn run(mut self, addresses: &[IpAddr]) -> io::Result<BTreeMap<IpAddr, Echoes>> {
        for round in 0..ROUNDS {
            let request = request(self.v4, self.id, round, PACKET_BYTES);
            for address in addresses {
                // What the link itself refuses is not answered either.
                let _ = sendto(&self.socket, &request, SendFlags::empty(), &SocketAddr::new(*address, 0));
            }
            if round % AT_A_TIME == AT_A_TIME - 1 {
                // A timeout of the socket itself is counted in ticks of the kernel, which are longer.
                tokio::time::sleep(SPACING).await;
                self.listen()?;
            }
        }
        let deadline = Instant::now() + LAST_ANSWERS;
        while self.heard.len() < addresses.len() * usize::from(ROUNDS) && Instant::now() < deadline {
            tokio::time::sleep(SPACING).await;
            self.listen()?;
        }
        let heard = |address: &IpAddr| self.heard.iter().filter(|(from, _)| from == address).count();
        let of = |address: &IpAddr| Echoes {
            sent: u32::from(ROUNDS),
            heard: u32::try_from(heard(address)).expect("no more than were sent"),
        };
        Ok(addresses.iter().map(|address| (*address, of(address))).collect())
    }

    /// Takes in what lies in the socket.
    fn listen(&mut self) -> io::Result<()> {
        let mut buffer = [0; ANSWER_BYTES_MAX];
        for _ in 0..PACKETS_MAX {
            let (count, from) = match recvfrom(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((count, _, from)) => (count, from),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            let sequence = (0..ROUNDS).find(|round| answers(self.v4, &buffer[..count], self.id, *round));
            self.heard.extend(from.map(|from| from.ip()).zip(sequence));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Echoes, LAST_ANSWERS, ROUNDS, SPACING, burst};
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn an_address_that_is_there_loses_nothing_and_is_not_waited_for() {
        let own = "127.0.0.1".parse().unwrap();
        // The quickest of several: others use the processors as well.
        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            assert_eq!(burst(&[own]).await[&own], Echoes { sent: 100, heard: 100 });
            quickest = quickest.min(start.elapsed());
        }
        assert!(quickest < 2 * SPACING * u32::from(ROUNDS) + LAST_ANSWERS, "{quickest:?}");
    }
}
