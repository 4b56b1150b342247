//! The sockets that names are asked on. They are bound once and handed from process to process: as long as one of them
//! lives no question meets a closed port, and what waits in a socket is answered by whoever serves next.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use base::Chain;
use ipnet::IpNet;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, socket_type};
use rustix::net::{SocketType, getsockname};
use tokio::net::{TcpListener, UdpSocket};

use crate::config::DnsConfig;
use crate::link::{self, Netlink};

/// Sockets one node serves names on at most: two for each address.
pub const SOCKETS_MAX: usize = 16;
/// Questions that wait while one process takes over from another: about a thousand.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// A socket in use.
pub(super) enum Socket {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

/// Puts the addresses on `link`, where that exists. What is there already stays.
pub async fn put_addresses(config: &DnsConfig, link: &str) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let outside: Vec<IpAddr> = config.addresses.iter().copied().filter(|address| !address.is_loopback()).collect();
    let put = async {
        for address in outside {
            let index = link::index_of(&netlink.handle, link).await?;
            link::put_address(&netlink.handle, index, IpNet::from(address)).await?;
        }
        Ok(())
    };
    put.await.map_err(|error: link::LinkError| io::Error::other(Chain(&error).to_string()))
}

/// Both protocols on every address, which must be there: sockets of `held` where they fit, others bound anew.
pub fn bind(config: &DnsConfig, mut held: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    for address in &config.addresses {
        let at = SocketAddr::new(*address, config.port);
        for kind in [SocketType::DGRAM, SocketType::STREAM] {
            let fits = held.iter().position(|socket| place(socket).is_ok_and(|place| place == (kind, at)));
            sockets.push(match fits {
                Some(number) => held.swap_remove(number),
                None if kind == SocketType::DGRAM => bind_udp(at)?,
                None => std::net::TcpListener::bind(at)?.into(),
            });
        }
    }
    Ok(sockets)
}

fn bind_udp(at: SocketAddr) -> io::Result<OwnedFd> {
    let socket = std::net::UdpSocket::bind(at)?;
    // Without the privilege to force it the kernel's own bound holds.
    let forced = set_socket_recv_buffer_size_force(&socket, WAITING_BYTES_MAX);
    forced.or_else(|_| set_socket_recv_buffer_size(&socket, WAITING_BYTES_MAX))?;
    Ok(socket.into())
}

fn place(socket: &OwnedFd) -> io::Result<(SocketType, SocketAddr)> {
    let at = SocketAddr::try_from(getsockname(socket)?).map_err(io::Error::from)?;
    Ok((socket_type(socket)?, at))
}

// === impl Socket ===

impl Socket {
    /// Takes a socket into use that may have come from another process.
    pub fn of(descriptor: OwnedFd) -> io::Result<Socket> {
        match socket_type(descriptor.as_fd())? {
            SocketType::DGRAM => {
                let socket = std::net::UdpSocket::from(descriptor);
                socket.set_nonblocking(true)?;
                Ok(Socket::Udp(UdpSocket::from_std(socket)?))
            }
            SocketType::STREAM => {
                let listener = std::net::TcpListener::from(descriptor);
                listener.set_nonblocking(true)?;
                Ok(Socket::Tcp(TcpListener::from_std(listener)?))
            }
            other => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("names are not served on {other:?}"))),
        }
    }
}
