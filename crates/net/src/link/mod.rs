//! Links, addresses and routes, by netlink. Every function says what should be and is harmless when it already is.

mod bridge;
mod pod;
mod route;
mod tunnel;

use std::io;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkUnspec};
use rustix::io::Errno;
use tokio::task::JoinHandle;

pub use bridge::{Bridge, raise as raise_bridge};
pub use pod::{PodLink, connect as connect_pod, loopback_up, probe as probe_pod};
pub use route::{Lookup, Route, lookup, mtu_of, sync as sync_routes, uplink_mtu};
pub use tunnel::{Tunnel, sync as sync_tunnel};

/// A change of links that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{action}")]
    Netlink {
        action: String,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("network namespace")]
    Namespace(#[from] io::Error),
    #[error("link {name} is not there")]
    Missing { name: String },
    #[error("address {address} is not on {name}")]
    Unset { name: String, address: IpAddr },
}

/// A netlink connection; its task ends with it.
pub struct Netlink {
    pub handle: Handle,
    task: JoinHandle<()>,
}

// === impl Netlink ===

impl Netlink {
    /// Opens a connection in the network namespace of the calling thread.
    pub fn open() -> io::Result<Netlink> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Netlink { handle, task: tokio::spawn(connection) })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let action = action.into();
    move |source| LinkError::Netlink { action, source }
}

/// Takes "it is already so" for success.
pub(crate) fn unless(accepted: Errno, result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -accepted.raw_os_error() => Ok(()),
        other => other,
    }
}

/// A link by name; None where there is none.
pub async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, LinkError> {
    let reply = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    match reply {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -Errno::NODEV.raw_os_error() => Ok(None),
        reply => reply.map_err(failed(format!("find link {name}"))),
    }
}

/// A link by index; None where there is none.
pub async fn by_index(handle: &Handle, index: u32) -> Result<Option<LinkMessage>, LinkError> {
    match handle.link().get().match_index(index).execute().try_next().await {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -Errno::NODEV.raw_os_error() => Ok(None),
        reply => reply.map_err(failed(format!("find link {index}"))),
    }
}

pub async fn index_of(handle: &Handle, name: &str) -> Result<u32, LinkError> {
    let link = find(handle, name).await?;
    Ok(link.ok_or_else(|| LinkError::Missing { name: name.to_owned() })?.header.index)
}

/// Removes a link; absent is done.
pub async fn remove(handle: &Handle, name: &str) -> Result<bool, LinkError> {
    let Some(link) = find(handle, name).await? else { return Ok(false) };
    let result = handle.link().del(link.header.index).execute().await;
    unless(Errno::NODEV, result).map_err(failed(format!("remove link {name}")))?;
    Ok(true)
}

/// Names of all links that begin with `prefix`.
pub async fn names_with(handle: &Handle, prefix: &str) -> Result<Vec<String>, LinkError> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await.map_err(failed("list links"))?;
    Ok(links.iter().filter_map(name_of).filter(|name| name.starts_with(prefix)).collect())
}

pub async fn set_up(handle: &Handle, index: u32) -> Result<(), LinkError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.map_err(failed("set link up"))
}

/// Puts an address on a link, usable at once.
pub async fn put_address(handle: &Handle, index: u32, address: IpNet) -> Result<(), LinkError> {
    let mut request = handle.address().add(index, address.addr(), address.prefix_len()).replace();
    if address.addr().is_ipv6() {
        // Nobody else has it: waiting for duplicates would make a starting pod fail to bind.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await.map_err(failed(format!("put address {address}")))
}

/// The addresses of a link, or of all links.
pub async fn addresses(handle: &Handle, index: Option<u32>) -> Result<Vec<(u32, IpNet)>, LinkError> {
    let list = handle.address().get().execute();
    let messages: Vec<_> = list.try_collect().await.map_err(failed("list addresses"))?;
    let mut found = Vec::new();
    for message in messages.iter().filter(|message| index.is_none_or(|index| message.header.index == index)) {
        // On point-to-point links "address" is the peer's; "local" is always ours where it is given.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let any = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        if let Some(address) = local.or(any)
            && let Ok(net) = IpNet::new(address, message.header.prefix_len)
        {
            found.push((message.header.index, net));
        }
    }
    Ok(found)
}

/// Takes an address off a link; absent is done.
pub async fn drop_address(handle: &Handle, index: u32, address: IpNet) -> Result<(), LinkError> {
    let list = handle.address().get().set_link_index_filter(index).execute();
    let messages: Vec<_> = list.try_collect().await.map_err(failed("list addresses"))?;
    for message in messages {
        let ours = message.header.prefix_len == address.prefix_len()
            && message.attributes.contains(&AddressAttribute::Address(address.addr()));
        if ours {
            let result = handle.address().del(message).execute().await;
            unless(Errno::ADDRNOTAVAIL, result).map_err(failed(format!("drop address {address}")))?;
        }
    }
    Ok(())
}

pub fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// A hardware address that follows from an IP address: whoever remembers one for the other stays right.
pub fn hardware_address(address: IpAddr) -> Vec<u8> {
    let tail: [u8; 4] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
    };
    // The second bit marks a locally administered address.
    [&[0x0a, 0x58][..], &tail].concat()
}

pub fn hardware_text(address: &[u8]) -> String {
    address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
