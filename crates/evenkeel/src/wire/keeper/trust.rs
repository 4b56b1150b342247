//! Who may make programs for this cluster: public keys in the ConfigMap `kube-system/evenkeel-release-keys`, which an
//! administrator puts there, and the signed manifest by which a release names its program.
//!
//! The program that runs checks the one that comes, on a server: what a laptop says it has checked proves nothing.
//!
//! ```json
//! {"version": "0.2.0", "program": "<sha256>", "signature": "<base64 of Ed25519>"}
//! ```
//! Signed is the text `evenkeel-release\n<version>\n<sha256>\n`. A key is Ed25519's, in base64.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use api::{Gvr, Key, PatchType};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keeper::{Digest, Manifest};
use serde_json::json;
use view::{Client, PatchRequest};

use super::records::{NAMESPACE, config_maps};

const KEYS: &str = "evenkeel-release-keys";
/// Of Ed25519.
const KEY_BYTES: usize = 32;
const KEYS_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 63;

/// The keys, by the names that an administrator gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<String, String>);

/// Why nobody who is trusted vouches for a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("this cluster runs only what {trusted} signed, and this program comes without a manifest: --manifest FILE")]
    Unsigned { trusted: String },
    #[error(
        "no release key is trusted yet, so the manifest of {version} proves nothing: evenkeel release trust KEYFILE"
    )]
    NoKey { version: String },
    #[error("the manifest of {version} is not signed by anybody this cluster trusts ({trusted})")]
    Stranger { version: String, trusted: String },
    #[error("this is not the program that the manifest of {version} names: its SHA-256 is {found}")]
    OtherProgram { version: String, found: String },
    #[error("the manifest says {named}, and the program calls itself {version}")]
    OtherVersion { named: String, version: String },
}

fn is_signed_by(manifest: &Manifest, key: &str) -> bool {
    let decoded = STANDARD.decode(key).and_then(|key| Ok((key, STANDARD.decode(&manifest.signature)?)));
    decoded.is_ok_and(|(key, signature)| {
        UnparsedPublicKey::new(&ED25519, key).verify(manifest.signed().as_bytes(), &signature).is_ok()
    })
}

// === impl Keys ===

impl Keys {
    pub async fn read(client: &Client) -> Result<Keys> {
        match client.get(&config_maps(), &Key::new(NAMESPACE, KEYS)).await {
            Ok(map) => Ok(Keys(serde_json::from_value(map["data"].clone()).unwrap_or_default())),
            Err(error) if error.is_not_found() => Ok(Keys::default()),
            Err(error) => Err(error).context("read the release keys"),
        }
    }

    /// Who vouches for the program that calls itself `version`; nobody where nobody need.
    ///
    /// # Errors
    /// Where somebody must and nobody does.
    pub fn check(
        &self,
        manifest: Option<&Manifest>,
        program: &Digest,
        version: &str,
    ) -> Result<Option<String>, TrustError> {
        let trusted = self.0.keys().cloned().collect::<Vec<_>>().join(", ");
        let Some(manifest) = manifest else {
            return if self.0.is_empty() { Ok(None) } else { Err(TrustError::Unsigned { trusted }) };
        };
        let named = manifest.version.clone();
        if self.0.is_empty() {
            return Err(TrustError::NoKey { version: named });
        }
        let signer = self.0.iter().find(|(_, key)| is_signed_by(manifest, key)).map(|(name, _)| name.clone());
        let signer = signer.ok_or_else(|| TrustError::Stranger { version: named.clone(), trusted })?;
        if manifest.program != *program {
            return Err(TrustError::OtherProgram { version: named, found: program.short().to_owned() });
        }
        if manifest.version != version {
            return Err(TrustError::OtherVersion { named, version: version.to_owned() });
        }
        Ok(Some(signer))
    }

    /// Names and keys.
    pub fn list(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }
}

