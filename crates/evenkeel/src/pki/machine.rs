//! What a machine is: a key of its own, drawn at its first start. It proves every request that a machine makes of its
//! cluster, so that neither a name, nor an address, nor a join token can take another machine's place.
//!
//! A proof names the cluster, what is asked and when: it is of no use elsewhere, for anything else, or later. Within its
//! span it can only be repeated, which gives certificates for keys that the repeater does not have.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, SigningKey};
use serde::{Deserialize, Serialize};

use super::files::{Access, read, write};
use super::{PkiError, hex, sha256_hex};

/// How far the clocks of two machines may be apart. Certificates allow for as much.
const CLOCKS_APART_MAX: SignedDuration = SignedDuration::from_mins(10);
/// An uncompressed point of P-256, in hexadecimal.
const PUBLIC_KEY_DIGITS: usize = 130;
/// The longest signature of P-256 in DER, in hexadecimal.
const SIGNATURE_DIGITS_MAX: usize = 144;
/// How a client certificate names its machine: a URI among its names.
pub const MACHINE_URI: &str = "evenkeel:machine:";

/// The key of this machine. Cheap to clone.
#[derive(Clone)]
pub struct MachineKey {
    pair: Arc<KeyPair>,
}

/// A machine as others know it: SHA-256 of its public key, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MachineId(String);

/// What a machine asks for, and of which cluster.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Hash of the server authority.
    pub cluster: &'a str,
    /// The path that is asked.
    pub purpose: &'a str,
    pub content: &'a str,
}

/// That the holder of a machine's key made a claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    public_key: String,
    time: Timestamp,
    signature: String,
}

/// Why a proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("this machine's clock reads {theirs}, the server's {ours}; set it right, then try again")]
    Clock { theirs: Timestamp, ours: Timestamp },
    #[error("the request is not signed with the machine's key, or was made for another cluster")]
    Signature,
}

// === impl MachineKey ===

impl MachineKey {
    /// The key in a file; drawn where there is none.
    pub fn load_or_draw(path: &Path) -> Result<MachineKey, PkiError> {
        if let Some(text) = read(path)? {
            let content = |error: rcgen::Error| PkiError::Content { path: path.to_owned(), why: error.to_string() };
            return Ok(MachineKey { pair: Arc::new(KeyPair::from_pem(&text).map_err(content)?) });
        }
        let pair = KeyPair::generate()?;
        write(path, pair.serialize_pem().as_bytes(), Access::Secret)?;
        Ok(MachineKey { pair: Arc::new(pair) })
    }

    pub fn id(&self) -> MachineId {
        MachineId(sha256_hex(self.pair.public_key_raw()))
    }

    pub fn prove(&self, claim: &Claim<'_>, now: Timestamp) -> Result<Proof, PkiError> {
        let signature = self.pair.sign(claim.text(now).as_bytes())?;
        Ok(Proof { public_key: hex(self.pair.public_key_raw()), time: now, signature: hex(&signature) })
    }
}

// === impl MachineId ===

impl MachineId {
    /// As it is written.
    pub fn of_digits(digits: &str) -> MachineId {
        MachineId(digits.to_owned())
    }

    /// As certificates name it.
    pub fn uri(&self) -> String {
        format!("{MACHINE_URI}{}", self.0)
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Claim ===

impl Claim<'_> {
    /// What is signed. The hash keeps the lines apart from whatever is asked.
    fn text(&self, time: Timestamp) -> String {
        let Claim { cluster, purpose, content } = self;
        format!("evenkeel machine v1\n{cluster}\n{purpose}\n{time}\n{}\n", sha256_hex(content.as_bytes()))
    }
}

// === impl Proof ===

impl Proof {
    /// The machine that made this claim.
    pub fn verify(&self, claim: &Claim<'_>, now: Timestamp) -> Result<MachineId, ProofError> {
        if self.public_key.len() != PUBLIC_KEY_DIGITS || self.signature.len() > SIGNATURE_DIGITS_MAX {
            return Err(ProofError::Signature);
        }
        let (key, signature) = (unhex(&self.public_key), unhex(&self.signature));
        let (key, signature) = (key.ok_or(ProofError::Signature)?, signature.ok_or(ProofError::Signature)?);
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key);
        let text = claim.text(self.time);
        public.verify(text.as_bytes(), &signature).map_err(|_| ProofError::Signature)?;
        if now.duration_since(self.time).abs() > CLOCKS_APART_MAX {
            return Err(ProofError::Clock { theirs: self.time, ours: now });
        }
        Ok(MachineId(sha256_hex(&key)))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::{Claim, MachineKey, ProofError};
    use jiff::{SignedDuration, Timestamp};

    const CLAIM: Claim<'_> = Claim { cluster: "c", purpose: "/join", content: "{}" };

    #[test]
    fn a_key_is_drawn_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine/key");
        let first = MachineKey::load_or_draw(&path).unwrap();
        assert_eq!(first.id(), MachineKey::load_or_draw(&path).unwrap().id());
        std::fs::write(&path, "half of it").unwrap();
        assert!(MachineKey::load_or_draw(&path).is_err(), "a damaged key is not replaced in silence");
    }

    #[test]
    fn a_proof_holds_for_its_claim_its_cluster_and_its_time_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = MachineKey::load_or_draw(&folder.path().join("key")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let proof = key.prove(&CLAIM, now).unwrap();
        assert_eq!(proof.verify(&CLAIM, now), Ok(key.id()));
        let refused = Err(ProofError::Signature);
        assert_eq!(proof.verify(&Claim { cluster: "d", ..CLAIM }, now), refused, "another cluster");
        assert_eq!(proof.verify(&Claim { purpose: "/leave", ..CLAIM }, now), refused, "something else");
        assert_eq!(proof.verify(&Claim { content: "{ }", ..CLAIM }, now), refused, "an altered request");
        let later = now + SignedDuration::from_mins(11);
        assert_eq!(proof.verify(&CLAIM, later), Err(ProofError::Clock { theirs: now, ours: later }));
        let mut other = proof.clone();
        other.public_key.replace_range(..1, "é");
        assert_eq!(other.verify(&CLAIM, now), refused);
    }
}
