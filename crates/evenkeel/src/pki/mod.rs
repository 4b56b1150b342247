//! One PKI per cluster: separate authorities, leaf certificates that renew themselves, keys, and tokens to join with.
//!
//! Made on the first start, found again on the next. Nothing here is written to a log, a command line or a unit file.

mod authority;
mod bundle;
mod files;
mod identity;
mod join;
mod kubeconfig;
pub mod leaf;
mod machine;
mod mark;
mod seal;
mod server;
mod succession;

use std::io;
use std::path::PathBuf;

pub use bundle::{Lineage, hash_of_ca, trust_of};
pub use files::{Access, read, write};
pub use identity::{NodeIdentity, certificates, client_config};
pub use join::{Role, TokenText, draw};
pub use kubeconfig::Kubeconfig;
pub use leaf::{Leaf, Profile, Usage, due};
pub use machine::{Claim, MachineId, MachineKey, Proof, ProofError};
pub use mark::{MARKED_BYTES_MAX, read as read_mark};
pub use seal::{Opener, open_with, recipient, seal_to};
pub use server::{Authorities, ETCD_CA, ETCD_MEMBER, ServerNames, ServerPki};
pub use succession::{Phase, Succession};

/// Something wrong with a certificate, a key or their files.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("{path} holds no usable certificate or key: {why}")]
    Content { path: PathBuf, why: String },
    #[error("TLS settings")]
    Tls(#[from] rustls::Error),
    #[error("the system gave no randomness")]
    Randomness,
    #[error("{0}")]
    Token(String),
}

/// Fills bytes from the TLS provider's generator: for keys and tokens.
pub fn random(bytes: &mut [u8]) -> Result<(), PkiError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| PkiError::Randomness)
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}
