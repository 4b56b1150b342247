//! Sealing of what a backup must not show: readable with the secret key of any of its recipients, or with a passphrase.
//!
//! ```text
//! "EVKSEAL" 0x02            magic and format version
//! count                     how many can open it, 1 to 16
//!   0x01 pub(32) wrap(32)   for a key: the sender's one-time X25519 public key, and the file's key
//!   0x02 salt(16) u32 wrap  for a passphrase: PBKDF2-HMAC-SHA256 salt and iterations (big endian), and the file's key
//! ciphertext                AES-256-GCM under the file's key, everything before it as associated data
//! ```
//! `wrap` is the file's key under AES-256-GCM, 48 bytes with its tag; for a key the wrapping key is HKDF-SHA256 of the
//! X25519 secret, salted with both public keys. Nonces are zero: every key encrypts once. Version 1 had one opener, no
//! count and no wrap: its one key encrypted the text. It is still opened.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{hkdf, pbkdf2};

use super::{PkiError, hex, random};

const MAGIC: &[u8; 7] = b"EVKSEAL";
const VERSION_1: u8 = 1;
const VERSION: u8 = 2;
/// Who can open one text. Each passphrase among them costs a wrong one a second.
const OPENERS_MAX: usize = 16;
const KEY_BYTES: usize = 32;
const WRAP_BYTES: usize = KEY_BYTES + 16;
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
    #[error("there is no secret key in it: one starts with EVK-SECRET-")]
    Secret,
    #[error("this is not a sealed file of this program")]
    Format,
    #[error("it is sealed in format {0}, which is newer than this program; take a newer one")]
    Newer(u8),
    #[error("between 1 and {OPENERS_MAX} recipients and passphrases can open it")]
    Openers,
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

/// Seals so that each of the openers opens: recipients as [`recipient`] prints them, and passphrases.
pub fn seal_to(openers: &[Opener], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let count = u8::try_from(openers.len()).ok().filter(|_| (1..=OPENERS_MAX).contains(&openers.len()));
    let mut out = MAGIC.to_vec();
    out.extend([VERSION, count.ok_or(SealError::Openers)?]);
    let mut file_key = [0; KEY_BYTES];
    random(&mut file_key).map_err(|_| SealError::Randomness)?;
    for opener in openers {
        let mut head = Vec::new();
        let key = match opener {
            Opener::Key(theirs) => {
                let mut once = [0; KEY_BYTES];
                random(&mut once).map_err(|_| SealError::Randomness)?;
                let ours = public_of(&once)?;
                head.push(FOR_KEY);
                head.extend(ours);
                shared(&once, theirs, &ours, theirs)?
            }
            Opener::Passphrase(passphrase) => {
                let mut salt = [0; 16];
                random(&mut salt).map_err(|_| SealError::Randomness)?;
                head.push(FOR_PASSPHRASE);
                head.extend(salt);
                head.extend(ITERATIONS.to_be_bytes());
                stretch(passphrase, &salt, ITERATIONS)
            }
        };
        let wrapped = encrypt(&key, &head, &file_key)?;
        out.extend(head);
        out.extend(wrapped);
    }
    let body = encrypt(&file_key, &out, plain)?;
    out.extend(body);
    Ok(out)
}

/// Opens with a secret key as [`recipient`] prints it, or with a passphrase.
pub fn open_with(opener: &Opener, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::Format)?;
    let (version, rest) = rest.split_first().ok_or(SealError::Format)?;
    match *version {
        VERSION_1 => {
            let (lock, body) = Lock::parse(rest)?;
            let key = lock.open(opener)?.ok_or_else(|| lock.is_for())?;
            decrypt(&key, &sealed[..sealed.len() - body.len()], body)
        }
        VERSION => {
            let (file_key, body) = file_key(opener, rest)?;
            decrypt(&file_key, &sealed[..sealed.len() - body.len()], body)
        }
        newer => Err(SealError::Newer(newer)),
    }
}

/// The file's key out of the first lock that the opener opens, and what follows the locks.
fn file_key<'a>(opener: &Opener, rest: &'a [u8]) -> Result<([u8; KEY_BYTES], &'a [u8]), SealError> {
    let (count, mut rest) = rest.split_first().ok_or(SealError::Format)?;
    if !(1..=OPENERS_MAX).contains(&usize::from(*count)) {
        return Err(SealError::Format);
    }
    let (mut found, mut why) = (None, None);
    for _ in 0..*count {
        let (lock, after) = Lock::parse(rest)?;
        let head = &rest[..rest.len() - after.len()];
        let (wrapped, after) = after.split_first_chunk::<WRAP_BYTES>().ok_or(SealError::Format)?;
        rest = after;
        if found.is_some() {
            continue;
        }
        match lock.open(opener)? {
            None => drop(why.get_or_insert(lock.is_for())),
            Some(key) => match decrypt(&key, head, wrapped) {
                Ok(plain) => found = plain.try_into().ok(),
                Err(_) => why = Some(SealError::Wrong),
            },
        }
    }
    found.map(|key| (key, rest)).ok_or_else(|| why.unwrap_or(SealError::Wrong))
}

