//! The transport over TLS: one HTTP/2 connection shared by all requests and watches, opened again when it breaks, to
//! whichever of several servers answers first.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::{ClientError, ResponseBody, Transport};

const HTTPS_PORT: u16 = 443;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where another server may be asked instead: a machine without power answers nothing at all.
const CONNECT_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(2);
/// hyper's 64 KB default stalls a watch behind a large list; upstream's servers use 256 KB a stream, 25 MB in all.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A dead peer is noticed within interval + timeout, also by a watch that is silent for good reasons.
const PING_INTERVAL: Duration = Duration::from_secs(4);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Gives the TLS configuration for the next request: a renewed certificate is used without a restart. The same one as long
/// as nothing was renewed.
pub type TlsConfig = Arc<dyn Fn() -> Arc<rustls::ClientConfig> + Send + Sync>;

/// Where an API server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    /// The name its certificate must carry; the host by default.
    pub server_name: String,
}

/// Gives the API servers that are known when a connection is opened, the preferred first. Never empty.
pub type Endpoints = Arc<dyn Fn() -> Vec<Endpoint> + Send + Sync>;

/// Talks to one of several API servers at a time.
pub struct Https {
    endpoints: Endpoints,
    tls: TlsConfig,
    shared: Mutex<Option<Shared>>,
}

/// The connection that requests share, and what it was opened with.
struct Shared {
    endpoint: Endpoint,
    config: Arc<rustls::ClientConfig>,
    sender: http2::SendRequest<Full<Bytes>>,
    /// Its server says that it cannot serve now: the next request tries the others first.
    ailing: bool,
}

enum Opened {
    Http2(http2::SendRequest<Full<Bytes>>),
    Http1(http1::SendRequest<Full<Bytes>>),
}

/// A text that names no API server.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an https:// address of an API server")]
pub struct EndpointError {
    pub text: String,
}

// === impl Endpoint ===

impl Endpoint {
    pub fn new(host: &str, port: u16) -> Endpoint {
        let server_name = host.trim_matches(['[', ']']).to_owned();
        Endpoint { host: server_name.clone(), port, server_name }
    }

    /// Reads `https://host:port`, the port being 6443 by default.
    pub fn parse(url: &str) -> Result<Endpoint, EndpointError> {
        let error = || EndpointError { text: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| error())?;
        if uri.scheme_str() != Some("https") {
            return Err(error());
        }
        let host = uri.host().ok_or_else(error)?;
        Ok(Endpoint::new(host, uri.port_u16().unwrap_or(6443)))
    }

