//! What a request wants, held against the rules of its signer.

use api::Tree;
use api::csr::CertificateRequest;
use base64::Engine as _;

use crate::kit::value::{int, list, text, words};

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const MASTERS: &str = "system:masters";

/// The signers of this cluster; others' requests are others' business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// `kubernetes.io/kube-apiserver-client`
    Client,
    /// `kubernetes.io/kube-apiserver-client-kubelet`
    NodeClient,
    /// `kubernetes.io/kubelet-serving`
    NodeServing,
}

/// A request that its signer's rules allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub authority: Authority,
    pub request: CertificateRequest,
    pub pem: String,
    pub usages: Vec<base::SmolStr>,
    pub seconds: Option<i64>,
}

/// Why a request gets no certificate.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unwanted {
    #[error("the signer is not of this cluster")]
    Foreign,
    #[error("unable to parse the request: {why}")]
    Unreadable { why: String },
    #[error("{why}")]
    Rule { why: &'static str },
}

// === impl Authority ===

impl Authority {
    fn of(signer: &str) -> Option<Authority> {
        match signer {
            "kubernetes.io/kube-apiserver-client" => Some(Authority::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Authority::NodeClient),
            "kubernetes.io/kubelet-serving" => Some(Authority::NodeServing),
            _ => None,
        }
    }

    /// What the certificate is for, beside signatures and key agreement.
    fn purpose(self) -> &'static str {
        if self == Authority::NodeServing { "server auth" } else { "client auth" }
    }

    fn check(self, request: &CertificateRequest, usages: &[base::SmolStr]) -> Result<(), &'static str> {
        let allowed = ["digital signature", "key encipherment", self.purpose()];
        if !usages.iter().all(|usage| allowed.contains(&usage.as_str())) {
            return Err("the usages are more than this signer gives");
        }
        if !usages.iter().any(|usage| usage == self.purpose()) {
            return Err("the usages lack the one that this signer gives");
        }
        if request.organizations.iter().any(|name| name == MASTERS) {
            return Err("use of the system:masters group is not allowed");
        }
        if self == Authority::Client {
            return Ok(());
        }
        if !usages.iter().any(|usage| usage == "digital signature") {
            return Err("the usages lack digital signature");
        }
        if request.organizations != [NODES] {
            return Err("subject organization is not system:nodes");
        }
        if request.common_name.strip_prefix(NODE_PREFIX).is_none_or(str::is_empty) {
            return Err("subject common name does not begin with system:node:");
        }
        if !request.emails.is_empty() {
            return Err("email subjectAltNames are not allowed");
        }
        if !request.uris.is_empty() {
            return Err("URI subjectAltNames are not allowed");
        }
        match (self, request.dns_names.is_empty() && request.ip_addresses.is_empty()) {
            (Authority::NodeServing, true) => Err("DNS or IP subjectAltName is required"),
            (Authority::NodeClient, false) => Err("DNS and IP subjectAltNames are not allowed"),
            _ => Ok(()),
        }
    }
}

// === impl Wanted ===

impl Wanted {
    /// Reads a CertificateSigningRequest.
    ///
    /// # Errors
    /// Another's signer, a request that cannot be read, one that the signer's rules forbid.
    pub fn of(tree: &Tree) -> Result<Wanted, Unwanted> {
        let authority = Authority::of(text(tree, "/spec/signerName")).ok_or(Unwanted::Foreign)?;
        let unreadable = |why: &dyn std::fmt::Display| Unwanted::Unreadable { why: why.to_string() };
        let bytes = base64::engine::general_purpose::STANDARD.decode(text(tree, "/spec/request"));
        let bytes = bytes.map_err(|error| unreadable(&error))?;
        let request = CertificateRequest::from_pem(&bytes).map_err(|error| unreadable(&error))?;
        let pem = String::from_utf8(bytes).map_err(|error| unreadable(&error))?;
        let usages = words(list(tree, "/spec/usages"));
        authority.check(&request, &usages).map_err(|why| Unwanted::Rule { why })?;
        Ok(Wanted { authority, request, pem, usages, seconds: int(tree, "/spec/expirationSeconds") })
    }
}
