//! What an engine keeps: a document behind a header that says how to read it.
//!
//! ```text
//! 0      format version (1)
//! 1..3   schema level the document was written at, big endian
//! 3..7   id of the key that sealed the body, 0 for none
//! 7..11  offset in the document where resourceVersion is spliced, 0 for none
//! 11..   the document, or nonce (12) + AES-256-GCM ciphertext + tag (16)
//! ```
//! Header and place are the associated data of a sealed body: neither can be swapped unnoticed.

use admit::Place;
use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use bytes::Bytes;

use crate::keyring::Keyring;
use crate::place;

const FORMAT: u8 = 1;
/// Raised when a stored document needs a migration that its reader must know of.
const SCHEMA_LEVEL: u16 = 1;
const HEADER_BYTES: usize = 11;

/// An opened envelope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) document: Bytes,
    /// Where resourceVersion is spliced; `None` for claims.
    pub(crate) offset: Option<usize>,
    pub(crate) key_id: u32,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    #[error("the envelope is cut short")]
    Short,
    #[error("the envelope is format {found}, this build reads {FORMAT}")]
    Format { found: u8 },
    #[error("the document is of schema level {found}, this build reads {SCHEMA_LEVEL}")]
    Level { found: u16 },
    #[error("encryption key {id} is not in the keyring")]
    KeyMissing { id: u32 },
    #[error("the sealed document does not open with key {id}")]
    Sealed { id: u32 },
}

/// Puts a document into its envelope, sealed when its storage asks for it.
pub(crate) fn seal(keys: &Keyring, place: &Place, document: &[u8], offset: Option<usize>) -> Bytes {
    let key = keys.sealing_key(&place.storage);
    let header = header(key.as_ref().map_or(0, |(id, _)| *id), offset);
    let Some((_, key)) = key else {
        let mut value = Vec::with_capacity(HEADER_BYTES + document.len());
        value.extend_from_slice(&header);
        value.extend_from_slice(document);
        return value.into();
    };
    let mut body = document.to_vec();
    let aad = associated(&header, place);
    let nonce = key.cipher.seal_in_place_append_tag(Aad::from(&aad), &mut body);
    let nonce = nonce.expect("sealing fails only for bodies of many gigabytes");
    let mut value = Vec::with_capacity(HEADER_BYTES + NONCE_LEN + body.len());
    value.extend_from_slice(&header);
    value.extend_from_slice(nonce.as_ref());
    value.extend_from_slice(&body);
    value.into()
}

/// Opens an envelope.
pub(crate) fn open(keys: &Keyring, place: &Place, value: &Bytes) -> Result<Opened, EnvelopeError> {
    let header = value.get(..HEADER_BYTES).ok_or(EnvelopeError::Short)?;
    if header[0] != FORMAT {
        return Err(EnvelopeError::Format { found: header[0] });
    }
    let level = u16::from_be_bytes([header[1], header[2]]);
    if SCHEMA_LEVEL < level {
        return Err(EnvelopeError::Level { found: level });
    }
    let key_id = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    let offset = u32::from_be_bytes([header[7], header[8], header[9], header[10]]) as usize;
    let document = match key_id {
        0 => value.slice(HEADER_BYTES..),
        id => unseal(keys, place, value, id)?,
    };
    if document.len() < offset {
        return Err(EnvelopeError::Short);
    }
    Ok(Opened { document, offset: (offset != 0).then_some(offset), key_id })
}

/// The id of the key that sealed an envelope's body; None for one in the clear.
pub(crate) fn key_of(value: &[u8]) -> Option<u32> {
    let id = u32::from_be_bytes(value.get(3..7)?.try_into().ok()?);
    (id != 0).then_some(id)
}

fn unseal(keys: &Keyring, place: &Place, value: &Bytes, id: u32) -> Result<Bytes, EnvelopeError> {
    let (header, rest) = value.split_at(HEADER_BYTES);
    let key = keys.key(id).ok_or(EnvelopeError::KeyMissing { id })?;
    let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(EnvelopeError::Short)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| EnvelopeError::Short)?;
    let mut body = body.to_vec();
    let opened = key.cipher.open_in_place(nonce, Aad::from(associated(header, place)), &mut body);
    let length = opened.map_err(|_| EnvelopeError::Sealed { id })?.len();
    body.truncate(length);
    Ok(body.into())
}

