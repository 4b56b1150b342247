//! The ledger of differences: one line a difference, opened once two looks in a row saw it, closed when it is gone.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::compare::{Look, Thing, compare};
use super::session::Session;

/// Lines that are kept: of closed ones the oldest go first, of open ones no more are taken in than fit.
pub const LINES_MAX: usize = 256;
/// Repairs of one thing within [`REPAIRS_WINDOW`]: somebody else wants it otherwise, and this is no fight to win.
pub const REPAIRS_MAX: u32 = 3;
const REPAIRS_WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    #[serde(flatten)]
    pub thing: Thing,
    /// In what it differs.
    pub change: String,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// When it was changed, where the machine remembers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Timestamp>,
    /// Sessions that were open when it came up.
    #[serde(default)]
    pub sessions: Vec<Session>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repairs: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closing>,
}

/// How a difference ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    pub at: Timestamp,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// It is again as it should be, or should be as it is.
    Returned,
    /// It was put back by policy.
    Repaired,
}

/// What a look changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    pub opened: Vec<Line>,
    pub closed: Vec<Line>,
}

/// Every difference that is known, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    pub lines: Vec<Line>,
    /// Differences that the last look found no room for.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped: u32,
    /// Seen once; what is seen again becomes a line.
    #[serde(skip)]
    pending: BTreeMap<Thing, Timestamp>,
    /// Put back since the last look.
    #[serde(skip)]
    repaired: BTreeMap<Thing, Timestamp>,
}

// === impl Ledger ===

