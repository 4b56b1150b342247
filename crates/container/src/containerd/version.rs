//! Which containerd this is: the settings file has two formats.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    #[error("run {program} --version")]
    Run {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} --version says {text:?}")]
    Text { program: String, text: String },
    #[error("containerd {major}.{minor} is too old, 1.6 is the oldest that works")]
    Old { major: u32, minor: u32 },
}

// === impl Version ===

impl Version {
    /// Asks the program.
    pub async fn of(program: &Path) -> Result<Version, VersionError> {
        let name = program.display().to_string();
        let reply = Command::new(program).arg("--version").kill_on_drop(true).output();
        let reply = tokio::time::timeout(ANSWER_TIMEOUT, reply).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        let output = reply.map_err(|source| VersionError::Run { program: name.clone(), source })?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let version = Version::parse(&text).ok_or(VersionError::Text { program: name, text })?;
        if version < (Version { major: 1, minor: 6 }) {
            return Err(VersionError::Old { major: version.major, minor: version.minor });
        }
        Ok(version)
    }

    /// Reads `containerd SOURCE VERSION REVISION`; the version may start with `v` and carry a distribution's suffix.
    fn parse(text: &str) -> Option<Version> {
        let word = text.split_whitespace().nth(2)?;
        let mut parts = word.trim_start_matches('v').split(['.', '~', '-', '+']);
        Some(Version { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn distributions_write_versions_their_way() {
        let parse = |word: &str| Version::parse(&format!("containerd example.org/containerd {word} 1234"));
        assert_eq!(parse("1.6.20~ds1"), Some(Version { major: 1, minor: 6 }));
        assert_eq!(parse("v2.1.4"), Some(Version { major: 2, minor: 1 }));
        assert_eq!(parse("1.7.24-rc.1"), Some(Version { major: 1, minor: 7 }));
        assert_eq!(parse("unknown"), None);
        assert_eq!(Version::parse(""), None);
    }
}
