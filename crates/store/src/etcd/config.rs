//! How to reach etcd: endpoints, TLS, and one channel over both.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest a single request may take before its outcome counts as unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead peer is found in the sum of these.
const PING_PERIOD: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Gives the TLS client configuration: certificate, key and roots. Asked at every connection, so that renewed
/// certificates are used.
pub type TlsProvider = Arc<dyn Fn() -> Arc<rustls::ClientConfig> + Send + Sync>;

/// Endpoints that come and go, best known now. Asked at every connection.
pub type EndpointProvider = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Where etcd is.
#[derive(Clone)]
pub struct Config {
    /// `http://host:port` or, with `tls`, `https://host:port`.
    pub endpoints: Vec<String>,
    /// Tried after those: the members that joined since.
    pub others: Option<EndpointProvider>,
    /// Everything of ours is below this: `/evenkeel`.
    pub prefix: String,
    pub tls: Option<TlsProvider>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no etcd endpoint is given")]
    NoEndpoint,
    #[error("etcd endpoint {text:?} is not a URL of the form http(s)://host:port")]
    Endpoint { text: String },
    #[error("etcd endpoint {text:?} needs TLS, and no CA is given to know it by")]
    NoTls { text: String },
}

/// No connection was made, so nothing was sent: a write that fails with this certainly did not happen.
#[derive(Debug, thiserror::Error)]
#[error("connect to etcd")]
pub(super) struct NotConnected(#[source] io::Error);

pub(super) struct Peer {
    host: String,
    port: u16,
    tls: Option<TlsProvider>,
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One channel over all endpoints: every connection goes to the first that answers, starting at the last good one.
pub(super) fn channel(config: &Config) -> Result<Channel, ConnectError> {
    channel_within(config, REQUEST_TIMEOUT)
}

/// As [`channel`], where a single request may take longer or shorter.
pub(super) fn channel_within(config: &Config, timeout: Duration) -> Result<Channel, ConnectError> {
    // What is wrong with them is told now.
    peers(config)?;
    let config = config.clone();
    let last_good = Arc::new(AtomicUsize::new(0));
    let connector = tower::service_fn(move |_: Uri| {
        let (config, last_good) = (config.clone(), last_good.clone());
        async move {
            let peers = peers(&config).map_err(|error| NotConnected(io::Error::other(error)))?;
            first_that_answers(&peers, &last_good).await.map(TokioIo::new).map_err(NotConnected)
        }
    });
    // TLS is ours, below tonic, and so is the choice of the peer: to tonic there is one plain endpoint.
    let endpoint = Endpoint::from_static("http://etcd")
        .timeout(timeout)
        .http2_keep_alive_interval(PING_PERIOD)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

pub(super) fn peers(config: &Config) -> Result<Vec<Peer>, ConnectError> {
    let mut endpoints = config.endpoints.clone();
    let others = config.others.as_ref().map(|others| others()).unwrap_or_default();
    endpoints.extend(others.into_iter().filter(|other| !config.endpoints.contains(other)));
    let peers = endpoints.iter().map(|text| peer(text, config)).collect::<Result<Vec<Peer>, _>>()?;
    if peers.is_empty() { Err(ConnectError::NoEndpoint) } else { Ok(peers) }
}

fn peer(text: &str, config: &Config) -> Result<Peer, ConnectError> {
    let wrong = || ConnectError::Endpoint { text: text.to_owned() };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let (host, port) = (uri.host().ok_or_else(wrong)?, uri.port_u16().unwrap_or(2379));
    let tls = match (uri.scheme_str(), &config.tls) {
        (Some("http"), _) => None,
        (Some("https"), Some(tls)) => Some(tls.clone()),
        (Some("https"), None) => return Err(ConnectError::NoTls { text: text.to_owned() }),
        _ => return Err(wrong()),
    };
    Ok(Peer { host: host.trim_matches(['[', ']']).to_owned(), port, tls })
}

pub(super) async fn first_that_answers(peers: &[Peer], last_good: &AtomicUsize) -> io::Result<Box<dyn Stream>> {
    let start = last_good.load(Ordering::Relaxed);
    let mut error = None;
    for offset in 0..peers.len() {
        let index = (start + offset) % peers.len();
        match tokio::time::timeout(CONNECT_TIMEOUT, connect(&peers[index])).await {
            Ok(Ok(stream)) => {
                last_good.store(index, Ordering::Relaxed);
                return Ok(stream);
            }
            Ok(Err(failed)) => error = Some(failed),
            Err(_) => error = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(error.unwrap_or_else(|| io::ErrorKind::NotConnected.into()))
}

async fn connect(peer: &Peer) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((peer.host.as_str(), peer.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &peer.tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(peer.host.clone()).map_err(io::Error::other)?;
    let mut config = tls().as_ref().clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}
