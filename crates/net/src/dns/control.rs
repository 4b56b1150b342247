//! What the agent and the process that serves names say to each other, over a Unix socket of the latter's.
//!
//! One exchange a connection: the agent sends sockets to serve on, or none, and [`END`]; the process answers one byte,
//! whether its view is complete, and the sockets it serves on. Every descriptor comes with a byte of its own, and both
//! sides read byte by byte, so that none is lost where the kernel joins messages.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use view::{Drain, View};

use super::socket::SOCKETS_MAX;
use crate::sys;

/// Longest time an exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);
const SOCKET: u8 = b's';
const END: u8 = b'.';
const COMPLETE: u8 = b'y';
const INCOMPLETE: u8 = b'n';

/// How a process that serves names is.
#[derive(Debug)]
pub struct Serving {
    /// It knows all names of the cluster.
    pub complete: bool,
    /// What it serves on; none until it was given some.
    pub sockets: Vec<OwnedFd>,
}

/// Gives sockets to the process behind `path`, or none, and asks how it is. It serves on them when this returns.
pub async fn exchange(path: &Path, given: &[OwnedFd]) -> io::Result<Serving> {
    let exchange = async {
        let stream = UnixStream::connect(path).await?;
        send_all(&stream, given).await?;
        send(&stream, END, None).await?;
        let complete = match receive(&stream).await? {
            Some((COMPLETE, None)) => true,
            Some((INCOMPLETE, None)) => false,
            _ => return Err(odd()),
        };
        Ok(Serving { complete, sockets: receive_all(&stream).await? })
    };
    tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Answers exchanges until drain. The first sockets that are given are kept; they serve until the process ends.
pub(super) async fn answer(
    path: &Path,
    view: &View,
    held: &watch::Sender<Vec<OwnedFd>>,
    drain: &Drain,
) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    while let Some(accepted) = drain.run_until_cancelled(listener.accept()).await {
        // One after the other: there is one agent.
        let served = async { answer_one(&accepted?.0, view, held).await };
        let served = tokio::time::timeout(EXCHANGE_TIMEOUT, served).await;
        if let Err(error) = served.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
            tracing::warn!(err = %error, "an exchange with the agent failed");
            drain.run_until_cancelled(tokio::time::sleep(RETRY)).await;
        }
    }
    let _ = std::fs::remove_file(path);
    Ok(())
}

async fn answer_one(stream: &UnixStream, view: &View, held: &watch::Sender<Vec<OwnedFd>>) -> io::Result<()> {
    let given = receive_all(stream).await?;
    held.send_if_modified(|held| {
        let first = held.is_empty() && !given.is_empty();
        if first {
            *held = given;
        }
        first
    });
    let complete = if view.snapshot().synced() { COMPLETE } else { INCOMPLETE };
    let sockets = duplicates(&held.borrow())?;
    send(stream, complete, None).await?;
    send_all(stream, &sockets).await?;
    send(stream, END, None).await
}

pub(super) fn duplicates(sockets: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    sockets.iter().map(OwnedFd::try_clone).collect()
}

async fn send_all(stream: &UnixStream, sockets: &[OwnedFd]) -> io::Result<()> {
    for socket in sockets {
        send(stream, SOCKET, Some(socket.as_fd())).await?;
    }
    Ok(())
}

async fn send(stream: &UnixStream, byte: u8, passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    loop {
        stream.writable().await?;
        match stream.try_io(Interest::WRITABLE, || sys::send_with(stream.as_fd(), &[byte], passed)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// Descriptors up to [`END`].
async fn receive_all(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    loop {
        match receive(stream).await? {
            Some((SOCKET, Some(socket))) if sockets.len() < SOCKETS_MAX => sockets.push(socket),
            Some((END, None)) => return Ok(sockets),
            _ => return Err(odd()),
        }
    }
}

/// The next byte and its descriptor; None at the end of the stream.
async fn receive(stream: &UnixStream) -> io::Result<Option<(u8, Option<OwnedFd>)>> {
    let mut byte = [0];
    loop {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || sys::receive_with(stream.as_fd(), &mut byte)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok((0, _)) => return Ok(None),
            Ok((_, passed)) => return Ok(Some((byte[0], passed))),
        }
    }
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not what the other side of this socket says")
}