    pub fn url(&self) -> String {
        format!("https://{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// Host and port of a request, without the port that HTTPS has anyway: signatures over a Host header are made so.
    fn authority(&self) -> String {
        let host = self.bracketed();
        if self.port == HTTPS_PORT { host } else { format!("{host}:{}", self.port) }
    }
}

// === impl Https ===

impl Https {
    /// The configuration's ALPN decides: `h2` shares one connection, anything else opens one per request.
    pub fn new(endpoint: Endpoint, tls: TlsConfig) -> Https {
        Https::among(Arc::new(move || vec![endpoint.clone()]), tls)
    }

    /// As [`Https::new`], over whichever of several servers can be reached.
    pub fn among(endpoints: Endpoints, tls: TlsConfig) -> Https {
        Https { endpoints, tls, shared: Mutex::new(None) }
    }

    /// A sender on the shared connection, opening it when there is none that works, and the server at its end.
    ///
    /// A connection carries the certificate it was opened with, and servers look at that one with every request: after a
    /// renewal new requests take a new connection. What runs on the old one goes on there.
    async fn sender(&self) -> Result<(Endpoint, Opened), ClientError> {
        let mut shared = self.shared.lock().await;
        let config = (self.tls)();
        let fits =
            |shared: &&Shared| !shared.sender.is_closed() && !shared.ailing && Arc::ptr_eq(&shared.config, &config);
        if let Some(shared) = shared.as_ref().filter(fits) {
            return Ok((shared.endpoint.clone(), Opened::Http2(shared.sender.clone())));
        }
        let failed = shared.take().filter(|shared| shared.sender.is_closed() || shared.ailing);
        let (endpoint, opened) = self.open_any(&config, failed.map(|shared| shared.endpoint)).await?;
        if let Opened::Http2(sender) = &opened {
            let (endpoint, sender) = (endpoint.clone(), sender.clone());
            *shared = Some(Shared { endpoint, config, sender, ailing: false });
        }
        Ok((endpoint, opened))
    }

    /// The first server that takes a connection; the one that failed before is tried last.
    async fn open_any(
        &self,
        config: &Arc<rustls::ClientConfig>,
        failed: Option<Endpoint>,
    ) -> Result<(Endpoint, Opened), ClientError> {
        let mut endpoints = (self.endpoints)();
        endpoints.sort_by_key(|endpoint| failed.as_ref() == Some(endpoint));
        let within = if endpoints.len() > 1 { CONNECT_TIMEOUT_OF_SEVERAL } else { CONNECT_TIMEOUT };
        let mut last = ClientError::Timeout(within);
        for endpoint in endpoints {
            match tokio::time::timeout(within, open(&endpoint, config.clone())).await {
                Ok(Ok(opened)) => return Ok((endpoint, opened)),
                Ok(Err(error)) => last = error,
                Err(_) => last = ClientError::Timeout(within),
            }
        }
        Err(last)
    }

    /// A server that cannot serve is left for the others, by what comes after this.
    async fn judge(&self, endpoint: &Endpoint, status: StatusCode) {
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
            && (self.endpoints)().len() > 1
            && let Some(shared) = self.shared.lock().await.as_mut().filter(|shared| shared.endpoint == *endpoint)
        {
            shared.ailing = true;
        }
    }
}

async fn open(endpoint: &Endpoint, config: Arc<rustls::ClientConfig>) -> Result<Opened, ClientError> {
    let name = ServerName::try_from(endpoint.server_name.clone()).map_err(ClientError::transport)?;
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
    let stream = stream.map_err(ClientError::transport)?;
    stream.set_nodelay(true).map_err(ClientError::transport)?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(ClientError::transport)?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::transport)?;
        // Ends with the connection, which ends when the last sender and stream are gone.
        tokio::spawn(connection);
        return Ok(Opened::Http2(sender));
    }
    let (sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(ClientError::transport)?;
    tokio::spawn(connection);
    Ok(Opened::Http1(sender))
}

#[async_trait]
impl Transport for Https {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>, ClientError> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let (endpoint, opened) = self.sender().await?;
        let authority = endpoint.authority();
        let response = match opened {
            Opened::Http2(mut sender) => {
                head.uri = format!("https://{authority}{path}").parse().map_err(ClientError::transport)?;
                head.version = http::Version::HTTP_2;
                sender.ready().await.map_err(ClientError::transport)?;
                sender.send_request(Request::from_parts(head, Full::new(body))).await
            }
            Opened::Http1(mut sender) => {
                head.uri = path.parse().map_err(ClientError::transport)?;
                let host = authority.parse().map_err(ClientError::transport)?;
                head.headers.insert(http::header::HOST, host);
                sender.send_request(Request::from_parts(head, Full::new(body))).await
            }
        };
        let response = response.map_err(ClientError::transport)?;
        self.judge(&endpoint, response.status()).await;
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn endpoints_parse_with_the_default_port() {
        assert_eq!(Endpoint::parse("https://10.0.0.1").unwrap().port, 6443);
        let six = Endpoint::parse("https://[fd00::1]:7443").unwrap();
        assert_eq!((six.host.as_str(), six.url().as_str()), ("fd00::1", "https://[fd00::1]:7443"));
        assert_eq!(Endpoint::new("s3.example.org", 443).authority(), "s3.example.org");
        assert_eq!(Endpoint::new("fd00::1", 6443).authority(), "[fd00::1]:6443");
        assert!(Endpoint::parse("http://10.0.0.1").is_err());
        assert!(Endpoint::parse("10.0.0.1:6443").is_err());
    }
}
