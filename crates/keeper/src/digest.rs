//! The name of a value by its content.

use std::fmt;
use std::io;

use base::SmolStr;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How much of a file is read at once.
const BUFFER_BYTES: usize = 1 << 18;

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

    /// Of all that a reader gives: a program is larger than what is held in memory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_reader(mut reader: impl io::Read) -> io::Result<Digest> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Digest(hex::encode(hash.finalize()).into())),
                count => hash.update(&buffer[..count]),
            }
        }
    }

    /// Reads what [`Digest::to_string`] wrote; None for anything else.
    pub fn parse(text: &str) -> Option<Digest> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (text.len() == 64 && plain).then(|| Digest(text.into()))
    }

    /// Enough of it for people and file names.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
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

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn a_digest_reads_back_and_nothing_else_does() {
        let digest = Digest::of_bytes(b"program");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest.clone()));
        assert_eq!(Digest::of_reader(b"program".as_slice()).unwrap(), digest);
        assert_eq!(digest.short().len(), 12);
        for bad in ["", "../../../etc/passwd", "ABC", &"g".repeat(64)] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
