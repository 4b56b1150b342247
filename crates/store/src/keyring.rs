//! The keys that encrypt at rest: several may decrypt, one encrypts. Which storages are encrypted is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use base::SmolStr;

/// Length of one key: AES-256.
pub const KEY_BYTES: usize = 32;
/// Keys a ring may hold: one in use, the others on their way out.
pub const KEYS_MAX: usize = 16;

/// Where the API keeps Secrets: `group/resource` with the empty group.
const SECRETS: &str = "/secrets";

/// The keys by id, the newest being the one with the highest id. Cheap to clone. Never printed.
#[derive(Clone)]
pub struct Keyring {
    keys: Arc<BTreeMap<u32, SealingKey>>,
    /// The key that encrypts; None where nothing does.
    sealing: Option<u32>,
    sealed: Arc<BTreeSet<SmolStr>>,
}

pub(crate) struct SealingKey {
    pub(crate) cipher: RandomizedNonceKey,
    /// Kept for [`Keyring::encode`] only.
    secret: [u8; KEY_BYTES],
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyringError {
    #[error("line {line} of the keyring is not `id hex-key`")]
    Line { line: usize },
    #[error("key {id} is in the keyring twice or is 0")]
    Id { id: u32 },
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
    #[error("the system gave no randomness")]
    Randomness,
}

// === impl Keyring ===

impl Keyring {
    /// No key: everything is stored in the clear. For tests and for the engine's own suite.
    pub fn plain() -> Keyring {
        Keyring { keys: Arc::default(), sealing: None, sealed: Arc::default() }
    }

    /// A ring with one fresh key that seals Secrets.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Keyring, KeyringError> {
        Keyring::plain().rotated()
    }

    /// This ring with one more, newest key.
    ///
    /// # Errors
    /// When the system has no randomness to give or the ring is full.
    pub fn rotated(&self) -> Result<Keyring, KeyringError> {
        self.rotated_beyond(0)
    }

