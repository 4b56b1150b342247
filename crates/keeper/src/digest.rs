//! The name of a value by its content.

use std::fmt;

use base::SmolStr;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// SHA-256 in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(SmolStr);

// === impl Digest ===

impl Digest {
    /// Of a value's JSON. The types here keep their keys in order, so equal values have equal digests.
    pub fn of(value: &impl Serialize) -> Digest {
        let text = serde_json::to_vec(value).expect("the keeper's nouns are plain data");
        Digest::of_bytes(&text)
    }

    pub fn of_bytes(bytes: &[u8]) -> Digest {
        Digest(hex::encode(Sha256::digest(bytes)).into())
    }

    /// Of nothing: what the first of a line follows.
    pub fn none() -> Digest {
        Digest::default()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
