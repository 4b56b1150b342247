//! Machines that this server did not let in, on its disk: who is refused tries again and again, and people are to hear of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base::Chain;
use jiff::{SignedDuration, Timestamp};
use keeper::wrong::{Fact, Name, Refusal, What};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::fact;
use crate::layout::Layout;
use crate::pki::{Access, write};

/// A service manager starts what ended again within seconds: who was silent for this long has given up.
const NEWS: SignedDuration = SignedDuration::from_mins(2);
/// Names that are kept; whoever knocks under more of them is not remembered.
const NAMES_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Knock {
    at: Timestamp,
    why: Refusal,
}

type Knocks = BTreeMap<Name, Knock>;

fn path(layout: &Layout) -> PathBuf {
    layout.server().join("refused.json")
}

fn read(layout: &Layout, now: Timestamp) -> Knocks {
    let known = fs::read(path(layout)).ok().and_then(|text| serde_json::from_slice::<Knocks>(&text).ok());
    known.unwrap_or_default().into_iter().filter(|(_, knock)| now.duration_since(knock.at) < NEWS).collect()
}

/// A machine under this name was refused.
pub fn note(layout: &Layout, node: &str, why: Refusal, now: Timestamp) {
    let mut knocks = read(layout, now);
    if knocks.len() < NAMES_MAX || knocks.contains_key(node) {
        knocks.insert(node.into(), Knock { at: now, why });
        keep(layout, &knocks);
    }
}

/// The one whose name it is was let in.
pub fn forget(layout: &Layout, node: &str, now: Timestamp) {
    let mut knocks = read(layout, now);
    if knocks.remove(node).is_some() {
        keep(layout, &knocks);
    }
}

fn keep(layout: &Layout, knocks: &Knocks) {
    let text = serde_json::to_string(knocks).expect("notes are plain data");
    if let Err(error) = write(&path(layout), text.as_bytes(), Access::Secret) {
        warn!(error = %Chain(&error), "who was refused is not noted");
    }
}

/// What this server can tell of them.
pub fn facts(layout: &Layout, own: &str, now: Timestamp) -> Vec<Fact> {
    let of = |(node, knock): (Name, Knock)| fact(own, &node, What::JoinRefused { why: knock.why });
    read(layout, now).into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::{NAMES_MAX, facts, forget, note};
    use crate::layout::Layout;
    use jiff::{SignedDuration, Timestamp};
    use keeper::wrong::{Refusal, What};

    #[test]
    fn who_was_refused_is_told_until_let_in_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::create_dir_all(layout.server()).unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        note(&layout, "a", Refusal::Impostor, now);
        note(&layout, "b", Refusal::OtherCluster, now + SignedDuration::from_secs(90));
        assert_eq!(facts(&layout, "s", now).len(), 2);
        let later = facts(&layout, "s", now + SignedDuration::from_secs(130));
        assert!(matches!(&later[..], [one] if one.about == "b" && matches!(one.what, What::JoinRefused { .. })));
        forget(&layout, "b", now + SignedDuration::from_secs(130));
        assert!(facts(&layout, "s", now + SignedDuration::from_secs(130)).is_empty());
        for number in 0..2 * NAMES_MAX {
            note(&layout, &number.to_string(), Refusal::Impostor, now);
        }
        assert_eq!(facts(&layout, "s", now).len(), NAMES_MAX);
    }
}