    /// The same where ids up to this one have been given to keys that are not in this ring.
    ///
    /// # Errors
    /// When the system has no randomness to give or the ring is full.
    pub fn rotated_beyond(&self, given: u32) -> Result<Keyring, KeyringError> {
        let mut secret = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| KeyringError::Randomness)?;
        let next = self.keys.keys().next_back().copied().unwrap_or_default().max(given) + 1;
        let mut keys: Vec<(u32, [u8; KEY_BYTES])> = self.keys.iter().map(|(id, key)| (*id, key.secret)).collect();
        keys.push((next, secret));
        let ring = Keyring::from_keys(keys)?;
        Ok(if self.sealed.is_empty() { ring } else { Keyring { sealed: self.sealed.clone(), ..ring } })
    }

    /// This ring with the one key that encrypts: for after everything was encrypted anew.
    #[must_use]
    pub fn sealing_only(&self) -> Keyring {
        self.part(|id| Some(id) == self.sealing)
    }

    /// This ring, which also decrypts what another one encrypted.
    ///
    /// # Errors
    /// Where one id means two keys, and for too many keys.
    pub fn opening(&self, other: &Keyring) -> Result<Keyring, KeyringError> {
        let mut all: BTreeMap<u32, [u8; KEY_BYTES]> = self.keys.iter().map(|(id, key)| (*id, key.secret)).collect();
        for (id, key) in other.keys.iter() {
            if *all.entry(*id).or_insert(key.secret) != key.secret {
                return Err(KeyringError::Id { id: *id });
            }
        }
        let ring = Keyring::from_keys(all.into_iter().collect())?;
        Ok(Keyring { sealing: self.sealing, sealed: self.sealed.clone(), ..ring })
    }

    /// The keys that do not encrypt yet: those newer than the one that does.
    #[must_use]
    pub fn waiting(&self) -> Keyring {
        self.part(|id| self.sealing < Some(id))
    }

    /// The others: the one that encrypts, and those that did.
    #[must_use]
    pub fn in_use(&self) -> Keyring {
        self.part(|id| Some(id) <= self.sealing)
    }

    fn part(&self, is_in: impl Fn(u32) -> bool) -> Keyring {
        let keys = self.keys.iter().filter(|(id, _)| is_in(**id)).map(|(id, key)| (*id, key.secret));
        let ring = Keyring::from_keys(keys.collect()).expect("a part of a valid ring is valid");
        Keyring { sealed: self.sealed.clone(), ..ring }
    }

    /// The id of the key that encrypts.
    pub fn seals_with(&self) -> Option<u32> {
        self.sealing
    }

    /// The ids of all keys, oldest first.
    pub fn ids(&self) -> Vec<u32> {
        self.keys.keys().copied().collect()
    }

    /// A ring of given keys, whose newest encrypts. Ids start at 1: 0 marks a value in the clear.
    ///
    /// # Errors
    /// For repeated ids and too many keys.
    pub fn from_keys(list: Vec<(u32, [u8; KEY_BYTES])>) -> Result<Keyring, KeyringError> {
        if KEYS_MAX < list.len() {
            return Err(KeyringError::TooMany);
        }
        let mut keys = BTreeMap::new();
        for (id, secret) in list {
            let cipher = RandomizedNonceKey::new(&AES_256_GCM, &secret).expect("KEY_BYTES is AES-256's key length");
            if id == 0 || keys.insert(id, SealingKey { cipher, secret }).is_some() {
                return Err(KeyringError::Id { id });
            }
        }
        let sealing = keys.keys().next_back().copied();
        Ok(Keyring { keys: Arc::new(keys), sealing, sealed: Arc::new(BTreeSet::from([SECRETS.into()])) })
    }

    /// Encrypts these storages instead of Secrets alone.
    #[must_use]
    pub fn sealing(mut self, storages: impl IntoIterator<Item = SmolStr>) -> Keyring {
        self.sealed = Arc::new(storages.into_iter().collect());
        self
    }

    /// The ring as a file's text: one `id hex-key` per line, oldest first.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for (id, key) in self.keys.iter() {
            let _ = write!(text, "{id} ");
            for byte in key.secret {
                let _ = write!(text, "{byte:02x}");
            }
            text.push('\n');
        }
        text
    }

    /// Reads what [`Keyring::encode`] wrote. Empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// Names the line that does not fit.
    pub fn decode(text: &str) -> Result<Keyring, KeyringError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            keys.push(parse_line(line).ok_or(KeyringError::Line { line: line_number })?);
        }
        Keyring::from_keys(keys)
    }

    /// The id and key that seal a value of `storage` now; `None` leaves it in the clear.
    pub(crate) fn sealing_key(&self, storage: &str) -> Option<(u32, &SealingKey)> {
        if !self.sealed.contains(storage) {
            return None;
        }
        self.sealing.and_then(|id| Some((id, self.keys.get(&id)?)))
    }

    pub(crate) fn key(&self, id: u32) -> Option<&SealingKey> {
        self.keys.get(&id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

fn parse_line(line: &str) -> Option<(u32, [u8; KEY_BYTES])> {
    let (id, hex) = line.trim().split_once(' ')?;
    let hex = hex.trim().as_bytes();
    if hex.len() != KEY_BYTES * 2 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut secret = [0; KEY_BYTES];
    for (byte, pair) in secret.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some((id.parse().ok()?, secret))
}

#[cfg(test)]
mod tests {
    use super::{Keyring, KeyringError, SECRETS};

    #[test]
    fn a_ring_round_trips_as_text_and_grows_by_rotation() {
        let ring = Keyring::generate().unwrap().rotated().unwrap();
        let again = Keyring::decode(&format!("# keys\n\n{}", ring.encode())).unwrap();
        assert_eq!(again.encode(), ring.encode());
        assert_eq!(ring.encode().lines().count(), 2);
        assert_eq!(ring.sealing_key(SECRETS).unwrap().0, 2);
        assert_eq!(ring.sealing_only().encode(), ring.encode().lines().nth(1).unwrap().to_owned() + "\n");
    }

    /// What a server holds that is to know a key before anybody encrypts with it.
    #[test]
    fn a_ring_opens_what_the_next_one_seals_and_does_not_seal_with_it() {
        let old = Keyring::generate().unwrap();
        let next = old.rotated().unwrap().sealing_only();
        let both = old.opening(&next).unwrap();
        assert_eq!((both.seals_with(), both.ids()), (Some(1), vec![1, 2]));
        assert_eq!((both.in_use().encode(), both.waiting().encode()), (old.encode(), next.encode()));
        assert_eq!(both.opening(&next).unwrap().encode(), both.encode(), "twice is once");
        assert_eq!(next.opening(&old).unwrap().seals_with(), Some(2));
        assert_eq!(both.rotated().unwrap().seals_with(), Some(3), "an id is never used again");
        assert_eq!(old.rotated_beyond(2).unwrap().seals_with(), Some(3), "not even of a key that went");
        let other = Keyring::generate().unwrap();
        assert_eq!(old.opening(&other).unwrap_err(), KeyringError::Id { id: 1 });
    }

    #[test]
    fn damaged_text_names_its_line() {
        let ring = Keyring::generate().unwrap().encode();
        assert_eq!(Keyring::decode(&format!("{ring}2 abc")).unwrap_err(), KeyringError::Line { line: 2 });
        assert_eq!(Keyring::decode(&format!("{ring}{ring}")).unwrap_err(), KeyringError::Id { id: 1 });
        assert_eq!(format!("{:?}", Keyring::generate().unwrap()), "Keyring(1 keys)");
    }
}
