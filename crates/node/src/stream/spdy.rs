//! A SPDY/3.1 connection over any byte stream: many streams, one reader task, one writer task.
//!
//! Flow control is TCP's: as the peers (the runtime's streaming server, kubectl) we neither send nor wait for window
//! updates. Every queue is bounded; a stream that nobody reads stops its own connection and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::StreamError;
use super::frame::{Decoder, Encoder, Frame, Headers};
use crate::limits;

/// Frames that wait for a socket, and chunks that wait for a stream's reader.
const QUEUE_FRAMES: usize = 32;
const CHUNK_BYTES: usize = 32 << 10;
const RESET_REFUSED: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

pub struct Connection {
    out: mpsc::Sender<Frame>,
    streams: Streams,
    next: AtomicU32,
    incoming: mpsc::Receiver<Stream>,
    /// Cancelled when the peer is gone, or by `close`.
    closed: CancellationToken,
    writer: tokio::task::JoinHandle<()>,
}

type Streams = Arc<Mutex<BTreeMap<u32, mpsc::Sender<Bytes>>>>;

/// One stream; both directions end on their own.
pub struct Stream {
    pub headers: Headers,
    pub input: mpsc::Receiver<Bytes>,
    pub output: Output,
}

/// The sending half.
#[derive(Clone)]
pub struct Output {
    id: u32,
    out: mpsc::Sender<Frame>,
}

impl Connection {
    pub fn start<S>(io: S, side: Side) -> Connection
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(io);
        let (out, queue) = mpsc::channel(QUEUE_FRAMES);
        let (arrived, incoming) = mpsc::channel(QUEUE_FRAMES);
        let closed = CancellationToken::new();
        let streams = Streams::default();
        let reading = Reading { streams: streams.clone(), out: out.clone(), arrived };
        let done = closed.clone();
        tokio::spawn(async move {
            let outcome = done.run_until_cancelled(reading.run(reader)).await;
            tracing::trace!(?outcome, "stream connection ended");
            done.cancel();
        });
        let writer = tokio::spawn(write(writer, queue, closed.clone()));
        let first = if side == Side::Client { 1 } else { 2 };
        Connection { out, streams, next: AtomicU32::new(first), incoming, closed, writer }
    }

    /// A stream the peer opened; None when the peer is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        tokio::select! { biased;
            stream = self.incoming.recv() => stream,
            () = self.closed.cancelled() => None,
        }
    }

    pub async fn open(&self, headers: Headers) -> Result<Stream, StreamError> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let (sender, input) = mpsc::channel(QUEUE_FRAMES);
        self.streams.lock().expect("no holder of this lock panics").insert(id, sender);
        let frame = Frame::SynStream { id, fin: false, headers: headers.clone() };
        self.out.send(frame).await.map_err(|_| StreamError::Closed)?;
        Ok(Stream { headers, input, output: Output { id, out: self.out.clone() } })
    }

    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Flushes what is queued, says goodbye and closes. Outputs that are still held must be dropped soon.
    pub async fn close(self) {
        let _ = self.out.send(Frame::GoAway { last: 0 }).await;
        let Connection { out, writer, closed, .. } = self;
        drop(out);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), writer).await;
        closed.cancel();
    }
}

impl Stream {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

impl Output {
    pub async fn send(&self, bytes: Bytes) -> Result<(), StreamError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(CHUNK_BYTES));
            let frame = Frame::Data { id: self.id, fin: false, bytes };
            self.out.send(frame).await.map_err(|_| StreamError::Closed)?;
        }
        Ok(())
    }

    /// Nothing more will be sent; the other direction stays open.
    pub async fn finish(&self) {
        let _ = self.out.send(Frame::Data { id: self.id, fin: true, bytes: Bytes::new() }).await;
    }

    pub async fn reset(&self) {
        let _ = self.out.send(Frame::Reset { id: self.id, status: RESET_REFUSED }).await;
    }
}

struct Reading {
    streams: Streams,
    out: mpsc::Sender<Frame>,
    arrived: mpsc::Sender<Stream>,
}