impl Ledger {
    pub fn open(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.closed.is_none())
    }

    /// Takes a look in. `sessions` are those that were open since the look before.
    pub fn observe(&mut self, look: &Look, now: Timestamp, sessions: &[Session]) -> News {
        let differences = compare(look);
        let mut news = News::default();
        let looked = |line: &&mut Line| line.closed.is_none() && !look.unknown.contains(&line.thing.kind);
        for line in self.lines.iter_mut().filter(looked) {
            match differences.get(&line.thing) {
                Some(change) => {
                    line.change.clone_from(change);
                    line.last_seen = now;
                }
                None => {
                    let how = if self.repaired.contains_key(&line.thing) { How::Repaired } else { How::Returned };
                    line.closed = Some(Closing { at: now, how });
                    news.closed.push(line.clone());
                }
            }
        }
        self.repaired.clear();
        self.open_lines(differences, now, sessions, &mut news);
        news
    }

    fn open_lines(
        &mut self,
        differences: BTreeMap<Thing, String>,
        now: Timestamp,
        sessions: &[Session],
        news: &mut News,
    ) {
        let before = std::mem::take(&mut self.pending);
        self.dropped = 0;
        for (thing, change) in differences {
            if self.open().any(|line| line.thing == thing) {
                continue;
            }
            let first = before.get(&thing).copied();
            let opened = first.and_then(|first| self.append(&thing, change, (first, now), sessions));
            if opened.is_none() {
                self.dropped += u32::from(first.is_some());
                self.pending.insert(thing, first.unwrap_or(now));
            }
            news.opened.extend(opened);
        }
    }

    /// None where there is no room.
    fn append(
        &mut self,
        thing: &Thing,
        change: String,
        (first_seen, last_seen): (Timestamp, Timestamp),
        sessions: &[Session],
    ) -> Option<Line> {
        if LINES_MAX <= self.lines.len() {
            let oldest = self.lines.iter().position(|line| line.closed.is_some())?;
            self.lines.remove(oldest);
        }
        let repairs = self.repairs(thing, last_seen);
        let (thing, sessions) = (thing.clone(), sessions.to_vec());
        let line = Line { thing, change, first_seen, last_seen, changed: None, sessions, repairs, closed: None };
        self.lines.push(line.clone());
        Some(line)
    }

    /// How often a thing was put back lately.
    fn repairs(&self, thing: &Thing, now: Timestamp) -> u32 {
        let last = self.lines.iter().rev().find(|line| line.thing == *thing);
        let lately = |line: &&Line| now.duration_since(line.last_seen) < REPAIRS_WINDOW;
        last.filter(lately).map_or(0, |line| line.repairs)
    }

    /// Open lines that may be put back: what comes back again and again is left alone.
    pub fn to_repair(&self) -> Vec<Thing> {
        self.open().filter(|line| line.repairs < REPAIRS_MAX).map(|line| line.thing.clone()).collect()
    }

    /// Notes that a thing was put back; the next look says whether it stays.
    pub fn note_repair(&mut self, thing: &Thing, now: Timestamp) {
        self.repaired.insert(thing.clone(), now);
        if let Some(line) = self.lines.iter_mut().find(|line| line.closed.is_none() && line.thing == *thing) {
            line.repairs += 1;
        }
    }

    /// Notes when a thing was changed, where the machine remembers.
    pub fn note_changed(&mut self, thing: &Thing, changed: Timestamp) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.closed.is_none() && line.thing == *thing) {
            line.changed = Some(changed);
        }
    }
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::super::compare::{Kind, State};
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn thing(name: &str) -> Thing {
        Thing::new(Kind::Sysctl, name)
    }

    /// A look at settings that shall all be 1.
    fn look(values: &[(&str, &str)]) -> Look {
        let mut look = Look::default();
        for (name, value) in values {
            look.want(thing(name), State::Value("1".to_owned()));
            look.see(thing(name), State::Value((*value).to_owned()));
        }
        look
    }

    fn anna() -> Session {
        Session { user: "anna".into(), from: "192.0.2.7".into(), terminal: "pts/0".into(), since: None }
    }

    #[test]
    fn a_difference_becomes_one_line_with_who_was_there() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.observe(&look(&[("a", "0")]), at(0), &[anna()]), News::default());
        let news = ledger.observe(&look(&[("a", "0")]), at(20), &[anna()]);
        assert_eq!((news.opened.len(), news.opened[0].first_seen), (1, at(0)));
        assert_eq!(news.opened[0].sessions, [anna()]);
        assert_eq!(ledger.observe(&look(&[("a", "2")]), at(40), &[]), News::default());
        assert_eq!((ledger.lines[0].change.as_str(), ledger.lines[0].last_seen), ("is 2, was 1", at(40)));
        let blind = Look { unknown: [Kind::Sysctl].into(), ..Look::default() };
        assert_eq!(ledger.observe(&blind, at(50), &[]), News::default());
        let news = ledger.observe(&look(&[("a", "1")]), at(60), &[]);
        assert_eq!(news.closed[0].closed, Some(Closing { at: at(60), how: How::Returned }));
        assert_eq!(ledger.open().count(), 0);
    }

    /// Its owner wrote first and said so a moment later.
    #[test]
    fn what_only_one_look_saw_is_no_line() {
        let mut ledger = Ledger::default();
        ledger.observe(&look(&[("a", "0")]), at(0), &[]);
        ledger.observe(&look(&[("a", "1")]), at(20), &[]);
        assert_eq!(ledger.observe(&look(&[("a", "0")]), at(40), &[]), News::default());
        assert!(ledger.lines.is_empty());
    }

    #[test]
    fn repairs_are_noted_and_end_where_somebody_wants_it_otherwise() {
        let mut ledger = Ledger::default();
        let mut now = 0;
        for round in 0..=REPAIRS_MAX {
            for _ in 0..2 {
                ledger.observe(&look(&[("a", "0")]), at(now), &[]);
                now += 20;
            }
            let due = ledger.to_repair();
            assert_eq!(due.len(), usize::from(round < REPAIRS_MAX), "round {round}");
            let Some(thing) = due.first() else { break };
            ledger.note_repair(thing, at(now));
            let news = ledger.observe(&look(&[("a", "1")]), at(now), &[]);
            assert_eq!(news.closed[0].closed.map(|closing| closing.how), Some(How::Repaired));
        }
        // An hour later it is worth another try.
        ledger.observe(&look(&[("a", "1")]), at(now), &[]);
        ledger.observe(&look(&[("a", "0")]), at(now + 7200), &[]);
        ledger.observe(&look(&[("a", "0")]), at(now + 7220), &[]);
        assert_eq!(ledger.to_repair().len(), 1);
    }

    #[test]
    fn the_ledger_has_an_end() {
        let mut ledger = Ledger::default();
        let names: Vec<String> = (0..LINES_MAX + 2).map(|number| format!("{number:04}")).collect();
        let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "0")).collect();
        ledger.observe(&look(&all), at(0), &[]);
        ledger.observe(&look(&all), at(20), &[]);
        assert_eq!((ledger.lines.len(), ledger.dropped), (LINES_MAX, 2));
        // Closed lines make room.
        ledger.observe(&look(&[]), at(40), &[]);
        ledger.observe(&look(&[("new", "0")]), at(60), &[]);
        ledger.observe(&look(&[("new", "0")]), at(80), &[]);
        assert_eq!((ledger.lines.len(), ledger.open().count()), (LINES_MAX, 1));
        let text = serde_json::to_string(&ledger).unwrap();
        let back: Ledger = serde_json::from_str(&text).unwrap();
        assert_eq!(back.lines, ledger.lines);
    }
}
