//! Forgets flows whose endpoint is gone: a flow is translated once, by its first packet.
//!
//! A UDP client that keeps sending would keep its dead endpoint for ever. A TCP client notices and connects again; but
//! while it still waits for the first answer of an endpoint that is avoided, its next attempt may as well reach another.
//!
//! The kernel's table is read and changed over netlink (`ctnetlink`); the few message types needed are written here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use super::state::{Protocol, ServicePort};

/// Flows looked at in one pass.
pub const FLOWS_MAX: usize = 1 << 20;

const HEADER_BYTES: usize = 16;
/// Behind the netlink header: family, version, resource.
const NETFILTER_BYTES: usize = 4;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// `IPS_SEEN_REPLY` of a flow's status: the other side has answered.
const ANSWERED: u32 = 1 << 1;
/// `-ENOENT`: the flow ended by itself.
const ABSENT: i32 = -2;
// Attribute numbers of ctnetlink.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;

type Place = (IpAddr, u16);

/// Where UDP services are found, and who may answer there; and who of TCP services is avoided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    at: BTreeMap<Place, BTreeSet<Place>>,
    node_ports: BTreeMap<u16, BTreeSet<Place>>,
    avoided: BTreeSet<Place>,
}

/// One UDP flow, or a TCP flow without an answer yet: where the client sent to, who answers, and what the kernel calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    family: u8,
    protocol: u8,
    sent_to: Place,
    answered_by: Place,
    /// The attributes that name it in a delete request.
    name: Vec<u8>,
}

// === impl Backends ===

impl Backends {
    pub fn of(services: &[ServicePort]) -> Backends {
        let mut backends = Backends::default();
        for service in services.iter().filter(|service| service.protocol == Protocol::Udp) {
            let usable = service.endpoints.iter().filter(|endpoint| endpoint.ready || endpoint.serving);
            let places: BTreeSet<Place> = usable.map(|endpoint| (endpoint.address, endpoint.port)).collect();
            for address in service.cluster_ips.iter().chain(&service.external_ips).chain(&service.balancer_ips) {
                backends.at.entry((*address, service.port)).or_default().extend(&places);
            }
            if let Some(port) = service.node_port {
                backends.node_ports.entry(port).or_default().extend(&places);
            }
        }
        let avoided = services.iter().filter(|service| service.protocol == Protocol::Tcp);
        let avoided = avoided.flat_map(|service| &service.left_out);
        backends.avoided = avoided.map(|endpoint| (endpoint.address, endpoint.port)).collect();
        backends
    }

    fn stale(&self, flow: &Flow) -> bool {
        if flow.protocol == TCP {
            return flow.sent_to != flow.answered_by && self.avoided.contains(&flow.answered_by);
        }
        let served = self.at.get(&flow.sent_to).or_else(|| self.node_ports.get(&flow.sent_to.1));
        served.is_some_and(|places| !places.contains(&flow.answered_by))
    }
}

/// Removes stale flows; how many. Blocks: call it where that is allowed.
pub fn forget_stale(backends: &Backends) -> io::Result<usize> {
    if *backends == Backends::default() {
        return Ok(0);
    }
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    let kernel = SocketAddr::new(0, 0);
    let mut removed = 0;
    for flow in flows(&socket, &kernel)?.iter().filter(|flow| backends.stale(flow)) {
        socket.send_to(&message(DELETE, REQUEST | ACK, flow.family, &flow.name), &kernel, 0)?;
        let (reply, _) = socket.recv_from_full()?;
        match error_of(&reply) {
            Some(0) => removed += 1,
            Some(ABSENT) | None => {}
            Some(code) => return Err(io::Error::from_raw_os_error(-code)),
        }
    }
    Ok(removed)
}

fn flows(socket: &Socket, kernel: &SocketAddr) -> io::Result<Vec<Flow>> {
    socket.send_to(&message(GET, REQUEST | DUMP, 0, &[]), kernel, 0)?;
    let mut flows = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while let Some((kind, body, tail)) = next_message(rest) {
            rest = tail;
            match kind {
                MESSAGE_DONE => return Ok(flows),
                MESSAGE_ERROR => {
                    let code = error_of(&bytes).unwrap_or(0);
                    return Err(io::Error::from_raw_os_error(-code));
                }
                _ => flows.extend(flow(body).filter(|_| flows.len() < FLOWS_MAX)),
            }
        }
    }
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES + NETFILTER_BYTES + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).expect("a few attributes").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER_BYTES..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The code of an error message; zero is an acknowledgement.
fn error_of(bytes: &[u8]) -> Option<i32> {
    let (kind, body, _) = next_message(bytes)?;
    (kind == MESSAGE_ERROR).then(|| body.get(..4)?.try_into().ok().map(i32::from_ne_bytes)).flatten()
}

