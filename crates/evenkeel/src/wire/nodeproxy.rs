//! How the API server reaches kubelets (its own client certificate, the server authority's trust) and workloads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ByteStream, NodeAddress, NodeProxy};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The adapter. `kubelets` is replaced when the client certificate is renewed.
pub struct Proxy {
    kubelets: Arc<ArcSwap<ClientConfig>>,
    /// Upstream's proxy subresource does not verify workloads' certificates either: they are nobody's in particular.
    unverified: Arc<ClientConfig>,
}

impl Proxy {
    pub fn new(kubelets: Arc<ArcSwap<ClientConfig>>) -> Result<Proxy, rustls::Error> {
        Ok(Proxy { kubelets, unverified: Arc::new(view::unverified_config()?) })
    }
}

#[async_trait]
impl NodeProxy for Proxy {
    async fn connect(&self, node: &NodeAddress) -> io::Result<Box<dyn ByteStream>> {
        // The certificate must be the node's by name: an address may have passed to another machine.
        let name = ServerName::try_from(node.name.clone()).map_err(io::Error::other)?;
        let stream = tcp(&node.host, node.port).await?;
        let connector = TlsConnector::from(self.kubelets.load_full());
        Ok(Box::new(tokio::time::timeout(DIAL_TIMEOUT, connector.connect(name, stream)).await??))
    }

    async fn dial(&self, host: &str, port: u16, tls: bool) -> io::Result<Box<dyn ByteStream>> {
        let stream = tcp(host, port).await?;
        if !tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.unverified.clone());
        Ok(Box::new(tokio::time::timeout(DIAL_TIMEOUT, connector.connect(name, stream)).await??))
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((host, port))).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
