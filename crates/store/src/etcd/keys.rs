//! Places as etcd keys: `PREFIX/storage/namespace/name`, readable with `etcdctl`, one to one.

use admit::Place;
use api::Key;

pub(crate) struct Keys {
    prefix: String,
}

// === impl Keys ===

impl Keys {
    pub(crate) fn new(prefix: &str) -> Keys {
        Keys { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// The key that every commit puts its id to. Outside the documents' range.
    pub(crate) fn last(&self) -> Vec<u8> {
        format!("{}/0/last", self.prefix).into()
    }

    /// Where the epoch base is kept.
    pub(crate) fn epoch(&self) -> Vec<u8> {
        format!("{}/0/epoch", self.prefix).into()
    }

    /// Tells when the history was last forgotten.
    pub(crate) fn compacted(&self) -> Vec<u8> {
        format!("{}/0/compacted", self.prefix).into()
    }

    /// What is raised to decide about writes that are not answered.
    pub(crate) fn fence(&self) -> Vec<u8> {
        format!("{}/0/fence", self.prefix).into()
    }

    /// Whether a key is the engine's own, which no document is behind.
    pub(crate) fn is_own(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_bytes()).is_some_and(|rest| rest.starts_with(b"/0/"))
    }

    /// First key and end of all documents.
    pub(crate) fn documents(&self) -> (Vec<u8>, Vec<u8>) {
        (format!("{}/1/", self.prefix).into(), format!("{}/10", self.prefix).into())
    }

    /// First key and end of everything of ours.
    pub(crate) fn all(&self) -> (Vec<u8>, Vec<u8>) {
        (format!("{}/", self.prefix).into(), format!("{}0", self.prefix).into())
    }

    pub(crate) fn encode(&self, place: &Place) -> Vec<u8> {
        let (namespace, name) = (escape(&place.key.namespace), escape(&place.key.name));
        format!("{}/1/{}/{namespace}/{name}", self.prefix, place.storage).into()
    }

    pub(crate) fn decode(&self, key: &[u8]) -> Option<Place> {
        let text = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix("/1/")?;
        let mut parts = text.rsplitn(3, '/');
        let (name, namespace, storage) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Place { storage: storage.into(), key: Key::new(&unescape(namespace), &unescape(name)) })
    }
}

/// The smallest key after `key`.
pub(crate) fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}

fn unescape(text: &str) -> String {
    text.replace("%2F", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::Keys;
    use admit::Place;
    use api::Key;

    #[test]
    fn places_round_trip_within_the_documents_range() {
        let keys = Keys::new("/evenkeel/");
        let (start, end) = keys.documents();
        for (storage, namespace, name) in [
            ("apps/deployments", "default", "web"),
            ("nodes", "", "n1"),
            ("_claims", "", "tcp/30%2F080"),
            ("/pods", "a", "b"),
        ] {
            let place = Place { storage: storage.into(), key: Key::new(namespace, name) };
            let key = keys.encode(&place);
            assert_eq!(keys.decode(&key), Some(place));
            assert!(start < key && key < end);
        }
        for own in [keys.last(), keys.epoch(), keys.compacted(), keys.fence()] {
            assert!(own < start && keys.is_own(&own));
        }
        assert!(!keys.is_own(&start));
        assert_eq!(keys.decode(&keys.last()), None);
    }
}
