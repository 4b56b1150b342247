//! A [`Place`] as bytes: the embedded engine's key, and what an encrypted value is bound to.

use admit::Place;
use api::Key;

/// `storage NUL namespace NUL name`. One to one: storages and namespaces never hold a NUL, and the name comes last.
pub(crate) fn encode(place: &Place) -> Vec<u8> {
    let (storage, key) = (&place.storage, &place.key);
    let mut bytes = Vec::with_capacity(storage.len() + key.namespace.len() + key.name.len() + 2);
    bytes.extend_from_slice(storage.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.namespace.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.name.as_bytes());
    bytes
}

/// The place of an encoded key; `None` for bytes that [`encode`] never makes.
pub(crate) fn decode(bytes: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.splitn(3, '\0');
    let (storage, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Place { storage: storage.into(), key: Key::new(namespace, name) })
}

/// Storages that start with `_` hold claims and our own records: bytes that no kind serves.
pub(crate) fn is_claim(storage: &str) -> bool {
    storage.starts_with('_')
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use admit::Place;
    use api::Key;

    #[test]
    fn places_round_trip() {
        for (namespace, name) in [("a", "b"), ("", "b"), ("", "odd\0name"), ("a", "")] {
            let place = Place { storage: "apps/deployments".into(), key: Key::new(namespace, name) };
            assert_eq!(decode(&encode(&place)), Some(place));
        }
        assert_eq!(decode(b"no separators"), None);
    }
}
