//! WebSocket on the client's side: channels (`v4.channel.k8s.io`, `v5.channel.k8s.io`), and bytes for tunnelled SPDY.

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_util::sync::CancellationToken;

use crate::limits;

pub const V5: &str = "v5.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Messages that wait for the client.
const QUEUE_MESSAGES: usize = 32;
const TUNNEL_BYTES: usize = 64 << 10;
/// First byte of a v5 message that half-closes the channel named in the second.
const CLOSE_CHANNEL: u8 = 255;
const CHANNELS_MAX: usize = 64;

/// Channels to and from one client.
pub struct Channels {
    pub inputs: Vec<Option<mpsc::Receiver<Bytes>>>,
    pub out: mpsc::Sender<(u8, Bytes)>,
    /// Cancelled when the client is gone.
    pub closed: CancellationToken,
    pump: tokio::task::JoinHandle<()>,
}

impl Channels {
    /// `inputs`: how many channels the client may write to, counted from 0.
    pub async fn start<S>(io: S, inputs: usize) -> Channels
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        assert!(inputs <= CHANNELS_MAX, "{inputs} channels");
        let socket = accept(io).await;
        let closed = CancellationToken::new();
        let (out, queue) = mpsc::channel(QUEUE_MESSAGES);
        let (senders, receivers) = (0..inputs)
            .map(|_| mpsc::channel(QUEUE_MESSAGES))
            .map(|(sender, receiver)| (Some(sender), Some(receiver)))
            .unzip();
        let pump = tokio::spawn(pump(socket, senders, queue, closed.clone()));
        Channels { inputs: receivers, out, closed, pump }
    }

    /// Sends what is queued, then the close message. Other holders of `out` must be gone.
    pub async fn close(self) {
        drop(self.out);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.pump).await;
        self.closed.cancel();
    }
}

async fn accept<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits::FRAME_BYTES_MAX))
        .max_frame_size(Some(limits::FRAME_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

async fn pump<S>(
    socket: WebSocketStream<S>,
    mut senders: Vec<Option<mpsc::Sender<Bytes>>>,
    mut queue: mpsc::Receiver<(u8, Bytes)>,
    closed: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, mut source) = socket.split();
    let done = closed.clone();
    let reading = async move {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => deliver(&mut senders, bytes).await,
                Message::Text(text) => deliver(&mut senders, Bytes::copy_from_slice(text.as_bytes())).await,
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        done.cancel();
    };
    let stop = closed.clone();
    let writing = async move {
        while let Some(Some((channel, bytes))) = stop.run_until_cancelled(queue.recv()).await {
            let mut message = BytesMut::with_capacity(bytes.len() + 1);
            message.put_u8(channel);
            message.put_slice(&bytes);
            match stop.run_until_cancelled(sink.send(Message::Binary(message.freeze()))).await {
                Some(Ok(())) => {}
                _ => break,
            }
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(close))).await;
        let _ = sink.flush().await;
    };
    let reader = tokio::spawn(async move {
        closed.run_until_cancelled(reading).await;
    });
    writing.await;
    // The client answers the close; then the socket goes.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), reader).await;
}

async fn deliver(senders: &mut [Option<mpsc::Sender<Bytes>>], mut message: Bytes) {
    if message.is_empty() {
        return;
    }
    let channel = message.split_to(1)[0];
    if channel == CLOSE_CHANNEL {
        if let Some(slot) = message.first().and_then(|which| senders.get_mut(usize::from(*which))) {
            *slot = None;
        }
        return;
    }
    if let Some(Some(sender)) = senders.get(usize::from(channel))
        && !message.is_empty()
    {
        let _ = sender.send(message).await;
    }
}

/// The messages of a WebSocket as one stream of bytes.
pub async fn tunnel<S>(io: S) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = accept(io).await;
    let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
    let (mut sink, mut source) = socket.split();
    let (mut from_us, mut to_us) = tokio::io::split(far);
    let reading = tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            let written = match message {
                Message::Binary(bytes) => to_us.write_all(&bytes).await,
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
        let _ = to_us.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = BytesMut::with_capacity(TUNNEL_BYTES);
        while let Ok(1..) = from_us.read_buf(&mut buffer).await {
            if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                break;
            }
            buffer.reserve(TUNNEL_BYTES);
        }
        let _ = sink.send(Message::Close(None)).await;
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), reading).await;
    });
    near
}
