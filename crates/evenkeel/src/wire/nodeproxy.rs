//! How the API server reaches kubelets (its own client certificate, the server authority's trust) and workloads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ByteStream, NodeAddress, NodeProxy};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The adapter. `kubelets` is replaced when the client certificate is renewed.
pub struct Proxy {
    kubelets: Arc<ArcSwap<ClientConfig>>,
    unverified: Arc<ClientConfig>,
}

impl Proxy {
    pub fn new(kubelets: Arc<ArcSwap<ClientConfig>>) -> Result<Proxy, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(Unverified(provider.clone()));
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let unverified = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Ok(Proxy { kubelets, unverified: Arc::new(unverified) })
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

/// Upstream's proxy subresource does not verify workloads' certificates either: they are nobody's in particular.
#[derive(Debug)]
pub struct Unverified(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