fn header(key_id: u32, offset: Option<usize>) -> [u8; HEADER_BYTES] {
    let offset = u32::try_from(offset.unwrap_or(0)).expect("OBJECT_BYTES_MAX fits u32");
    let mut header = [0; HEADER_BYTES];
    header[0] = FORMAT;
    header[1..3].copy_from_slice(&SCHEMA_LEVEL.to_be_bytes());
    header[3..7].copy_from_slice(&key_id.to_be_bytes());
    header[7..11].copy_from_slice(&offset.to_be_bytes());
    header
}

fn associated(header: &[u8], place: &Place) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(&place::encode(place));
    bytes
}

#[cfg(test)]
mod tests {
    use super::{EnvelopeError, key_of, open, seal};
    use crate::keyring::Keyring;
    use admit::Place;
    use api::Key;
    use bytes::Bytes;

    const DOCUMENT: &[u8] = br#"{"data":{"p":"aHVudGVyMg=="},"metadata":{"name":"a"}}"#;

    fn place(storage: &str, name: &str) -> Place {
        Place { storage: storage.into(), key: Key::new("default", name) }
    }

    #[test]
    fn secrets_are_sealed_and_bound_to_their_place() {
        let keys = Keyring::generate().unwrap();
        let secret = place("/secrets", "a");
        let value = seal(&keys, &secret, DOCUMENT, Some(37));
        assert!(!value.windows(8).any(|window| window == b"aHVudGVy"));
        let opened = open(&keys, &secret, &value).unwrap();
        assert_eq!((key_of(&value), key_of(b"short")), (Some(1), None));
        assert_eq!((opened.document.as_ref(), opened.offset, opened.key_id), (DOCUMENT, Some(37), 1));
        let moved = open(&keys, &place("/secrets", "b"), &value);
        assert_eq!(moved, Err(EnvelopeError::Sealed { id: 1 }));
        let mut header_changed = value.to_vec();
        header_changed[10] ^= 1;
        assert_eq!(open(&keys, &secret, &Bytes::from(header_changed)), Err(EnvelopeError::Sealed { id: 1 }));
        assert_eq!(open(&Keyring::plain(), &secret, &value), Err(EnvelopeError::KeyMissing { id: 1 }));
    }

    #[test]
    fn old_keys_still_open_after_rotation() {
        let old = Keyring::generate().unwrap();
        let value = seal(&old, &place("/secrets", "a"), DOCUMENT, None);
        let new = old.rotated().unwrap();
        assert_eq!(open(&new, &place("/secrets", "a"), &value).unwrap().key_id, 1);
        assert_eq!(
            open(&new, &place("/secrets", "a"), &seal(&new, &place("/secrets", "a"), b"{}", None)).unwrap().key_id,
            2
        );
    }

    /// A committed sample of every format ever written.
    #[test]
    fn format_1_reads_as_written() {
        let sample = Bytes::from_static(b"\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x0d{\"metadata\":{\"name\":\"a\"}}");
        let at = place("configmaps", "a");
        let opened = open(&Keyring::plain(), &at, &sample).unwrap();
        assert_eq!((opened.document.as_ref(), opened.offset), (&br#"{"metadata":{"name":"a"}}"#[..], Some(13)));
        assert_eq!(seal(&Keyring::plain(), &at, &opened.document, opened.offset), sample);
    }

    #[test]
    fn foreign_bytes_are_errors() {
        let at = place("configmaps", "a");
        let check = |bytes: &'static [u8]| open(&Keyring::plain(), &at, &Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(check(b""), EnvelopeError::Short);
        assert_eq!(check(b"\x02\0\x01\0\0\0\0\0\0\0\0"), EnvelopeError::Format { found: 2 });
        assert_eq!(check(b"\x01\0\x09\0\0\0\0\0\0\0\0"), EnvelopeError::Level { found: 9 });
        assert_eq!(check(b"\x01\0\x01\0\0\0\0\0\0\0\x09{}"), EnvelopeError::Short);
    }
}
