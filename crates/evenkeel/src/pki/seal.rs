//! Sealing of what a backup must not show: readable with the recipient's secret key, or with a passphrase.
//!
//! ```text
//! "EVKSEAL" 0x01        magic and format version
//! 0x01 pub(32)          for a key: the sender's one-time X25519 public key
//! 0x02 salt(16) u32     for a passphrase: PBKDF2-HMAC-SHA256 salt and iterations (big endian)
//! ciphertext            AES-256-GCM, header as associated data, nonce zero: every sealing has a key of its own
//! ```
//! For a key the AES key is HKDF-SHA256 of the X25519 secret, salted with both public keys.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{hkdf, pbkdf2};

use super::{PkiError, hex, random};

const MAGIC: &[u8; 8] = b"EVKSEAL\x01";
const FOR_KEY: u8 = 1;
const FOR_PASSPHRASE: u8 = 2;
const INFO: &[u8] = b"evenkeel backup keys";
/// The iterations that OWASP asks for with this function.
const ITERATIONS: u32 = 600_000;
/// More would let a crafted bundle keep a restore busy for hours.
const ITERATIONS_MAX: u32 = 10_000_000;
const PUBLIC: &str = "evk-recipient-";
const SECRET: &str = "EVK-SECRET-";

/// Who can open a sealed text, or with what it is opened.
#[derive(Clone, PartialEq, Eq)]
pub enum Opener {
    /// An X25519 key: public to seal with, private to open with.
    Key([u8; 32]),
    Passphrase(String),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    #[error("{0:?} is not a recipient: it starts with evk-recipient-")]
    Recipient(String),
    #[error("the secret key is malformed: it starts with EVK-SECRET-")]
    Secret,
    #[error("this is not a sealed file of this program")]
    Format,
    #[error("it is sealed to {0}")]
    Other(&'static str),
    #[error("the key or passphrase does not open it, or it is damaged")]
    Wrong,
    #[error("the system gave no randomness")]
    Randomness,
}

/// A new pair: recipient (public, to write down in the configuration) and secret (to keep off the cluster).
pub fn recipient() -> Result<(String, String), PkiError> {
    let mut secret = [0; 32];
    random(&mut secret)?;
    let public = public_of(&secret).map_err(|_| PkiError::Randomness)?;
    Ok((format!("{PUBLIC}{}", hex(&public)), format!("{SECRET}{}", hex(&secret))))
}

/// Seals to a recipient as [`recipient`] prints it, or to a passphrase.
pub fn seal_to(opener: &Opener, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut out = MAGIC.to_vec();
    let key = match opener {
        Opener::Key(theirs) => {
            let mut once = [0; 32];
            random(&mut once).map_err(|_| SealError::Randomness)?;
            let ours = public_of(&once)?;
            out.push(FOR_KEY);
            out.extend(ours);
            shared(&once, theirs, &ours, theirs)?
        }
        Opener::Passphrase(passphrase) => {
            let mut salt = [0; 16];
            random(&mut salt).map_err(|_| SealError::Randomness)?;
            out.push(FOR_PASSPHRASE);
            out.extend(salt);
            out.extend(ITERATIONS.to_be_bytes());
            stretch(passphrase, &salt, ITERATIONS)
        }
    };
    let mut body = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    cipher(&key).seal_in_place_append_tag(nonce, Aad::from(&out), &mut body).map_err(|_| SealError::Wrong)?;
    out.extend(body);
    Ok(out)
}

/// Opens with a secret key as [`recipient`] prints it, or with a passphrase.
pub fn open_with(opener: &Opener, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::Format)?;
    let (kind, rest) = rest.split_first().ok_or(SealError::Format)?;
    let (key, body) = match (*kind, opener) {
        (FOR_KEY, Opener::Key(secret)) => {
            let (theirs, body) = rest.split_first_chunk::<32>().ok_or(SealError::Format)?;
            let ours = public_of(secret)?;
            (shared(secret, theirs, theirs, &ours)?, body)
        }
        (FOR_PASSPHRASE, Opener::Passphrase(passphrase)) => {
            let (salt, rest) = rest.split_first_chunk::<16>().ok_or(SealError::Format)?;
            let (count, body) = rest.split_first_chunk::<4>().ok_or(SealError::Format)?;
            let count = u32::from_be_bytes(*count);
            if count == 0 || count > ITERATIONS_MAX {
                return Err(SealError::Format);
            }
            (stretch(passphrase, salt, count), body)
        }
        (FOR_KEY, Opener::Passphrase(_)) => return Err(SealError::Other("a recipient's key")),
        (FOR_PASSPHRASE, Opener::Key(_)) => return Err(SealError::Other("a passphrase")),
        _ => return Err(SealError::Format),
    };
    let head = sealed.len() - body.len();
    let mut body = body.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let plain =
        cipher(&key).open_in_place(nonce, Aad::from(&sealed[..head]), &mut body).map_err(|_| SealError::Wrong)?;
    Ok(plain.to_vec())
}

