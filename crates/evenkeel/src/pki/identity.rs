//! How a program shows itself to the API server and knows it in turn: TLS settings that follow renewed certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::PkiError;
use super::files::{Access, read, write};
use super::leaf::{Leaf, Profile, Renewal};
use super::machine::MachineKey;
use super::server::ServerPki;
use crate::layout::Layout;

/// What a node has: its client certificate, its kubelet's serving certificate, and whom it trusts.
pub struct NodeIdentity {
    pub client: Leaf,
    pub serving: Leaf,
    pub server_ca_pem: String,
    pub client_ca_pem: String,
}

/// TLS settings of a client that shows `leaf` and trusts only `server_ca`.
pub fn client_config(server_ca_pem: &str, leaf: Option<&Leaf>, http2: bool) -> Result<Arc<ClientConfig>, PkiError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(server_ca_pem)? {
        roots.add(ca)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(leaf.chain.clone(), leaf.key())?,
        None => builder.with_no_client_auth(),
    };
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let parsed = parsed.map_err(|error| PkiError::Token(format!("the authority's certificate: {error}")))?;
    if parsed.is_empty() {
        return Err(PkiError::Token("the authority's certificate is empty".to_owned()));
    }
    Ok(parsed)
}

// === impl NodeIdentity ===

impl NodeIdentity {
    /// When the first of its certificates is to be issued again.
    pub fn due(&self) -> Timestamp {
        self.client.due().min(self.serving.due())
    }

    /// On a server's own machine the authorities are at hand: the node's certificates are signed directly, for exactly
    /// the same names as over the join endpoint.
    pub fn of_server(
        layout: &Layout,
        pki: &ServerPki,
        node: &str,
        addresses: &BTreeSet<IpAddr>,
        now: Timestamp,
    ) -> Result<(NodeIdentity, Renewal), PkiError> {
        let folder = layout.agent_tls();
        let machine = MachineKey::load_or_draw(&layout.machine_key())?.id();
        let authorities = pki.current();
        let profile = Profile::node_client(node).of_machine(&machine).lasting(pki.leaf_life);
        let (client, first) = Leaf::load_or_issue(&folder, "node-client", &authorities.client, &profile, now)?;
        let profile = Profile::kubelet_serving(node, addresses.clone()).lasting(pki.leaf_life);
        let (serving, second) = Leaf::load_or_issue(&folder, "kubelet-serving", &authorities.server, &profile, now)?;
        let renewal = if (first, second) == (Renewal::Kept, Renewal::Kept) { Renewal::Kept } else { Renewal::Issued };
        let (server_ca_pem, client_ca_pem) = (authorities.server.pem.clone(), authorities.client.pem.clone());
        // For the process of names, which follows the file.
        let file = folder.join("server-ca.crt");
        if read(&file)?.as_deref() != Some(server_ca_pem.as_str()) {
            write(&file, server_ca_pem.as_bytes(), Access::Public)?;
        }
        Ok((NodeIdentity { client, serving, server_ca_pem, client_ca_pem }, renewal))
    }
}
