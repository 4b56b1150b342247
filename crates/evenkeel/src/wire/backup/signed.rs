//! What this cluster wrote itself, told from what others could have written: `{"index": TEXT, "mac": HMAC-SHA256 of TEXT
//! under the cluster's proof key}`. Every server holds that key, and every bundle carries it.

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::kit;
use crate::layout::Layout;
use crate::pki::{Opener, hex, open_with};

/// The cluster's own key for what it wrote itself.
pub struct Key {
    mac: hmac::Key,
    opener: Opener,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    /// Named after what was signed first.
    index: String,
    mac: String,
}

// === impl Key ===

impl Key {
    pub fn of(layout: &Layout) -> Result<Key> {
        Key::parse(&kit::proof_secret(layout)?)
    }

    /// Out of the file's text, as a bundle holds it too.
    pub fn parse(text: &str) -> Result<Key> {
        let opener = Opener::secret(text)?;
        Ok(Key { mac: hmac::Key::new(hmac::HMAC_SHA256, text.trim().as_bytes()), opener })
    }

    pub fn sign(&self, text: String) -> Result<Vec<u8>> {
        let mac = self.mac(&text);
        Ok(serde_json::to_vec_pretty(&Signed { index: text, mac })?)
    }

    /// The text, where this cluster wrote it.
    pub fn read(&self, bytes: &[u8]) -> Result<String> {
        let signed: Signed = serde_json::from_slice(bytes).context("it is nothing that a cluster signed")?;
        ensure!(self.mac(&signed.index) == signed.mac, "it was not written by this cluster, or was changed");
        Ok(signed.index)
    }

    /// What was sealed to the cluster itself.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        Ok(open_with(&self.opener, sealed)?)
    }

    fn mac(&self, text: &str) -> String {
        hex(hmac::sign(&self.mac, text.as_bytes()).as_ref())
    }
}
