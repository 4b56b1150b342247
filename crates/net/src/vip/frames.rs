//! The frames that ask for an address on a segment and that claim it: ARP (RFC 826, 5227) and neighbour discovery
//! (RFC 4861). Bytes in, bytes out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::peers::Hardware;

pub const ETHER_ARP: u16 = 0x0806;
pub const ETHER_IPV6: u16 = 0x86dd;

const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;
const BROADCAST: Hardware = [0xff; 6];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// "Believe me rather than what you knew."
const OVERRIDE: u8 = 0x20;
const TARGET_HARDWARE: u8 = 2;

/// The protocol that is spoken for an address.
pub fn protocol(address: IpAddr) -> u16 {
    if address.is_ipv4() { ETHER_ARP } else { ETHER_IPV6 }
}

/// Asks who has an address, without claiming anything.
pub fn question(own: Hardware, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp(own, Ipv4Addr::UNSPECIFIED, v4),
        IpAddr::V6(v6) => {
            let [.., a, b, c] = v6.octets();
            let group = Ipv6Addr::from(0xff02_0000_0000_0000_0000_0001_ff00_0000 | u128::from_be_bytes(tail(a, b, c)));
            let mut body = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            body.extend(v6.octets());
            neighbour(own, [0x33, 0x33, 0xff, a, b, c], Ipv6Addr::UNSPECIFIED, group, body)
        }
    }
}

/// Claims an address: whoever knew it elsewhere learns where it is now.
pub fn claim(own: Hardware, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp(own, v4, v4),
        IpAddr::V6(v6) => {
            let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let mut body = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
            body.extend(v6.octets());
            body.extend([TARGET_HARDWARE, 1]);
            body.extend(own);
            neighbour(own, [0x33, 0x33, 0, 0, 0, 1], v6, everybody, body)
        }
    }
}

/// Who says by this frame that an address is theirs; ourselves apart.
pub fn claimant(frame: &[u8], own: Hardware, address: IpAddr) -> Option<Hardware> {
    let sender = Hardware::try_from(frame.get(6..12)?).ok()?;
    let body = frame.get(ETHERNET_BYTES..)?;
    let claimed = match address {
        IpAddr::V4(v4) => kind(frame) == Some(ETHER_ARP) && body.get(14..18)? == v4.octets(),
        IpAddr::V6(v6) => {
            let message = body.get(IPV6_BYTES..)?;
            kind(frame) == Some(ETHER_IPV6)
                && body.get(6) == Some(&ICMPV6)
                && message.first() == Some(&ADVERTISEMENT)
                && message.get(8..24)? == v6.octets()
        }
    };
    (claimed && sender != own).then_some(sender)
}

fn kind(frame: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?))
}

fn tail(a: u8, b: u8, c: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c]
}

fn ethernet(from: Hardware, to: Hardware, kind: u16) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes()].concat()
}

/// A request, from `sender` for `target`; both the same where it is a claim.
fn arp(own: Hardware, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(own, BROADCAST, ETHER_ARP);
    // Ethernet, IPv4, the lengths of their addresses, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(own);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn neighbour(own: Hardware, to: Hardware, source: Ipv6Addr, group: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short message");
    let mut pseudo: Vec<u8> = [&source.octets()[..], &group.octets(), &[0, 0], &length.to_be_bytes()].concat();
    pseudo.extend([0, 0, 0, ICMPV6]);
    pseudo.extend(&body);
    let sum = crate::sys::checksum(&pseudo);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(own, to, ETHER_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    // Neighbours must see that no router was in between.
    frame.extend([ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Hardware = [2, 0, 0, 0, 0, 1];
    const OTHER: Hardware = [2, 0, 0, 0, 0, 2];

    #[test]
    fn a_claim_is_heard_and_a_question_is_none() {
        for text in ["192.0.2.9", "2001:db8::9"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(claimant(&claim(OTHER, address), ME, address), Some(OTHER));
            assert_eq!(claimant(&claim(ME, address), ME, address), None, "our own");
            assert_eq!(claimant(&question(OTHER, address), ME, address), None);
            let another = if address.is_ipv4() { "192.0.2.8" } else { "2001:db8::8" };
            assert_eq!(claimant(&claim(OTHER, another.parse().unwrap()), ME, address), None);
            for end in 0..claim(OTHER, address).len() {
                claimant(&claim(OTHER, address)[..end], ME, address);
            }
        }
    }

    #[test]
    fn frames_are_as_the_standards_write_them() {
        let arp = question(ME, "192.0.2.9".parse().unwrap());
        assert_eq!(
            (arp.len(), &arp[..6], &arp[28..32], &arp[38..]),
            (42, &[0xff; 6][..], &[0; 4][..], &[192, 0, 2, 9][..])
        );
        let solicitation = question(ME, "2001:db8::1:2:3".parse().unwrap());
        assert_eq!(solicitation[..6], [0x33, 0x33, 0xff, 2, 0, 3]);
        let group = Ipv6Addr::from(<[u8; 16]>::try_from(&solicitation[38..54]).unwrap());
        assert_eq!(group.to_string(), "ff02::1:ff02:3");
        let advertisement = claim(ME, "2001:db8::9".parse().unwrap());
        assert_eq!((advertisement.len(), advertisement[21], advertisement[54]), (86, 255, ADVERTISEMENT));
    }
}
