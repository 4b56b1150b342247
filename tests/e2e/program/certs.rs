//! Certificates for the programs that the server is a client of, made with openssl: an authority, and leaves of it.

use std::path::{Path, PathBuf};

use e2e::Tool;

/// An authority in a folder.
pub struct Authority {
    folder: PathBuf,
    name: &'static str,
}

impl Authority {
    pub fn make(folder: &Path, name: &'static str) -> anyhow::Result<Authority> {
        std::fs::create_dir_all(folder)?;
        let made = Authority { folder: folder.to_owned(), name };
        let (certificate, key) = (made.certificate(), made.key());
        let words = format!("{NEW} -x509 -keyout {key} -out {certificate} -days 2 -subj /CN={name}");
        Tool::new("openssl").ok(&words)?;
        Ok(made)
    }

    /// `NAME.crt` and `NAME.key` beside the authority, for an address.
    pub fn issue(&self, name: &str, address: &str) -> anyhow::Result<Leaf> {
        let path = |end: &str| self.folder.join(format!("{name}.{end}")).display().to_string();
        let (request, certificate, key) = (path("csr"), path("crt"), path("key"));
        let names = format!("-addext subjectAltName=IP:{address}");
        Tool::new("openssl").ok(&format!("{NEW} -keyout {key} -out {request} -subj /CN={name} {names}"))?;
        let signer = format!("-CA {} -CAkey {} -CAcreateserial", self.certificate(), self.key());
        let words = format!("x509 -req -in {request} {signer} -out {certificate} -days 2 -copy_extensions copy");
        Tool::new("openssl").ok(&words)?;
        Ok(Leaf { certificate, key })
    }

    pub fn certificate(&self) -> String {
        self.folder.join(format!("{}.crt", self.name)).display().to_string()
    }

    fn key(&self) -> String {
        self.folder.join(format!("{}.key", self.name)).display().to_string()
    }
}

const NEW: &str = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Paths of a certificate and its key.
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}
