//! Revisions: the one line of ordered integers on which every fact of a cluster lies.

use std::fmt;
use std::str::FromStr;

/// A point on the cluster's single line of writes. Ordered; text only on the wire (`resourceVersion`).
///
/// `Revision::ZERO` is before the first write. Wire revision = epoch base + engine revision, so that a change of
/// engine or a restore never goes backwards; this type always holds the wire revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    pub const ZERO: Revision = Revision(0);

    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0.checked_add(1).expect("2^64 revisions outlast the hardware"))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A `resourceVersion` that is not a decimal number of at most 64 bits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a resource version")]
pub struct ParseRevisionError {
    pub text: String,
}

impl FromStr for Revision {
    type Err = ParseRevisionError;

    /// The empty text is not a revision: callers decide what absence means.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let error = || ParseRevisionError { text: text.chars().take(64).collect() };
        if !digits {
            return Err(error());
        }
        text.parse().map(Revision).map_err(|_| error())
    }
}

#[cfg(test)]
mod tests {
    use super::Revision;

    #[test]
    fn only_plain_decimals_parse() {
        assert_eq!("17".parse(), Ok(Revision(17)));
        for bad in ["", "-1", "+1", "1.0", "0x1", "99999999999999999999999", " 1"] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?}");
        }
    }
}
