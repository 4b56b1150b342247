//! The course of the managed etcd that a look cannot see: elections, and clean-ups that held it up. Its keeper notes them.

use std::fs;
use std::path::PathBuf;

use base::{Chain, Clock};
use jiff::{SignedDuration, Timestamp};
use keeper::wrong::{CLUSTER, Fact, What};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::fact;
use crate::layout::Layout;
use crate::pki::{Access, write};
use crate::wire::SystemClock;

/// How long each is told.
const ELECTIONS: SignedDuration = SignedDuration::from_mins(10);
const CLEAN_UPS: SignedDuration = SignedDuration::from_hours(1);
/// A leadership that stands this long stands.
const CALM: SignedDuration = SignedDuration::from_mins(2);
/// What is kept; of more, the oldest go.
const NOTES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Note {
    Elections { at: Timestamp, count: u32 },
    CleanUp { at: Timestamp, millis: u64 },
}

fn path(layout: &Layout) -> PathBuf {
    layout.etcd().join("course.json")
}

fn read(layout: &Layout) -> Vec<Note> {
    fs::read(path(layout)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

pub fn note(layout: &Layout, note: Note) {
    let mut notes = read(layout);
    notes.push(note);
    let surplus = notes.len().saturating_sub(NOTES_MAX);
    notes.drain(..surplus);
    let text = serde_json::to_string(&notes).expect("notes are plain data");
    if let Err(error) = write(&path(layout), text.as_bytes(), Access::Secret) {
        warn!(error = %Chain(&error), "the course of etcd is not noted");
    }
}

pub fn facts(layout: &Layout, own: &str) -> Vec<Fact> {
    let whats = told(&read(layout), SystemClock.now());
    whats
        .into_iter()
        .map(|what| fact(own, if matches!(what, What::Maintenance { .. }) { own } else { CLUSTER }, what))
        .collect()
}

fn told(notes: &[Note], now: Timestamp) -> Vec<What> {
    let (mut count, mut last, mut longest) = (0_u32, None, None);
    for note in notes {
        match note {
            Note::Elections { at, count: more } if now.duration_since(*at) < ELECTIONS => {
                (count, last) = (count.saturating_add(*more), Some(*at));
            }
            Note::CleanUp { at, millis } if now.duration_since(*at) < CLEAN_UPS => longest = longest.max(Some(*millis)),
            Note::Elections { .. } | Note::CleanUp { .. } => {}
        }
    }
    let minutes = u32::try_from(ELECTIONS.as_mins()).expect("minutes are few");
    let moves = last.is_some_and(|at| now.duration_since(at) < CALM);
    let changes = moves.then_some(What::LeaderChanges { count, minutes });
    changes.into_iter().chain(longest.map(|millis| What::Maintenance { millis })).collect()
}

#[cfg(test)]
mod tests {
    use super::{Note, told};
    use jiff::{SignedDuration, Timestamp};
    use keeper::wrong::What;

    #[test]
    fn elections_add_up_until_they_come_to_rest() {
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let notes = [
            Note::Elections { at: at(0), count: 9 },
            Note::Elections { at: at(18), count: 2 },
            Note::CleanUp { at: at(19), millis: 7_000 },
            Note::Elections { at: at(20), count: 3 },
        ];
        let found = told(&notes, at(21));
        assert_eq!(found, [What::LeaderChanges { count: 5, minutes: 10 }, What::Maintenance { millis: 7_000 }]);
        assert_eq!(told(&notes, at(24)), [What::Maintenance { millis: 7_000 }]);
    }
}
