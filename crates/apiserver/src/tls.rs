//! The TLS settings of the API port: HTTP/2 and HTTP/1.1 by ALPN, client certificates asked for but not required.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("client certificate authority")]
    ClientCa(#[source] rustls::Error),
    #[error("client verifier")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("serving certificate")]
    Serving(#[source] rustls::Error),
}

/// A configuration for [`crate::Server::serve`]; made anew by its owner whenever a certificate is renewed.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_cas: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in client_cas {
        roots.add(ca.clone()).map_err(TlsError::ClientCa)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.allow_unauthenticated().build().map_err(TlsError::Verifier)?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Serving)?.with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Serving)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
