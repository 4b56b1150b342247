//! The TLS settings of the API port: HTTP/2 and HTTP/1.1 by ALPN, client certificates asked for but not required.
//!
//! The handshake proves that a client holds the key of the certificate it shows. Whether the certificate holds is
//! decided for each request, as upstream does it: a foreign or expired one is answered 401 and not by a broken
//! connection, and a connection that outlives its certificate loses its user.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("client certificate authority")]
    ClientCa(#[source] rustls::Error),
    #[error("client verifier")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("serving certificate")]
    Serving(#[source] rustls::Error),
}

/// What [`crate::Server::serve`] needs of one connection; made anew by its owner whenever a certificate is renewed.
#[derive(Debug)]
pub struct Serving {
    pub(crate) config: Arc<ServerConfig>,
    /// Judges the certificates that clients show.
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

/// The settings of the API port.
///
/// # Errors
/// A certificate or key that TLS cannot use.
pub fn serving(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_cas: &[CertificateDer<'static>],
) -> Result<Arc<Serving>, TlsError> {
    let clients = verifier(client_cas)?;
    let config = config(chain, key, Arc::new(Asking { clients: clients.clone() }))?;
    Ok(Arc::new(Serving { config, clients }))
}

/// Settings of a server that ends the handshake with whoever shows a certificate that does not hold.
///
/// # Errors
/// A certificate or key that TLS cannot use.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_cas: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, TlsError> {
    config(chain, key, verifier(client_cas)?)
}

fn verifier(client_cas: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in client_cas {
        roots.add(ca.clone()).map_err(TlsError::ClientCa)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.allow_unauthenticated().build().map_err(TlsError::Verifier)
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Serving)?.with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Serving)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the client proves to hold; [`Serving::clients`] judges it later.
#[derive(Debug)]
struct Asking {
    clients: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}
