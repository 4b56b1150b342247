//! The client's side of the runtime's streaming server: an HTTP upgrade to SPDY/3.1.

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::StreamError;
use super::spdy::{Connection, Side};
use crate::limits;

const MESSAGE_BYTES_MAX: usize = 4096;

/// Connects to a URL that the runtime gave for one use.
pub async fn connect(url: &str, protocol: &str) -> Result<Connection, StreamError> {
    let refused = |message: String| StreamError::Runtime { message };
    let uri: Uri = url.parse().map_err(|error| refused(format!("URL {url}: {error}")))?;
    let (host, port) = (uri.host().unwrap_or("127.0.0.1"), uri.port_u16().unwrap_or(80));
    let host = host.trim_matches(['[', ']']);
    let connecting = tokio::time::timeout(limits::STREAM_CREATION_TIMEOUT, TcpStream::connect((host, port)));
    let stream = match connecting.await {
        Ok(stream) => {
            stream.map_err(|source| StreamError::Io { what: "connect to the runtime's streaming server", source })?
        }
        Err(_) => return Err(refused("no connection in time".to_owned())),
    };
    let _ = stream.set_nodelay(true);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| refused(error.to_string()))?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header("host", format!("{host}:{port}"))
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", protocol)
        .body(Empty::<Bytes>::new())
        .map_err(|error| refused(error.to_string()))?;
    let asking = tokio::time::timeout(limits::STREAM_CREATION_TIMEOUT, sender.send_request(request)).await;
    let reply =
        asking.map_err(|_| refused("no answer in time".to_owned()))?.map_err(|error| refused(error.to_string()))?;
    if reply.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = reply.status();
        let body = Limited::new(reply.into_body(), MESSAGE_BYTES_MAX).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        return Err(refused(format!("{code}: {text}")));
    }
    let upgraded = hyper::upgrade::on(reply).await.map_err(|error| refused(error.to_string()))?;
    Ok(Connection::start(TokioIo::new(upgraded), Side::Client))
}
