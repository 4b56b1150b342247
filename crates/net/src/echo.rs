//! Echo requests (ICMP) of any size, and who answers them.
//!
//! They need no listener on the other side and no port in a firewall. Packets must not be fragmented and ignore what the
//! kernel believes of the path.

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

use crate::sys::checksum;

/// An answer that takes longer counts as lost.
const ANSWER: Duration = Duration::from_millis(300);
/// Packets read after that: a flood of others' must end somewhere.
const LATE_PACKETS_MAX: usize = 1024;
/// The largest IP packet.
const PACKET_BYTES_MAX: usize = 1 << 16;
const ICMP_BYTES: usize = 8;

/// A socket for echo requests of one family.
pub struct Ears {
    id: u16,
    v4: bool,
    socket: OwnedFd,
    sequence: u16,
    buffer: Vec<u8>,
}

// === impl Ears ===

impl Ears {
    /// `id` tells our answers from those of others.
    pub fn open(id: u16, v4: bool) -> io::Result<Ears> {
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

    /// Sends to each of `silent` once and takes out those that answer.
    pub fn ask(&mut self, silent: &mut BTreeMap<IpAddr, u32>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        for (address, size) in silent.iter() {
            let request = request(self.v4, self.id, self.sequence, *size);
            // What the link itself refuses is not answered either.
            let _ = sendto(&self.socket, &request, SendFlags::empty(), &SocketAddr::new(*address, 0));
        }
        let deadline = Instant::now() + ANSWER;
        let mut late = 0;
        while !silent.is_empty() && late < LATE_PACKETS_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            // What came while this thread was held up counts.
            let over = left.is_zero();
            let flags = if over { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            if over {
                late += 1;
            } else {
                set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            }
            let (count, from) = match recvfrom(&self.socket, &mut self.buffer[..], flags) {
                Ok((count, _, from)) => (count, from),
                Err(rustix::io::Errno::AGAIN) if over => break,
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
pub fn request(v4: bool, id: u16, sequence: u16, size: u32) -> Vec<u8> {
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
pub fn answers(v4: bool, packet: &[u8], id: u16, sequence: u16) -> bool {
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
