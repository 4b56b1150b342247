//! The system calls of this crate: entering a network namespace, passing a descriptor over a socket, frames on a link,
//! kernel settings. A namespace is entered only by a thread that ends afterwards.
//!
//! JUSTIFICATION for `unsafe`: rustix knows packet sockets, but not the address that binds one to a link; and it cannot tell
//! that a thread which leaves its network namespace harms nobody.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rtnetlink::Handle;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, bind, recvmsg, sendmsg, socket_with,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tokio::sync::oneshot;

/// Runs `work` with a netlink handle inside a network namespace, on a thread of its own.
pub async fn inside<T, E, F, Fut>(netns: OwnedFd, work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
    F: FnOnce(Handle) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>>,
{
    let (done, result) = oneshot::channel();
    let body = move || {
        let _ = done.send(enter(&netns, work));
    };
    std::thread::Builder::new().name("netns".to_owned()).spawn(body).map_err(E::from)?;
    result.await.unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace ended early").into()))
}

/// As [`inside`], for programs without a runtime of their own: the calling thread waits.
pub fn inside_blocking<T, E, F, Fut>(netns: OwnedFd, work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
    F: FnOnce(Handle) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>>,
{
    let thread = std::thread::Builder::new().name("netns".to_owned()).spawn(move || enter(&netns, work))?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked").into()))
}

/// Runs `work` in a network namespace of its own, on a thread of its own; programs it starts are in there, too.
pub fn in_new_network<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let body = move || {
        // SAFETY: only the network namespace changes, only this thread's, and the thread ends with `work`: no descriptor
        // and no memory is shared less than before.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
        Ok(work())
    };
    let thread = std::thread::Builder::new().name("netns".to_owned()).spawn(body)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
}

fn enter<T, E, F, Fut>(netns: &OwnedFd, work: F) -> Result<T, E>
where
    E: From<io::Error>,
    F: FnOnce(Handle) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(io::Error::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = work(handle).await;
        connection.abort();
        result
    })
}

/// Sends bytes and, with them, a descriptor.
pub fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed: Vec<BorrowedFd<'_>> = passed.into_iter().collect();
    if !passed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&passed));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives bytes and the descriptor that came with them, if any.
pub fn receive_with(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut passed = None;
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = item {
            passed = descriptors.into_iter().next().or(passed);
        }
    }
    Ok((message.bytes, passed))
}

/// A socket that sends and receives whole frames of one protocol on one link.
pub fn frame_socket(link: u32, protocol: u16) -> io::Result<OwnedFd> {
    // Without a protocol it hears nothing until it is bound.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let index = i32::try_from(link).map_err(io::Error::other)?;
    bind(&socket, &LinkAddress { family: AF_PACKET, protocol: protocol.to_be(), index, rest: [0; 12] })?;
    Ok(socket)
}

const AF_PACKET: u16 = AddressFamily::PACKET.as_raw();

/// `struct sockaddr_ll` of packet(7). Of the rest, kinds and hardware address, binding uses nothing.
#[repr(C)]
struct LinkAddress {
    family: u16,
    /// In network order.
    protocol: u16,
    index: i32,
    rest: [u8; 12],
}

// SAFETY: the pointer is to the whole of `self`, which has the layout of `sockaddr_ll` without padding and lives as long
// as the call.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let length = SocketAddrLen::try_from(size_of::<LinkAddress>()).expect("20 bytes");
        call(std::ptr::from_ref(self).cast(), length)
    }
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

/// Sets a kernel setting where it differs. A read-only `/proc/sys` (a container) is tolerated by the caller.
pub fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    if fs::read_to_string(&path).is_ok_and(|old| old.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value)
}