impl Reading {
    async fn run<R: AsyncRead + Unpin>(self, mut reader: R) -> Result<(), StreamError> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            while let Some(frame) = decoder.decode(&mut buffer).map_err(StreamError::Frame)? {
                self.on_frame(frame).await?;
            }
            let read = reader.read_buf(&mut buffer).await;
            if read.map_err(|source| StreamError::Io { what: "read stream", source })? == 0 {
                return Ok(());
            }
        }
    }

    async fn on_frame(&self, frame: Frame) -> Result<(), StreamError> {
        match frame {
            Frame::SynStream { id, fin, headers } => self.on_open(id, fin, headers).await?,
            Frame::Data { id, fin, bytes } => {
                let sender = self.streams.lock().expect("no holder of this lock panics").get(&id).cloned();
                if let Some(sender) = sender.filter(|_| !bytes.is_empty()) {
                    // A reader that is gone does not want it.
                    let _ = sender.send(bytes).await;
                }
                if fin {
                    self.end(id);
                }
            }
            Frame::SynReply { id, fin: true, .. } | Frame::Headers { id, fin: true, .. } | Frame::Reset { id, .. } => {
                self.end(id);
            }
            // Only the peer's pings are answered; ours (there are none) would come back.
            Frame::Ping(id) => {
                let _ = self.out.try_send(Frame::Ping(id));
            }
            Frame::GoAway { .. } | Frame::Settings | Frame::WindowUpdate { .. } => {}
            Frame::SynReply { .. } | Frame::Headers { .. } => {}
        }
        Ok(())
    }

    async fn on_open(&self, id: u32, fin: bool, headers: Headers) -> Result<(), StreamError> {
        let (sender, input) = mpsc::channel(QUEUE_FRAMES);
        {
            let mut streams = self.streams.lock().expect("no holder of this lock panics");
            streams.retain(|_, sender| !sender.is_closed());
            if limits::SPDY_STREAMS_MAX <= streams.len() {
                return Err(StreamError::Closed);
            }
            if !fin {
                streams.insert(id, sender);
            }
        }
        let reply = Frame::SynReply { id, fin: false, headers: Headers::new() };
        self.out.send(reply).await.map_err(|_| StreamError::Closed)?;
        let stream = Stream { headers, input, output: Output { id, out: self.out.clone() } };
        self.arrived.send(stream).await.map_err(|_| StreamError::Closed)
    }

    fn end(&self, id: u32) {
        self.streams.lock().expect("no holder of this lock panics").remove(&id);
    }
}

impl Drop for Reading {
    /// Readers of streams see the end when the connection has ended.
    fn drop(&mut self) {
        self.streams.lock().expect("no holder of this lock panics").clear();
    }
}

async fn write<W: AsyncWrite + Unpin>(mut writer: W, mut queue: mpsc::Receiver<Frame>, closed: CancellationToken) {
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::new();
    while let Some(Some(frame)) = closed.run_until_cancelled(queue.recv()).await {
        encoder.encode(&frame, &mut buffer);
        let mut goodbye = matches!(frame, Frame::GoAway { .. });
        while let Ok(frame) = queue.try_recv() {
            encoder.encode(&frame, &mut buffer);
            goodbye |= matches!(frame, Frame::GoAway { .. });
            if CHUNK_BYTES < buffer.len() {
                break;
            }
        }
        let sending = async {
            writer.write_all_buf(&mut buffer).await?;
            writer.flush().await
        };
        match closed.run_until_cancelled(sending).await {
            Some(Ok(())) if !goodbye => buffer.clear(),
            _ => break,
        }
    }
    let _ = writer.shutdown().await;
    if !closed.is_cancelled() {
        // Give the peer a moment to read; the reader ends when it hangs up.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), closed.cancelled()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_ends_talk_and_half_close() {
        let (a, b) = tokio::io::duplex(1024);
        let client = Connection::start(a, Side::Client);
        let mut server = Connection::start(b, Side::Server);
        let mut stdin = client.open(vec![("streamType".into(), "stdin".into())]).await.unwrap();
        let mut seen = server.accept().await.unwrap();
        assert_eq!(seen.header("streamtype"), "stdin");
        let big = Bytes::from(vec![7u8; 100_000]);
        let (send, sent) = (stdin.output.clone(), big.clone());
        tokio::spawn(async move {
            send.send(sent).await.unwrap();
            send.finish().await;
        });
        let mut got = Vec::new();
        while let Some(bytes) = seen.input.recv().await {
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got, big);
        // The other way is still open.
        seen.output.send(Bytes::from_static(b"bye")).await.unwrap();
        seen.output.finish().await;
        assert_eq!(stdin.input.recv().await.unwrap(), "bye");
        assert!(stdin.input.recv().await.is_none());
        drop(seen);
        server.close().await;
        client.closed().cancelled().await;
    }
}
