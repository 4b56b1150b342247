//! What was intended and what came of it, in order, each entry tied to the one before.
//!
//! An intention is durable before its effect begins. An entry's place in the line can be taken once, so of two
//! coordinators one learns that it is no longer alone. The chain of digests makes a line that was edited or mixed up
//! visible; a torn last line is what a power cut leaves, and is dropped.

use base::SmolStr;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::fence::Token;
use crate::generation::NodeName;
use crate::plan::StepId;

/// Longest entry, as a line.
pub const ENTRY_BYTES_MAX: usize = 16 << 10;
/// Entries of one run. A run of 64 nodes takes about a thousand.
pub const ENTRIES_MAX: usize = 1 << 14;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase")]
pub enum Phase {
    /// Somebody may carry the plan out. The first entry of a run.
    Armed {
        plan: Digest,
    },
    /// The effect of a step begins after this is durable.
    Intend,
    /// The effect is there and verified.
    Done,
    /// It was there before anything was done.
    Skipped,
    Failed {
        why: String,
    },
    /// The previous state is there again.
    Undone,
    Paused {
        why: String,
    },
    Resumed,
    /// From here on the way leads back.
    Back {
        why: String,
    },
    Finished,
    /// Needs a person.
    Stuck {
        why: String,
    },
}

/// An entry before it has its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub step: Option<StepId>,
    pub node: Option<NodeName>,
    pub phase: Phase,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub run: SmolStr,
    pub sequence: u64,
    pub generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    #[serde(flatten)]
    pub phase: Phase,
    /// A person, or a coordinator by its node.
    pub actor: SmolStr,
    pub token: Token,
    pub at: Timestamp,
    /// Digest of the entry before.
    pub previous: Digest,
}

/// The entries of one run, whole and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    run: SmolStr,
    generation: u64,
    entries: Vec<Entry>,
}

/// What is wrong with a line or an entry.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("line {line} is not an entry")]
    Malformed {
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("line {line} does not follow the one before it: the journal was edited or mixed with another")]
    Broken { line: usize },
    #[error("line {line} is longer than {ENTRY_BYTES_MAX} bytes")]
    TooLong { line: usize },
    #[error("more than {ENTRIES_MAX} entries")]
    TooMany,
    #[error("place {sequence} is taken: another coordinator writes this journal")]
    Taken { sequence: u64 },
    #[error("another coordinator has taken over (token {newest:?}, this one's is {given:?})")]
    Stale { given: Token, newest: Token },
}

// === impl Entry ===

impl Entry {
    /// As a line of JSON, with its end.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("entries are plain data");
        line.push('\n');
        line
    }
}

// === impl Journal ===

impl Journal {
    pub fn new(run: &str, generation: u64) -> Journal {
        Journal { run: run.into(), generation, entries: Vec::new() }
    }

    pub fn run(&self) -> &str {
        &self.run
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The newest token that wrote here.
    pub fn token(&self) -> Token {
        self.entries.last().map(|entry| entry.token).unwrap_or_default()
    }

    /// The entry that a draft becomes at the end of this journal. It is part of it after [`Journal::accept`].
    pub fn entry(&self, draft: Draft, actor: &str, token: Token, at: Timestamp) -> Entry {
        Entry {
            run: self.run.clone(),
            sequence: self.entries.len() as u64 + 1,
            generation: self.generation,
            step: draft.step,
            node: draft.node,
            phase: draft.phase,
            actor: actor.into(),
            token,
            at,
            previous: self.tip(),
        }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// When its place is taken, it does not follow, or its token is older than the newest here.
    pub fn accept(&mut self, entry: Entry) -> Result<(), JournalError> {
        let sequence = self.entries.len() as u64 + 1;
        if entry.sequence != sequence {
            return Err(JournalError::Taken { sequence: entry.sequence });
        }
        if entry.token < self.token() {
            return Err(JournalError::Stale { given: entry.token, newest: self.token() });
        }
        if entry.run != self.run || entry.generation != self.generation || entry.previous != self.tip() {
            return Err(JournalError::Broken { line: self.entries.len() + 1 });
        }
        if ENTRIES_MAX <= self.entries.len() {
            return Err(JournalError::TooMany);
        }
        self.entries.push(entry);
        Ok(())
    }

    fn tip(&self) -> Digest {
        self.entries.last().map_or_else(Digest::none, Digest::of)
    }

    /// As lines of JSON, one an entry.
    pub fn render(&self) -> String {
        self.entries.iter().map(Entry::line).collect()
    }

    /// Reads lines back. A last line without its end is what a power cut leaves: it was never acknowledged.
    ///
    /// # Errors
    /// At the first whole line that is no entry or does not follow the one before it.
    pub fn parse(run: &str, generation: u64, text: &str) -> Result<Journal, JournalError> {
        let mut journal = Journal::new(run, generation);
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let number = index + 1;
            let Some(line) = line.strip_suffix('\n') else { break };
            if ENTRY_BYTES_MAX < line.len() {
                return Err(JournalError::TooLong { line: number });
            }
            let entry = serde_json::from_str(line);
            let entry = entry.map_err(|source| JournalError::Malformed { line: number, source })?;
            journal.accept(entry).map_err(|error| match error {
                JournalError::TooMany => error,
                _ => JournalError::Broken { line: number },
            })?;
        }
        Ok(journal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let mut journal = Journal::new("r1", 2);
        for phase in [Phase::Armed { plan: Digest::of_bytes(b"plan") }, Phase::Intend, Phase::Done] {
            let step = (phase == Phase::Intend || phase == Phase::Done).then_some(StepId(0));
            let draft = Draft { step, node: None, phase };
            let entry = journal.entry(draft, "anna", Token(1), Timestamp::UNIX_EPOCH);
            journal.accept(entry).unwrap();
        }
        journal
    }

    #[test]
    fn lines_come_back_and_a_torn_tail_is_dropped() {
        let whole = journal();
        let text = whole.render();
        assert_eq!(Journal::parse("r1", 2, &text).unwrap(), whole);
        for cut in 0..text.len() {
            let found = Journal::parse("r1", 2, &text[..cut]).unwrap();
            let lines = text[..cut].matches('\n').count();
            assert_eq!(found.entries(), &whole.entries()[..lines], "cut at {cut}");
        }
    }

    #[test]
    fn an_edited_a_missing_and_a_foreign_line_are_found() {
        let text = journal().render();
        let edited = text.replace("anna", "ben!");
        assert!(matches!(Journal::parse("r1", 2, &edited), Err(JournalError::Broken { line: 2 })));
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let missing = [lines[0], lines[2]].concat();
        assert!(matches!(Journal::parse("r1", 2, &missing), Err(JournalError::Broken { line: 2 })));
        assert!(matches!(Journal::parse("r2", 2, &text), Err(JournalError::Broken { line: 1 })));
        assert!(matches!(Journal::parse("r1", 2, "{}\n"), Err(JournalError::Malformed { line: 1, .. })));
    }

    #[test]
    fn of_two_writers_one_is_told() {
        let mut shared = journal();
        let draft = || Draft { step: None, node: None, phase: Phase::Resumed };
        let one = shared.entry(draft(), "node1", Token(1), Timestamp::UNIX_EPOCH);
        let other = shared.entry(draft(), "node2", Token(2), Timestamp::UNIX_EPOCH);
        shared.accept(other).unwrap();
        assert!(matches!(shared.accept(one), Err(JournalError::Taken { sequence: 4 })));
        let late = shared.entry(draft(), "node1", Token(1), Timestamp::UNIX_EPOCH);
        assert!(matches!(shared.accept(late), Err(JournalError::Stale { .. })));
    }
}
