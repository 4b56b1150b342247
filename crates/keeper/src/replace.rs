//! A new machine in a lost one's place, as one who works at it sees it: what comes next, by what is recorded and by one
//! look at the cluster.
//!
//! Each part that was reached is recorded before the next one begins, so that the same command goes on anywhere, for
//! anybody. What is done to the cluster is either harmless when it is done again, or carries what it is meant for: the
//! old machine is taken out by its key, so that whoever comes late takes out nobody else.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// When what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// The old machine's last word, and when the cluster noticed its silence.
    pub last_word: Option<Timestamp>,
    pub noticed: Option<Timestamp>,
    pub decided: Option<Timestamp>,
    /// The command for the new machine was printed.
    pub offered: Option<Timestamp>,
    pub asked: Option<Timestamp>,
    /// Its member votes and its API serves; for an agent, it is registered.
    pub joined: Option<Timestamp>,
    pub caught_up: Option<Timestamp>,
    pub verified: Option<Timestamp>,
}

/// Which machine has the node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Old,
    Nobody,
    New,
}

/// One look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub holder: Holder,
    /// The API has an object of the node.
    pub registered: bool,
    /// The new machine has joined: as a server it serves, as an agent it is registered.
    pub joined: bool,
    pub ready: bool,
    /// The node has what was kept of the old one: labels, annotations, taints.
    pub restored: bool,
    /// Workloads are what they were, or have had the time to be.
    pub settled: bool,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Asked,
    Joined,
    Ready,
    Settled,
}

/// A part that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Asked,
    Joined,
    CaughtUp,
    Verified,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Take the old machine out, and no other.
    Remove,
    /// Make a token for the new machine, record that, and print the one command.
    Offer,
    Wait(Wait),
    /// Record it.
    Note(Mark),
    /// Give the node what was kept.
    Restore,
    KeepCard,
    /// Others may change other layers again.
    ReleaseLayer,
    /// The record goes last: as long as it is there, somebody may be needed to go on.
    Forget,
    Ended,
}

/// A replacement in the hands of one command.
#[derive(Clone, Debug)]
pub struct Replacement {
    pub times: Times,
    /// By this command: what another one printed, nobody may have any more.
    offered: bool,
    /// What was kept was given to the node by this command: what is taken away after that, somebody wishes so.
    restored: bool,
    closed: Closed,
}

/// How much of the end is done by this command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    Nothing,
    Card,
    Layer,
    Record,
}

// === impl Times ===

impl Times {
    pub fn mark(&mut self, mark: Mark, now: Timestamp) {
        let time = match mark {
            Mark::Asked => &mut self.asked,
            Mark::Joined => &mut self.joined,
            Mark::CaughtUp => &mut self.caught_up,
            Mark::Verified => &mut self.verified,
        };
        time.get_or_insert(now);
    }
}

// === impl Replacement ===

impl Replacement {
    /// Begins, or goes on from what is recorded.
    pub fn new(times: Times) -> Replacement {
        Replacement { times, offered: false, restored: false, closed: Closed::Nothing }
    }

    /// Somebody else recorded more, or something else.
    pub fn reread(&mut self, times: Times) {
        self.times = times;
    }

    /// What comes next. The same look gives the same answer until something was done.
    pub fn next(&self, seen: &Seen) -> Next {
        let Times { asked, joined, caught_up, verified, .. } = self.times;
        match seen.holder {
            _ if verified.is_some() => self.close(),
            Holder::New if asked.is_none() => Next::Note(Mark::Asked),
            _ if asked.is_some() => match (joined, caught_up) {
                (None, _) if seen.joined => Next::Note(Mark::Joined),
                (None, _) => Next::Wait(Wait::Joined),
                (_, None) if !seen.ready => Next::Wait(Wait::Ready),
                (_, None) if !seen.restored && !self.restored => Next::Restore,
                (_, None) => Next::Note(Mark::CaughtUp),
                _ if seen.settled => Next::Note(Mark::Verified),
                _ => Next::Wait(Wait::Settled),
            },
            Holder::Old => Next::Remove,
            // An earlier removal was cut off.
            Holder::Nobody if seen.registered => Next::Remove,
            Holder::Nobody | Holder::New if self.offered => Next::Wait(Wait::Asked),
            Holder::Nobody | Holder::New => Next::Offer,
        }
    }

    fn close(&self) -> Next {
        match self.closed {
            Closed::Nothing => Next::KeepCard,
            Closed::Card => Next::ReleaseLayer,
            Closed::Layer => Next::Forget,
            Closed::Record => Next::Ended,
        }
    }

    /// It was done.
    pub fn done(&mut self, what: Next, now: Timestamp) {
        match what {
            Next::Offer => {
                self.offered = true;
                self.times.offered.get_or_insert(now);
            }
            Next::Note(mark) => self.times.mark(mark, now),
            Next::Restore => self.restored = true,
            Next::KeepCard => self.closed = Closed::Card,
            Next::ReleaseLayer => self.closed = Closed::Layer,
            Next::Forget => self.closed = Closed::Record,
            Next::Remove | Next::Wait(_) | Next::Ended => {}
        }
    }
}
