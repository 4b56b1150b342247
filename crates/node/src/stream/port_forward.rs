//! port-forward: each pair of streams (data, error) of the client joined to a pair at the runtime.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::StreamError;
use super::spdy::{Connection, Output, Side, Stream};
use super::websocket::Channels;
use crate::limits;

pub const PROTOCOL: &str = "portforward.k8s.io";
/// Ports one WebSocket client may ask for.
const PORTS_MAX: usize = 16;

/// Serves a client that speaks SPDY, directly or inside a WebSocket.
pub async fn serve_spdy<S>(io: S, runtime: Connection) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut client = Connection::start(io, Side::Server);
    let gone = runtime.closed();
    let mut pairs = JoinSet::new();
    loop {
        tokio::select! {
            stream = client.accept() => match stream {
                None => break,
                Some(stream) => match runtime.open(stream.headers.clone()).await {
                    Ok(far) => {
                        pairs.spawn(join(stream, far));
                    }
                    Err(_) => stream.output.reset().await,
                },
            },
            Some(_) = pairs.join_next(), if !pairs.is_empty() => {}
            () = gone.cancelled() => break,
            () = tokio::time::sleep(limits::STREAM_IDLE_MAX), if pairs.is_empty() => break,
        }
    }
    pairs.shutdown().await;
    gone.cancel();
    client.close().await;
    Ok(())
}

async fn join(near: Stream, far: Stream) {
    let (near_in, near_out, far_in, far_out) = (near.input, near.output, far.input, far.output);
    tokio::join!(copy(near_in, far_out), copy(far_in, near_out));
}

async fn copy(mut from: mpsc::Receiver<Bytes>, to: Output) {
    while let Some(bytes) = from.recv().await {
        if to.send(bytes).await.is_err() {
            return;
        }
    }
    to.finish().await;
}

/// Serves a client that names its ports in the query and gets two channels for each (data, error).
pub async fn serve_websocket<S>(io: S, ports: &[u16], runtime: Connection) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ports = &ports[..ports.len().min(PORTS_MAX)];
    let mut channels = Channels::start(io, ports.len() * 2).await;
    // A client of this protocol cannot end its half: the pod's end of every connection is the end of it all.
    let (mut from_pod, mut to_pod) = (JoinSet::new(), JoinSet::new());
    for (index, port) in ports.iter().enumerate() {
        let number = |kind: usize| u8::try_from(index * 2 + kind).expect("ports are few");
        for (kind, word) in [(1, "error"), (0, "data")] {
            let headers =
                [("streamtype", word.to_owned()), ("port", port.to_string()), ("requestid", index.to_string())];
            let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
            let far = runtime.open(headers).await?;
            // The first message of each channel names its port.
            let hello = Bytes::copy_from_slice(&port.to_le_bytes());
            let _ = channels.out.send((number(kind), hello)).await;
            if kind == 0
                && let Some(input) = channels.inputs[index * 2].take()
            {
                to_pod.spawn(copy(input, far.output));
            }
            let (channel, out, mut input) = (number(kind), channels.out.clone(), far.input);
            from_pod.spawn(async move {
                while let Some(bytes) = input.recv().await {
                    if out.send((channel, bytes)).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
    tokio::select! {
        () = channels.closed.cancelled() => {}
        () = async { while from_pod.join_next().await.is_some() {} } => {}
    }
    from_pod.shutdown().await;
    to_pod.shutdown().await;
    runtime.closed().cancel();
    channels.close().await;
    Ok(())
}
