//! Which nodes are lost, out of leases as this server saw them and of what servers hear. Pure.
//!
//! Judged by when *we* saw a lease change last: clocks of machines differ. And never by one witness, who may be the one
//! that is cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::wire::replace::Sighting;

/// A lease is renewed every ten seconds: one renewal did not come and the next is due.
pub const SILENT: Duration = Duration::from_secs(20);
/// Servers that must have looked, each for itself.
const WITNESSES_MIN: usize = 2;
/// Looks in a row that must find the same.
pub const LOOKS_MIN: u32 = 2;

/// The leases of nodes as they were last, and when they changed.
#[derive(Debug, Default)]
pub struct Leases(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    renewed: String,
    changed: Duration,
    /// It changed while we looked on: its node lives, or did a moment ago.
    lives: bool,
}

// === impl Leases ===

impl Leases {
    /// Takes in the leases as they are; `now` is of a clock that never goes back.
    pub fn see<'l>(&mut self, leases: impl Iterator<Item = (&'l str, &'l str)>, now: Duration) {
        let mut before = std::mem::take(&mut self.0);
        for (node, renewed) in leases {
            let seen = match before.remove(node) {
                Some(seen) if seen.renewed == renewed => seen,
                known => Seen { renewed: renewed.to_owned(), changed: now, lives: known.is_some() },
            };
            self.0.insert(node.to_owned(), seen);
        }
    }

    /// Nodes whose leases stand still.
    pub fn silent(&self, now: Duration) -> BTreeSet<String> {
        let still = self.0.iter().filter(|(_, seen)| seen.changed + SILENT <= now);
        still.map(|(node, _)| node.clone()).collect()
    }

    /// Whether a node was seen to renew its lease lately.
    pub fn lives(&self, node: &str, now: Duration) -> bool {
        self.0.get(node).is_some_and(|seen| seen.lives && now < seen.changed + SILENT)
    }
}

/// Whether so many silent nodes can be the nodes' own trouble. Of most it is the network's, or ours.
pub fn is_plausible(silent: usize, nodes: usize) -> bool {
    silent * 2 <= nodes
}

/// Whether nobody hears anything of a machine. A refused connection is heard as well.
pub fn is_unheard(sightings: &[Sighting]) -> bool {
    let witnesses: BTreeSet<&str> = sightings.iter().map(|one| one.by.as_str()).collect();
    WITNESSES_MIN <= witnesses.len() && sightings.iter().all(|one| one.answers.is_empty())
}

/// What a person reads about it.
pub fn sentence(sightings: &[Sighting]) -> String {
    let names: BTreeSet<&str> = sightings.iter().map(|one| one.by.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    format!("Its lease stands still, and no port of it answers {}.", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Leases, SILENT, is_plausible, is_unheard, sentence};
    use crate::wire::replace::Sighting;
    use std::time::Duration;

    fn sighting(by: &str, answers: &[&str]) -> Sighting {
        Sighting { by: by.to_owned(), answers: answers.iter().map(|one| (*one).to_owned()).collect() }
    }

    #[test]
    fn a_lease_is_silent_by_our_own_clock_and_lives_once_it_changed() {
        let (mut leases, second) = (Leases::default(), Duration::from_secs(1));
        leases.see([("a", "1"), ("b", "1")].into_iter(), Duration::ZERO);
        assert!(!leases.lives("a", second), "what was there before us may be old");
        leases.see([("a", "2"), ("b", "1")].into_iter(), second);
        assert!(leases.lives("a", second) && !leases.lives("b", second));
        assert!(leases.silent(SILENT - second).is_empty());
        assert_eq!(leases.silent(SILENT).into_iter().collect::<Vec<_>>(), ["b"]);
        assert!(!leases.lives("a", second + SILENT));
        leases.see([("b", "1")].into_iter(), SILENT);
        assert_eq!(leases.silent(SILENT * 3).len(), 1, "a lease that is gone says nothing");
    }

    #[test]
    fn two_must_hear_nothing() {
        assert!(is_unheard(&[sighting("a", &[]), sighting("b", &[])]));
        assert!(!is_unheard(&[sighting("a", &[]), sighting("a", &[])]), "one witness is none");
        assert!(!is_unheard(&[sighting("a", &[]), sighting("b", &["ssh"])]));
        let said = sentence(&[sighting("b", &[]), sighting("a", &[])]);
        assert_eq!(said, "Its lease stands still, and no port of it answers a, b.");
    }

    #[test]
    fn most_nodes_are_not_lost_at_once() {
        assert!(is_plausible(1, 3) && is_plausible(1, 2) && is_plausible(2, 4));
        assert!(!is_plausible(2, 3) && !is_plausible(1, 1));
    }
}