// === impl Opener ===

impl Opener {
    pub fn recipient(text: &str) -> Result<Opener, SealError> {
        unhex(text.trim(), PUBLIC).map(Opener::Key).ok_or_else(|| SealError::Recipient(text.to_owned()))
    }

    pub fn secret(text: &str) -> Result<Opener, SealError> {
        unhex(text.trim(), SECRET).map(Opener::Key).ok_or(SealError::Secret)
    }
}

fn unhex(text: &str, prefix: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(prefix)?.as_bytes();
    let mut out = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

fn public_of(secret: &[u8; 32]) -> Result<[u8; 32], SealError> {
    let key = PrivateKey::from_private_key(&X25519, secret).map_err(|_| SealError::Secret)?;
    let public = key.compute_public_key().map_err(|_| SealError::Secret)?;
    public.as_ref().try_into().map_err(|_| SealError::Secret)
}

fn shared(secret: &[u8; 32], peer: &[u8; 32], sender: &[u8; 32], receiver: &[u8; 32]) -> Result<[u8; 32], SealError> {
    let key = PrivateKey::from_private_key(&X25519, secret).map_err(|_| SealError::Secret)?;
    let salt = [sender.as_slice(), receiver].concat();
    agree(&key, UnparsedPublicKey::new(&X25519, peer), SealError::Wrong, |secret| {
        let mut out = [0; 32];
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(secret);
        let expanded = extracted.expand(&[INFO], hkdf::HKDF_SHA256).map_err(|_| SealError::Wrong)?;
        expanded.fill(&mut out).map_err(|_| SealError::Wrong)?;
        Ok(out)
    })
}

fn stretch(passphrase: &str, salt: &[u8; 16], iterations: u32) -> [u8; 32] {
    let mut out = [0; 32];
    let iterations = NonZeroU32::new(iterations).expect("checked where it was read");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, passphrase.as_bytes(), &mut out);
    out
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key"))
}

#[cfg(test)]
mod tests {
    use super::{Opener, SealError, open_with, recipient, seal_to};

    #[test]
    fn only_the_recipient_opens() {
        let (public, secret) = recipient().unwrap();
        let sealed = seal_to(&Opener::recipient(&public).unwrap(), b"keys").unwrap();
        assert_eq!(open_with(&Opener::secret(&secret).unwrap(), &sealed).unwrap(), b"keys");
        let (_, other) = recipient().unwrap();
        assert_eq!(open_with(&Opener::secret(&other).unwrap(), &sealed), Err(SealError::Wrong));
        for at in [0, 9, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(open_with(&Opener::secret(&secret).unwrap(), &damaged).is_err(), "byte {at}");
        }
        let passphrase = Opener::Passphrase("p".to_owned());
        assert_eq!(open_with(&passphrase, &sealed), Err(SealError::Other("a recipient's key")));
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed() {
        let right = Opener::Passphrase("correct horse".to_owned());
        let sealed = seal_to(&right, b"keys").unwrap();
        assert_eq!(open_with(&right, &sealed).unwrap(), b"keys");
        let wrong = Opener::Passphrase("battery staple".to_owned());
        assert_eq!(open_with(&wrong, &sealed), Err(SealError::Wrong));
    }

    /// Sealed by the first version of this format; must open for ever.
    #[test]
    fn the_format_is_kept() {
        let sealed = include_bytes!("../../testdata/sealed.v1");
        let secret = include_str!("../../testdata/sealed.v1.secret");
        assert_eq!(open_with(&Opener::secret(secret).unwrap(), sealed).unwrap(), b"golden");
    }
}
