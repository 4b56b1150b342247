//! Who was logged in.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Sessions that one line names; of more it says how many.
const NAMED_MAX: usize = 4;

/// Somebody's session on a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session {
    pub user: String,
    /// Where from; empty at the machine's own console.
    #[serde(default)]
    pub from: String,
    #[serde(default)]
    pub terminal: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// `anna from 192.0.2.7 (pts/0) and ben (tty1)`.
pub fn who(sessions: &[Session]) -> String {
    let mut named: BTreeSet<String> = BTreeSet::new();
    for session in sessions {
        let from = if session.from.is_empty() { String::new() } else { format!(" from {}", session.from) };
        let terminal = if session.terminal.is_empty() { String::new() } else { format!(" ({})", session.terminal) };
        named.insert(format!("{}{from}{terminal}", session.user));
    }
    let all: Vec<String> = named.into_iter().collect();
    match all.as_slice() {
        [] => "nobody was logged in".to_owned(),
        [one] => format!("{one} was logged in"),
        many if many.len() <= NAMED_MAX => format!("{} were logged in", many.join(", ")),
        many => format!("{} and {} more were logged in", many[..NAMED_MAX].join(", "), many.len() - NAMED_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::{Session, who};

    #[test]
    fn sessions_are_named_once() {
        let session = |user: &str, from: &str| Session {
            user: user.into(),
            from: from.into(),
            terminal: "pts/0".into(),
            since: None,
        };
        assert_eq!(who(&[]), "nobody was logged in");
        let anna = session("anna", "192.0.2.7");
        assert_eq!(who(&[anna.clone(), anna.clone()]), "anna from 192.0.2.7 (pts/0) was logged in");
        assert_eq!(who(&[session("ben", ""), anna]), "anna from 192.0.2.7 (pts/0), ben (pts/0) were logged in");
    }
}