/// What one opener needs beside its secret.
enum Lock<'a> {
    Key { theirs: &'a [u8; 32] },
    Passphrase { salt: &'a [u8; 16], iterations: u32 },
}

// === impl Lock ===

impl<'a> Lock<'a> {
    /// The lock at the start of some bytes, and the bytes after it.
    fn parse(bytes: &'a [u8]) -> Result<(Lock<'a>, &'a [u8]), SealError> {
        let (kind, rest) = bytes.split_first().ok_or(SealError::Format)?;
        match *kind {
            FOR_KEY => {
                let (theirs, rest) = rest.split_first_chunk().ok_or(SealError::Format)?;
                Ok((Lock::Key { theirs }, rest))
            }
            FOR_PASSPHRASE => {
                let (salt, rest) = rest.split_first_chunk().ok_or(SealError::Format)?;
                let (count, rest) = rest.split_first_chunk().ok_or(SealError::Format)?;
                let iterations = u32::from_be_bytes(*count);
                if iterations == 0 || iterations > ITERATIONS_MAX {
                    return Err(SealError::Format);
                }
                Ok((Lock::Passphrase { salt, iterations }, rest))
            }
            _ => Err(SealError::Format),
        }
    }

    /// The key behind this lock; None where the opener is of the other kind.
    fn open(&self, opener: &Opener) -> Result<Option<[u8; KEY_BYTES]>, SealError> {
        match (self, opener) {
            (Lock::Key { theirs }, Opener::Key(secret)) => {
                let ours = public_of(secret)?;
                shared(secret, theirs, theirs, &ours).map(Some)
            }
            (Lock::Passphrase { salt, iterations }, Opener::Passphrase(passphrase)) => {
                Ok(Some(stretch(passphrase, salt, *iterations)))
            }
            (Lock::Key { .. }, Opener::Passphrase(_)) | (Lock::Passphrase { .. }, Opener::Key(_)) => Ok(None),
        }
    }

    fn is_for(&self) -> SealError {
        SealError::Other(match self {
            Lock::Key { .. } => "a recipient's key",
            Lock::Passphrase { .. } => "a passphrase",
        })
    }
}

fn encrypt(key: &[u8; KEY_BYTES], associated: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut body = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let sealed = cipher(key).seal_in_place_append_tag(nonce, Aad::from(associated), &mut body);
    sealed.map_err(|_| SealError::Wrong)?;
    Ok(body)
}

fn decrypt(key: &[u8; KEY_BYTES], associated: &[u8], body: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut body = body.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let plain = cipher(key).open_in_place(nonce, Aad::from(associated), &mut body).map_err(|_| SealError::Wrong)?;
    Ok(plain.to_vec())
}

// === impl Opener ===

impl Opener {
    pub fn recipient(text: &str) -> Result<Opener, SealError> {
        unhex(text.trim(), PUBLIC).map(Opener::Key).ok_or_else(|| SealError::Recipient(text.to_owned()))
    }

    /// The first secret key in a text: what [`recipient`] gave, also with the words around it.
    pub fn secret(text: &str) -> Result<Opener, SealError> {
        let word = text.split_whitespace().find(|word| word.starts_with(SECRET));
        word.and_then(|word| unhex(word, SECRET)).map(Opener::Key).ok_or(SealError::Secret)
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
    use super::{OPENERS_MAX, Opener, SealError, open_with, recipient, seal_to};

    fn pair() -> (Opener, Opener) {
        let (public, secret) = recipient().unwrap();
        (Opener::recipient(&public).unwrap(), Opener::secret(&secret).unwrap())
    }

    #[test]
    fn every_recipient_opens_and_nobody_else() {
        let (one, one_secret) = pair();
        let (two, two_secret) = pair();
        let sealed = seal_to(&[one, two], b"keys").unwrap();
        assert_eq!(open_with(&one_secret, &sealed).unwrap(), b"keys");
        assert_eq!(open_with(&two_secret, &sealed).unwrap(), b"keys");
        assert_eq!(open_with(&pair().1, &sealed), Err(SealError::Wrong));
        let passphrase = Opener::Passphrase("p".to_owned());
        assert_eq!(open_with(&passphrase, &sealed), Err(SealError::Other("a recipient's key")));
    }

    #[test]
    fn no_byte_of_it_can_be_changed_or_missing() {
        let (theirs, secret) = pair();
        let sealed = seal_to(&[theirs], b"keys").unwrap();
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(open_with(&secret, &damaged).is_err(), "byte {at}");
            assert!(open_with(&secret, &sealed[..at]).is_err(), "cut at {at}");
        }
        let mut newer = sealed.clone();
        newer[7] = 3;
        assert_eq!(open_with(&secret, &newer), Err(SealError::Newer(3)));
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed_beside_a_recipient() {
        let (theirs, secret) = pair();
        let right = Opener::Passphrase("correct horse".to_owned());
        let sealed = seal_to(&[theirs, right.clone()], b"keys").unwrap();
        assert_eq!(open_with(&right, &sealed).unwrap(), b"keys");
        assert_eq!(open_with(&secret, &sealed).unwrap(), b"keys");
        let wrong = Opener::Passphrase("battery staple".to_owned());
        assert_eq!(open_with(&wrong, &sealed), Err(SealError::Wrong));
    }

    #[test]
    fn somebody_must_be_able_to_open_it() {
        assert_eq!(seal_to(&[], b"keys"), Err(SealError::Openers));
        let many: Vec<Opener> = (0..=OPENERS_MAX).map(|_| pair().0).collect();
        assert_eq!(seal_to(&many, b"keys"), Err(SealError::Openers));
    }

    /// Sealed by earlier versions of this format; must open for ever.
    #[test]
    fn every_version_of_the_format_opens() {
        let secret = Opener::secret(include_str!("../../testdata/sealed.v1.secret")).unwrap();
        assert_eq!(open_with(&secret, include_bytes!("../../testdata/sealed.v1")).unwrap(), b"golden");
    }
}
