//! The system calls of this crate: entering a network namespace, passing a descriptor over a socket, kernel settings.
//!
//! No `unsafe`: rustix covers them. A namespace is entered only by a thread that ends afterwards.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rtnetlink::Handle;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
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

/// Sets a kernel setting where it differs. A read-only `/proc/sys` (a container) is tolerated by the caller.
pub fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    if fs::read_to_string(&path).is_ok_and(|old| old.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value)
}
