//! The course of the managed etcd that a look cannot see: elections, clean-ups that held it up, and copies that were
//! compared. Its keeper notes them.

use std::collections::{BTreeMap, BTreeSet};
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
/// Longer than from one comparison to the next.
const COMPARISONS: SignedDuration = SignedDuration::from_mins(90);
/// A leadership that stands this long stands.
const CALM: SignedDuration = SignedDuration::from_mins(2);
/// What is kept; of more, the oldest go.
const NOTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Note {
    Elections {
        at: Timestamp,
        count: u32,
    },
    CleanUp {
        at: Timestamp,
        millis: u64,
        #[serde(default)]
        member: String,
    },
    /// Members whose copy holds something else than most; none of them any more where it is empty.
    Odd {
        at: Timestamp,
        members: Vec<u64>,
    },
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
    let told = told(&read(layout), SystemClock.now());
    let changes = told.changes.map(|what| fact(own, CLUSTER, what));
    let clean_ups = told.clean_ups.into_iter().map(|(member, millis)| {
        // Of an older program, which knew only its own.
        let member = if member.is_empty() { own } else { &member };
        fact(own, member, What::Maintenance { millis })
    });
    changes.into_iter().chain(clean_ups).collect()
}

/// Members that this server found to hold something else than most.
pub fn odd(layout: &Layout) -> BTreeSet<u64> {
    told(&read(layout), SystemClock.now()).odd
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    changes: Option<What>,
    /// The longest of each member, in milliseconds.
    clean_ups: BTreeMap<String, u64>,
    odd: BTreeSet<u64>,
}

fn told(notes: &[Note], now: Timestamp) -> Told {
    let is_news = |at: &Timestamp, span: SignedDuration| now.duration_since(*at) < span;
    let (mut told, mut count, mut last) = (Told::default(), 0_u32, None);
    for note in notes {
        match note {
            Note::Elections { at, count: more } if is_news(at, ELECTIONS) => {
                (count, last) = (count.saturating_add(*more), Some(*at));
            }
            Note::CleanUp { at, millis, member } if is_news(at, CLEAN_UPS) => {
                let longest = told.clean_ups.entry(member.clone()).or_default();
                *longest = (*longest).max(*millis);
            }
            Note::Odd { at, members } if is_news(at, COMPARISONS) => told.odd = members.iter().copied().collect(),
            Note::Elections { .. } | Note::CleanUp { .. } | Note::Odd { .. } => {}
        }
    }
    let minutes = u32::try_from(ELECTIONS.as_mins()).expect("minutes are few");
    let moves = last.is_some_and(|at| now.duration_since(at) < CALM);
    told.changes = moves.then_some(What::LeaderChanges { count, minutes });
    told
}

#[cfg(test)]
mod tests {
    use super::{Note, Told, told};
    use jiff::{SignedDuration, Timestamp};
    use keeper::wrong::What;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn elections_add_up_until_they_come_to_rest() {
        let clean_up =
            |minutes, millis, member: &str| Note::CleanUp { at: at(minutes), millis, member: member.to_owned() };
        let notes = [
            Note::Elections { at: at(0), count: 9 },
            Note::Elections { at: at(18), count: 2 },
            clean_up(19, 7_000, "b"),
            clean_up(19, 900, "b"),
            Note::Elections { at: at(20), count: 3 },
        ];
        let changes = What::LeaderChanges { count: 5, minutes: 10 };
        let clean_ups = [("b".to_owned(), 7_000)].into();
        assert_eq!(told(&notes, at(21)), Told { changes: Some(changes), clean_ups, ..Told::default() });
        assert_eq!(told(&notes, at(24)).changes, None);
        assert!(told(&notes, at(80)).clean_ups.is_empty());
    }

    #[test]
    fn the_newest_comparison_counts() {
        let odd = |minutes, members: &[u64]| Note::Odd { at: at(minutes), members: members.to_vec() };
        assert_eq!(told(&[odd(0, &[7])], at(60)).odd, [7].into());
        assert!(told(&[odd(0, &[7])], at(100)).odd.is_empty(), "nobody says so any more");
        assert!(told(&[odd(0, &[7]), odd(60, &[])], at(61)).odd.is_empty());
    }
}