/// Has the cluster trust a key from now on; the text is a key file's.
pub async fn trust(client: &Client, name: &str, text: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let named = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain);
    ensure!(named, "{name:?} is no name for a key: letters, digits, dots and dashes");
    let key = STANDARD.decode(text.trim()).context("a key is base64 of an Ed25519 public key")?;
    ensure!(key.len() == KEY_BYTES, "an Ed25519 public key has {KEY_BYTES} bytes, and this has {}", key.len());
    let keys = Keys::read(client).await?;
    ensure!(keys.0.len() < KEYS_MAX, "{KEYS_MAX} keys are trusted already: evenkeel release distrust NAME");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": KEYS, "namespace": NAMESPACE},
        "data": {name: STANDARD.encode(key)},
    });
    match patch(client, &map).await {
        Err(error) if error.is_not_found() => client.create(&config_maps(), NAMESPACE, &map).await.map(drop),
        outcome => outcome,
    }
    .context("write the release keys")
}

pub async fn distrust(client: &Client, name: &str) -> Result<()> {
    let keys = Keys::read(client).await?;
    ensure!(keys.0.contains_key(name), "no key of this name is trusted");
    patch(client, &json!({"data": {name: null}})).await.context("write the release keys")
}

async fn patch(client: &Client, body: &api::Tree) -> Result<(), view::ClientError> {
    let (gvr, key): (Gvr, Key) = (config_maps(), Key::new(NAMESPACE, KEYS));
    let request = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body };
    client.patch(&request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Keys, Manifest, TrustError, distrust, trust};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use keeper::Digest;
    use view::fake::FakeApi;

    fn manifest(by: &Ed25519KeyPair, version: &str, program: &Digest) -> Manifest {
        let unsigned = Manifest { version: version.to_owned(), program: program.clone(), signature: String::new() };
        let signature = STANDARD.encode(by.sign(unsigned.signed().as_bytes()));
        Manifest { signature, ..unsigned }
    }

    #[tokio::test]
    async fn only_what_a_trusted_key_signed_is_good() {
        let (owner, other) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
        let api = FakeApi::new();
        let client = api.client();
        let (program, foreign) = (Digest::of_bytes(b"program"), Digest::of_bytes(b"another"));
        let good = manifest(&owner, "0.2.0", &program);
        let none = Keys::read(&client).await.unwrap();
        assert_eq!(none.check(None, &program, "0.2.0"), Ok(None), "nobody is trusted yet, so nobody is asked");
        assert!(matches!(none.check(Some(&good), &program, "0.2.0"), Err(TrustError::NoKey { .. })));
        let public = STANDARD.encode(owner.public_key().as_ref());
        trust(&client, "makers", &format!("{public}\n")).await.unwrap();
        let keys = Keys::read(&client).await.unwrap();
        let check =
            |manifest: Option<&Manifest>, program: &Digest, version: &str| keys.check(manifest, program, version);
        assert_eq!(check(Some(&good), &program, "0.2.0"), Ok(Some("makers".to_owned())));
        assert_eq!(check(None, &program, "0.2.0"), Err(TrustError::Unsigned { trusted: "makers".to_owned() }));
        let stranger = manifest(&other, "0.2.0", &program);
        assert!(matches!(check(Some(&stranger), &program, "0.2.0"), Err(TrustError::Stranger { .. })));
        let renamed = Manifest { version: "0.3.0".to_owned(), ..good.clone() };
        assert!(matches!(check(Some(&renamed), &program, "0.3.0"), Err(TrustError::Stranger { .. })));
        assert!(matches!(check(Some(&good), &foreign, "0.2.0"), Err(TrustError::OtherProgram { .. })));
        assert!(matches!(check(Some(&good), &program, "0.2.1"), Err(TrustError::OtherVersion { .. })));
        distrust(&client, "makers").await.unwrap();
        assert_eq!(Keys::read(&client).await.unwrap(), Keys::default());
        assert!(distrust(&client, "makers").await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_key_is_not_trusted() {
        let client = FakeApi::new().client();
        for (name, text) in [("a", "no base64!"), ("a", "c2hvcnQ="), ("a/b", "c2hvcnQ="), ("", "c2hvcnQ=")] {
            assert!(trust(&client, name, text).await.is_err(), "{name:?} {text:?}");
        }
    }
}