/// Attributes: number without its flags, value, and the whole as it stands.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let number = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        let end = length.next_multiple_of(4).min(bytes.len());
        let whole = &bytes[..end];
        bytes = &bytes[end..];
        Some((number, value, whole))
    })
}

/// Reads a UDP flow, or a TCP flow without an answer; None for every other.
fn flow(body: &[u8]) -> Option<Flow> {
    let family = *body.first()?;
    let (mut protocol, mut answered) = (0, true);
    let mut sent_to = None;
    let mut answered_by = None;
    let mut name = Vec::new();
    for (number, value, whole) in attributes(body.get(NETFILTER_BYTES..)?) {
        match number {
            TUPLE_ORIGINAL => {
                let (kind, _, to) = tuple(value)?;
                (protocol, sent_to) = (kind, Some(to));
                name.extend_from_slice(whole);
            }
            TUPLE_REPLY => answered_by = Some(tuple(value)?.1),
            STATUS => answered = u32::from_be_bytes(value.try_into().ok()?) & ANSWERED != 0,
            ID | ZONE => name.extend_from_slice(whole),
            _ => {}
        }
    }
    let flow = Flow { family, protocol, sent_to: sent_to?, answered_by: answered_by?, name };
    (protocol == UDP || !answered).then_some(flow)
}

/// Protocol, source and destination of a UDP or TCP tuple.
fn tuple(bytes: &[u8]) -> Option<(u8, Place, Place)> {
    let mut protocol = None;
    let (mut source, mut destination) = (None, None);
    let (mut from, mut to) = (None, None);
    for (part, value, _) in attributes(bytes) {
        for (number, value, _) in attributes(value) {
            match (part, number) {
                (1, 1 | 3) => source = address(value),
                (1, 2 | 4) => destination = address(value),
                (2, 1) => protocol = value.first().copied().filter(|kind| [TCP, UDP].contains(kind)),
                (2, 2) => from = port(value),
                (2, 3) => to = port(value),
                _ => {}
            }
        }
    }
    Some((protocol?, (source?, from?), (destination?, to?)))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))).ok()
}

fn port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), number.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple_bytes(proto: u8, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let ip = [attribute(1, &from.0), attribute(2, &to.0)].concat();
        let ports = [attribute(1, &[proto]), attribute(2, &from.1.to_be_bytes()), attribute(3, &to.1.to_be_bytes())];
        [attribute(0x8001, &ip), attribute(0x8002, &ports.concat())].concat()
    }

    /// A flow from a pod to a Service, answered by one endpoint.
    fn body(protocol: u8, status: u32) -> Vec<u8> {
        let original = attribute(0x8001, &tuple_bytes(protocol, ([10, 42, 0, 9], 4000), ([10, 43, 0, 7], 53)));
        let reply = attribute(0x8002, &tuple_bytes(protocol, ([10, 42, 0, 5], 5353), ([10, 42, 0, 9], 4000)));
        [vec![2, 0, 0, 0], original, reply, attribute(3, &status.to_be_bytes())].concat()
    }

    fn place(octets: [u8; 4], port: u16) -> Place {
        (IpAddr::from(octets), port)
    }

    const SERVICE: ([u8; 4], u16) = ([10, 43, 0, 7], 53);
    const DEAD: ([u8; 4], u16) = ([10, 42, 0, 5], 5353);

    #[test]
    fn a_flow_to_a_dead_endpoint_is_stale() {
        let flow = flow(&body(UDP, ANSWERED)).unwrap();
        let (service, dead) = (place(SERVICE.0, SERVICE.1), place(DEAD.0, DEAD.1));
        assert_eq!((flow.sent_to, flow.answered_by), (service, dead));
        let mut backends = Backends::default();
        assert!(!backends.stale(&flow), "not a service's flow");
        backends.at.insert(service, BTreeSet::from([place([10, 42, 0, 6], 5353)]));
        assert!(backends.stale(&flow));
        backends.at.insert(service, BTreeSet::from([dead]));
        assert!(!backends.stale(&flow));
    }

    #[test]
    fn a_connection_that_waits_for_an_avoided_endpoint_is_stale() {
        assert_eq!(flow(&body(TCP, ANSWERED)), None, "one that was answered is its client's affair");
        assert_eq!(flow(&body(132, 0)), None);
        let flow = flow(&body(TCP, 0)).unwrap();
        let mut backends = Backends::default();
        backends.at.insert(place(SERVICE.0, SERVICE.1), BTreeSet::new());
        assert!(!backends.stale(&flow), "UDP's backends say nothing of TCP");
        backends.avoided.insert(place(DEAD.0, DEAD.1));
        assert!(backends.stale(&flow));
    }
}
