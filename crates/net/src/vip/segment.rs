//! The link that has the virtual address' subnet: the address on it, questions and claims.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, CacheInfo};
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::Handle;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::core::Probe;
use super::frames::{claim, claimant, protocol, question};
use crate::agent::AgentError;
use crate::link::{self, LinkError, Netlink, failed};
use crate::peers::Hardware;
use crate::sys;

/// Questions, and how long after each an answer is waited for.
const QUESTIONS: usize = 3;
const ANSWER: Duration = Duration::from_millis(100);
const FRAME_BYTES_MAX: usize = 2048;

/// Where the address belongs.
#[derive(Clone, Debug)]
pub struct Segment {
    address: IpNet,
}

/// A link found.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: u32,
    hardware: Hardware,
}

// === impl Segment ===

impl Segment {
    pub fn new(address: IpNet) -> Segment {
        Segment { address }
    }

    /// Puts the address on its link for so long; the kernel takes it off then by itself.
    pub async fn put(&self, time: Duration) -> Result<(), AgentError> {
        let netlink = Netlink::open().map_err(AgentError::Netlink)?;
        let Some(place) = self.place(&netlink.handle).await? else { return Ok(()) };
        // Whole seconds; what rounding adds is less than what others wait longer.
        let seconds = u32::try_from((time + Duration::from_millis(500)).as_secs()).unwrap_or_default();
        if seconds == 0 {
            return Ok(());
        }
        let (addr, prefix) = (self.address.addr(), self.address.prefix_len());
        let mut request = netlink.handle.address().add(place.index, addr, prefix).replace();
        let message = request.message_mut();
        if addr.is_ipv6() {
            // The segment was asked already.
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        let mut life = CacheInfo::default();
        (life.ifa_valid, life.ifa_preferred) = (seconds, seconds);
        message.attributes.push(AddressAttribute::CacheInfo(life));
        let put = request.execute().await;
        put.map_err(failed(format!("put address {}", self.address))).map_err(AgentError::Link)
    }

    /// Takes the address off whatever link has it.
    pub async fn take_off(&self) {
        let result = async {
            let netlink = Netlink::open().map_err(AgentError::Netlink)?;
            for (index, net) in link::addresses(&netlink.handle, None).await? {
                if net.addr() == self.address.addr() {
                    link::drop_address(&netlink.handle, index, net).await?;
                }
            }
            Ok::<_, AgentError>(())
        };
        if let Err(error) = result.await {
            tracing::error!(err = %base::Chain(&error), address = %self.address, "the virtual address was not taken off");
        }
    }

    /// Tells the segment, in the background: a frame that is not sent is sent again later.
    pub fn announce(&self) {
        let segment = self.clone();
        tokio::spawn(async move {
            let sent = async {
                let netlink = Netlink::open()?;
                let place = segment.place(&netlink.handle).await.map_err(std::io::Error::other)?;
                let Some(place) = place else { return Ok(()) };
                let address = segment.address.addr();
                let socket = sys::frame_socket(place.index, protocol(address))?;
                send(&socket, &claim(place.hardware, address), SendFlags::empty())?;
                Ok::<_, std::io::Error>(())
            };
            if let Err(error) = sent.await {
                tracing::warn!(err = %error, address = %segment.address, "the virtual address was not announced");
            }
        });
    }

    /// Asks the segment who has the address.
    pub async fn probe(self) -> Probe {
        let place = async {
            let netlink = Netlink::open().map_err(AgentError::Netlink)?;
            Ok::<_, AgentError>(self.place(&netlink.handle).await?)
        };
        let place = match place.await {
            Ok(Some(place)) => place,
            Ok(None) => return Probe::Unknown,
            Err(error) => {
                tracing::warn!(err = %base::Chain(&error), "cannot find the virtual address' link");
                return Probe::Unknown;
            }
        };
        let address = self.address.addr();
        match tokio::task::spawn_blocking(move || ask(place, address)).await {
            Ok(Ok(Some(by))) => Probe::Taken(by),
            Ok(Ok(None)) => Probe::Free,
            Ok(Err(error)) => {
                tracing::warn!(err = %error, "cannot ask for the virtual address");
                Probe::Unknown
            }
            Err(_) => Probe::Unknown,
        }
    }

    /// The link whose subnet has the address; the longest of several.
    async fn place(&self, handle: &Handle) -> Result<Option<Place>, LinkError> {
        let own = link::addresses(handle, None).await?;
        let holds = |net: &IpNet| net.addr() != self.address.addr() && net.contains(&self.address.addr());
        let found = own.into_iter().filter(|(_, net)| holds(net)).max_by_key(|(_, net)| net.prefix_len());
        let Some((index, _)) = found else { return Ok(None) };
        let Some(link) = link::by_index(handle, index).await? else { return Ok(None) };
        let hardware = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => Hardware::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        Ok(hardware.map(|hardware| Place { index, hardware }))
    }
}

/// Blocks for as long as answers are waited for, where none comes.
fn ask(place: Place, address: IpAddr) -> std::io::Result<Option<Hardware>> {
    let socket = sys::frame_socket(place.index, protocol(address))?;
    let mut buffer = [0; FRAME_BYTES_MAX];
    for _ in 0..QUESTIONS {
        send(&socket, &question(place.hardware, address), SendFlags::empty())?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            set_socket_timeout(&socket, Timeout::Recv, Some(left))?;
            let count = match recv(&socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((count, _)) => count,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(by) = claimant(&buffer[..count], place.hardware, address) {
                return Ok(Some(by));
            }
        }
    }
    Ok(None)
}
