//! The name of a bundle: it says when and at which revision, and sorts by time.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

const PREFIX: &str = "evenkeel-";
const SUFFIX: &str = ".bundle";
const TIME: &str = "%Y%m%dt%H%M%Sz";

/// `evenkeel-20260131t120000z-r1234.bundle`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BundleName {
    made: Timestamp,
    revision: u64,
}

/// A text that names no bundle.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not the name of a bundle")]
pub struct NotABundle(pub String);

// === impl BundleName ===

impl BundleName {
    pub fn new(made: Timestamp, revision: u64) -> BundleName {
        // The name holds whole seconds.
        let made = Timestamp::from_second(made.as_second()).expect("a second of a valid time is a valid time");
        BundleName { made, revision }
    }

    pub fn made(&self) -> Timestamp {
        self.made
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl fmt::Display for BundleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-r{}{SUFFIX}", self.made.strftime(TIME), self.revision)
    }
}

impl FromStr for BundleName {
    type Err = NotABundle;

    fn from_str(text: &str) -> Result<BundleName, NotABundle> {
        let parse = || {
            let middle = text.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
            let (time, revision) = middle.split_once("-r")?;
            let made = jiff::civil::DateTime::strptime(TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
            Some(BundleName { made, revision: revision.parse().ok()? })
        };
        // Only the one way to write it: names come from targets that others write to as well.
        parse().filter(|name| name.to_string() == text).ok_or_else(|| NotABundle(text.to_owned()))
    }
}

impl From<BundleName> for String {
    fn from(name: BundleName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for BundleName {
    type Error = NotABundle;

    fn try_from(text: String) -> Result<BundleName, NotABundle> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::BundleName;

    #[test]
    fn a_name_says_when_and_where_and_nothing_else_is_one() {
        let name = BundleName::new("2026-01-31T12:00:00.7Z".parse().unwrap(), 1234);
        assert_eq!(name.to_string(), "evenkeel-20260131t120000z-r1234.bundle");
        assert_eq!(name.to_string().parse(), Ok(name));
        for other in ["", "x.bundle", "evenkeel-20260131t120000z-r01.bundle", "evenkeel-20269931t120000z-r1.bundle"] {
            assert!(other.parse::<BundleName>().is_err(), "{other}");
        }
    }
}
