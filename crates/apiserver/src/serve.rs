//! Connections: TLS, HTTP/2 and HTTP/1.1 on one port, bounded in number, time and memory, drained in good order.
//!
//! Whatever arrives on the port, the worst outcome is that this one connection is closed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::SmolStr;
use futures::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{Instrument, debug, info_span, warn};

use crate::Server;
use crate::authn::Presented;
use crate::limits::{
    CONNECTIONS_MAX, DRAIN_TIMEOUT, H2_CONNECTION_WINDOW_BYTES, H2_PENDING_RESETS_MAX, H2_SEND_BUFFER_BYTES_MAX,
    H2_STREAM_WINDOW_BYTES, H2_STREAMS_MAX, HANDSHAKE_TIMEOUT, HEADER_BYTES_MAX, HEADER_READ_TIMEOUT,
    KEEP_ALIVE_INTERVAL,
};
use crate::tls::Serving;
use crate::unread;

/// Gives the TLS settings for the next connection, so that a renewed certificate needs no restart.
pub type TlsSource = Arc<dyn Fn() -> Arc<Serving> + Send + Sync>;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub address: Option<SocketAddr>,
    pub certificate: Presented,
}

impl Server {
    /// Serves until `drain` resolves, then says GOAWAY and waits for open requests, [`DRAIN_TIMEOUT`] at most.
    pub async fn serve(&self, listener: TcpListener, tls: TlsSource, drain: impl Future<Output = ()>) {
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        let mut drain = std::pin::pin!(drain.fuse());
        loop {
            let seat = seats.clone().acquire_owned();
            let (stream, address, seat) = tokio::select! { biased;
                () = &mut drain => break,
                accepted = accept(&listener, seat) => match accepted {
                    Some(accepted) => accepted,
                    None => continue,
                },
            };
            let connection = Connection { server: self.clone(), tls: tls(), address, _seat: seat };
            let span = info_span!("connection", peer = %address);
            tokio::spawn(connection.run(stream, graceful.watcher()).instrument(span));
        }
        drop(listener);
        self.begin_drain();
        if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
            warn!("requests still open after {DRAIN_TIMEOUT:?} of drain");
        }
    }
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn accept<E>(
    listener: &TcpListener,
    seat: impl Future<Output = Result<OwnedSemaphorePermit, E>>,
) -> Option<Accepted> {
    let seat = seat.await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, seat)),
        Err(error) => {
            // Out of descriptors, mostly: accepting again at once would spin.
            warn!(%error, "accept");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// One accepted connection; holds its seat until it is closed.
struct Connection {
    server: Server,
    tls: Arc<Serving>,
    address: SocketAddr,
    _seat: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, watcher: Watcher) {
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.tls.config.clone());
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%error, "TLS handshake"),
            Err(_) => return debug!("TLS handshake timed out"),
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let now = self.server.shared.deps.clock.now();
        let certificate = Presented::of(certificates, self.tls.clients.as_ref(), now);
        let revoked = revoked(self.server.shared.deps.revoked.clone(), certificate.clone());
        let peer = Peer { address: Some(self.address), certificate };
        let seen = Arc::new(AtomicBool::new(false));
        let service = {
            let (server, seen) = (self.server.clone(), seen.clone());
            service_fn(move |request: http::Request<Incoming>| {
                seen.store(true, Ordering::Relaxed);
                let (server, peer) = (server.clone(), peer.clone());
                async move {
                    let version = request.version();
                    let (request, rest) = unread::lend(request);
                    let mut response = server.answer(peer, request).await;
                    rest.settle(&mut response).await;
                    last_answer(&server, version, &mut response);
                    Ok::<_, std::convert::Infallible>(response)
                }
            })
        };
        let builder = builder();
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let mut connection = std::pin::pin!(watcher.watch(connection));
        // The header timeout of HTTP/1.1 starts with a request; this one covers peers that never begin.
        let silent = tokio::time::sleep(HEADER_READ_TIMEOUT);
        let mut revoked = std::pin::pin!(revoked);
        tokio::select! {
            ended = &mut connection => return log_end(ended),
            () = &mut revoked => return debug!("closed: the certificate was revoked"),
            () = silent => if !seen.load(Ordering::Relaxed) { return debug!("no request in time") },
        }
        tokio::select! {
            ended = connection => log_end(ended),
            // Its watches and streams end with it.
            () = revoked => debug!("closed: the certificate was revoked"),
        }
    }
}

/// Who leaves takes no further request on a connection of HTTP/1.1: it might come in the moment of the end.
fn last_answer<B>(server: &Server, version: Version, response: &mut http::Response<B>) {
    let plain = version < Version::HTTP_2 && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if plain && server.shared.is_leaving() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Resolves once a certificate is revoked; whoever comes with one that is already is told with every request.
async fn revoked(mut revoked: watch::Receiver<BTreeSet<SmolStr>>, certificate: Presented) {
    let already = certificate.is_revoked(&revoked.borrow());
    if already || revoked.wait_for(|revoked| certificate.is_revoked(revoked)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        debug!(error = %base::Chain(error.as_ref()), "connection ended");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let mut h1 = builder.http1();
    h1.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(HEADER_BYTES_MAX as usize * 4);
    h1.keep_alive(true);
    let mut h2 = builder.http2();
    h2.timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_INTERVAL);
    builder
}
