//! exec and attach: a client's channels joined to the runtime's streams, each direction on its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::StreamError;
use super::spdy::{Connection, Output, Side, Stream};
use super::websocket::Channels;
use crate::limits;
use crate::runtime::ExecRequest;

/// Longest final status that is passed on.
const STATUS_BYTES_MAX: usize = 64 << 10;

/// Channel numbers of the WebSocket protocols.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: usize = 4;

/// A client's end of an exec or attach.
struct Client {
    stdin: Option<mpsc::Receiver<Bytes>>,
    resize: Option<mpsc::Receiver<Bytes>>,
    stdout: Option<Sink>,
    stderr: Option<Sink>,
    error: Sink,
    gone: CancellationToken,
}

#[derive(Clone)]
enum Sink {
    Spdy(Output),
    Channel(u8, mpsc::Sender<(u8, Bytes)>),
}

impl Sink {
    async fn send(&self, bytes: Bytes) -> Result<(), StreamError> {
        match self {
            Sink::Spdy(output) => output.send(bytes).await,
            Sink::Channel(channel, out) => out.send((*channel, bytes)).await.map_err(|_| StreamError::Closed),
        }
    }

    async fn finish(&self) {
        match self {
            Sink::Spdy(output) => output.finish().await,
            Sink::Channel(..) => {}
        }
    }
}

/// Counts what passes: a session may last as long as it is used.
#[derive(Clone, Default)]
struct Traffic(Arc<AtomicU64>);

impl Traffic {
    fn passed(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns when nothing has passed for at least `span`.
    async fn idle(&self, span: Duration) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            tokio::time::sleep(span).await;
            if self.0.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// Serves a client that upgraded to SPDY.
pub async fn serve_spdy<S>(io: S, request: &ExecRequest, runtime: Connection) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = Connection::start(io, Side::Server);
    let wait = tokio::time::timeout(limits::STREAM_CREATION_TIMEOUT, expected(&mut connection, request)).await;
    let client = wait.map_err(|_| StreamError::Slow)??;
    let outcome = relay(client, request, runtime).await;
    connection.close().await;
    outcome
}

async fn expected(connection: &mut Connection, request: &ExecRequest) -> Result<Client, StreamError> {
    let wanted = 1 + [request.stdin, request.stdout, request.stderr && !request.tty, request.tty]
        .into_iter()
        .filter(|on| *on)
        .count();
    let gone = connection.closed();
    let mut found: Vec<Stream> = Vec::new();
    while found.len() < wanted {
        found.push(connection.accept().await.ok_or(StreamError::Closed)?);
    }
    let mut take = |kind: &str| {
        let at = found.iter().position(|stream| stream.header("streamtype").eq_ignore_ascii_case(kind))?;
        Some(found.swap_remove(at))
    };
    let error = take("error").ok_or(StreamError::Closed)?;
    Ok(Client {
        stdin: take("stdin").map(|stream| stream.input),
        resize: take("resize").map(|stream| stream.input),
        stdout: take("stdout").map(|stream| Sink::Spdy(stream.output)),
        stderr: take("stderr").map(|stream| Sink::Spdy(stream.output)),
        error: Sink::Spdy(error.output),
        gone,
    })
}

/// Serves a client that speaks WebSocket channels.
pub async fn serve_websocket<S>(io: S, request: &ExecRequest, runtime: Connection) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut channels = Channels::start(io, RESIZE + 1).await;
    let sink = |channel| Sink::Channel(channel, channels.out.clone());
    let client = Client {
        stdout: request.stdout.then(|| sink(STDOUT)),
        stderr: (request.stderr && !request.tty).then(|| sink(STDERR)),
        error: sink(ERROR),
        stdin: channels.inputs[0].take().filter(|_| request.stdin),
        resize: channels.inputs[RESIZE].take().filter(|_| request.tty),
        gone: channels.closed.clone(),
    };
    // Clients wait for a first message to know that the channel stands.
    for channel in [(request.stdout, STDOUT), (request.stderr && !request.tty, STDERR)] {
        if channel.0 {
            let _ = channels.out.send((channel.1, Bytes::new())).await;
        }
    }
    let outcome = relay(client, request, runtime).await;
    channels.close().await;
    outcome
}

/// Copies until the runtime has told the outcome and all output is passed on, or the client is gone.
async fn relay(client: Client, request: &ExecRequest, runtime: Connection) -> Result<(), StreamError> {
    let open = |kind: &str| runtime.open(vec![("streamtype".to_owned(), kind.to_owned())]);
    let error = open("error").await?;
    let stdin = if request.stdin { Some(open("stdin").await?) } else { None };
    let stdout = if request.stdout { Some(open("stdout").await?) } else { None };
    let stderr = if request.stderr && !request.tty { Some(open("stderr").await?) } else { None };
    let resize = if request.tty { Some(open("resize").await?) } else { None };
    let traffic = Traffic::default();
    let mut inward = JoinSet::new();
    for (from, to) in [(client.stdin, stdin), (client.resize, resize)] {
        if let (Some(from), Some(to)) = (from, to) {
            inward.spawn(copy_in(from, to.output, traffic.clone()));
        }
    }
    let mut outward = JoinSet::new();
    for (from, to) in [(stdout, client.stdout), (stderr, client.stderr)] {
        if let (Some(from), Some(to)) = (from, to) {
            outward.spawn(copy_out(from, to, traffic.clone()));
        }
    }
    let finish = async {
        let status = collect(error).await;
        while outward.join_next().await.is_some() {}
        client.error.send(status).await?;
        client.error.finish().await;
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = finish => outcome,
        () = client.gone.cancelled() => Err(StreamError::Closed),
        () = traffic.idle(limits::STREAM_IDLE_MAX) => Err(StreamError::Slow),
    };
    inward.shutdown().await;
    outward.shutdown().await;
    runtime.closed().cancel();
    outcome
}

async fn copy_in(mut from: mpsc::Receiver<Bytes>, to: Output, traffic: Traffic) {
    while let Some(bytes) = from.recv().await {
        traffic.passed();
        if to.send(bytes).await.is_err() {
            return;
        }
    }
    to.finish().await;
}

async fn copy_out(mut from: Stream, to: Sink, traffic: Traffic) {
    while let Some(bytes) = from.input.recv().await {
        traffic.passed();
        if to.send(bytes).await.is_err() {
            return;
        }
    }
    to.finish().await;
}

async fn collect(mut stream: Stream) -> Bytes {
    let mut text = BytesMut::new();
    while let Some(bytes) = stream.input.recv().await {
        if text.len() + bytes.len() <= STATUS_BYTES_MAX {
            text.extend_from_slice(&bytes);
        }
    }
    if text.is_empty() {
        // Protocols before v4 say nothing on success; ours always says.
        text.extend_from_slice(br#"{"metadata":{},"status":"Success"}"#);
    }
    text.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_used_session_outlives_the_idle_bound() {
        let span = Duration::from_millis(5);
        let traffic = Traffic::default();
        let start = std::time::Instant::now();
        let idle = traffic.idle(span);
        tokio::pin!(idle);
        assert!(futures::poll!(&mut idle).is_pending());
        traffic.passed();
        idle.await;
        assert!(span * 2 <= start.elapsed(), "the span in which something passed does not count");
    }
}
