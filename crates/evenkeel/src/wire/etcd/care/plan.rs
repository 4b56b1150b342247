//! What a managed etcd needs next. Pure: the same observation gives the same step.
//!
//! One step at a time, and none that could cost the quorum: a member that is defragmented answers nothing meanwhile, so
//! it counts as one more that is down.

use std::collections::BTreeSet;

/// Below this a file is too small for its free pages to matter.
pub const FILE_BYTES_MIN: u64 = 64 << 20;
/// Hundredths of a file that must be free before it is rewritten.
pub const FREE_PERCENT_MIN: u64 = 50;
/// Hundredths of the quota from which free pages matter whatever their share: there writes soon stop.
pub const NEAR_QUOTA_PERCENT: u64 = 80;
/// Hundredths of the quota that a rewrite must win near it, or it would be repeated for nothing.
pub const WIN_PERCENT_MIN: u64 = 5;
/// Hundredths of the quota that a file may have for writes to be taken again: the quota is about the file, also where it
/// has free pages.
pub const ROOM_PERCENT_MAX: u64 = 95;

const _: () =
    assert!(FREE_PERCENT_MIN < 100 && WIN_PERCENT_MIN < NEAR_QUOTA_PERCENT && NEAR_QUOTA_PERCENT < ROOM_PERCENT_MAX);

/// One voting member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub id: u64,
    /// None where it does not answer.
    pub file: Option<File>,
}

/// A member's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: u64,
    pub used_bytes: u64,
}

/// The cluster at one moment, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub voters: Vec<Voter>,
    pub leader: u64,
    /// The size of a file at which writes stop.
    pub quota: u64,
    /// Members for which it was reached.
    pub no_space: Vec<u64>,
    /// The history that nobody needs any more is gone, as far as this is known.
    pub compacted: bool,
    /// Members that were defragmented since then.
    pub rewritten: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Forget the history, of which writes that are refused make no more.
    Compact,
    Defragment(u64),
    /// The leader comes last, as a follower.
    MoveLeader {
        to: u64,
    },
    /// Take writes again.
    Disarm(u64),
}

/// The next step, if there is one.
pub fn next(observed: &Observed) -> Option<Step> {
    let alarm = !observed.no_space.is_empty();
    if alarm && !observed.compacted {
        return Some(Step::Compact);
    }
    if let Some(step) = observed.defragment() {
        return Some(step);
    }
    // Where one file is at the quota still, the alarm would be back with the next write.
    let room = observed.files().all(|(_, file)| observed.has_room(file));
    observed.no_space.first().filter(|_| room).map(|id| Step::Disarm(*id))
}

/// How near the fullest member is to the quota, in hundredths.
pub fn fill_percent(observed: &Observed) -> u64 {
    let fullest = observed.files().map(|(_, file)| file.bytes).max().unwrap_or(0);
    fullest.saturating_mul(100) / observed.quota.max(1)
}

// === impl Observed ===

impl Observed {
    fn files(&self) -> impl Iterator<Item = (u64, File)> + '_ {
        self.voters.iter().filter_map(|voter| Some((voter.id, voter.file?)))
    }

    /// How many more members may fail before writes stop. None: they have stopped.
    fn margin(&self) -> Option<usize> {
        let quorum = self.voters.len() / 2 + 1;
        self.files().count().checked_sub(quorum)
    }

    /// Followers first, in the order of their ids.
    fn defragment(&self) -> Option<Step> {
        let mut due: Vec<u64> = self.files().filter(|(id, file)| self.pays(*id, *file)).map(|(id, _)| id).collect();
        due.sort_unstable_by_key(|id| (*id == self.leader, *id));
        let first = *due.first()?;
        if self.voters.len() == 1 {
            // Alone it has nobody to step in. While it takes no writes anyway, nothing is lost by it.
            return (!self.no_space.is_empty()).then_some(Step::Defragment(first));
        }
        if self.margin().is_none_or(|margin| margin == 0) {
            return None;
        }
        if first != self.leader {
            return Some(Step::Defragment(first));
        }
        let to = self.files().map(|(id, _)| id).filter(|id| *id != self.leader).min()?;
        Some(Step::MoveLeader { to })
    }

    fn has_room(&self, file: File) -> bool {
        file.bytes * 100 <= self.quota * ROOM_PERCENT_MAX
    }

    fn pays(&self, id: u64, file: File) -> bool {
        if !self.no_space.is_empty() {
            // What was forgotten counts as in use until the next write, and there is none.
            return !self.has_room(file) && !self.rewritten.contains(&id);
        }
        let free = file.bytes.saturating_sub(file.used_bytes);
        let near = self.quota * NEAR_QUOTA_PERCENT <= file.bytes * 100;
        let wins = self.quota * WIN_PERCENT_MIN <= free * 100;
        near && wins || FILE_BYTES_MIN <= file.bytes && file.bytes * FREE_PERCENT_MIN <= free * 100
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{File, Observed, Step, Voter, fill_percent, next};

    const MIB: u64 = 1 << 20;

    /// `a:100/20 b:- c:90/80`: file and use in MiB, or no answer. The first letter is the id 1, which leads; the quota is
    /// 1000 MiB.
    fn observed(text: &str) -> Observed {
        let voter = |word: &str| {
            let (name, file) = word.split_once(':').unwrap();
            let file = file.split_once('/').map(|(bytes, used)| File {
                bytes: bytes.parse::<u64>().unwrap() * MIB,
                used_bytes: used.parse::<u64>().unwrap() * MIB,
            });
            Voter { id: u64::from(name.as_bytes()[0] - b'a') + 1, file }
        };
        let voters = text.split_whitespace().map(voter).collect();
        Observed {
            voters,
            leader: 1,
            quota: 1000 * MIB,
            no_space: Vec::new(),
            compacted: false,
            rewritten: BTreeSet::new(),
        }
    }

    fn full(text: &str, compacted: bool) -> Observed {
        Observed { no_space: vec![2], compacted, ..observed(text) }
    }

    #[test]
    fn only_what_pays_is_rewritten() {
        assert_eq!(next(&observed("a:60/1 b:60/1 c:60/1")), None, "small files");
        assert_eq!(next(&observed("a:300/160 b:300/160 c:300/160")), None, "mostly in use");
        assert_eq!(next(&observed("a:300/100 b:300/160 c:300/100")), Some(Step::Defragment(3)));
        assert_eq!(next(&observed("a:850/700 b:850/820 c:850/700")), Some(Step::Defragment(3)), "near the quota");
        assert_eq!(next(&observed("a:850/820 b:850/820 c:850/820")), None, "near it, and nothing to win");
    }

    #[test]
    fn one_at_a_time_and_the_leader_last_as_a_follower() {
        assert_eq!(next(&observed("a:300/10 b:300/10 c:300/10")), Some(Step::Defragment(2)));
        assert_eq!(next(&observed("a:300/10 b:10/10 c:300/10")), Some(Step::Defragment(3)));
        assert_eq!(next(&observed("a:300/10 b:10/10 c:10/10")), Some(Step::MoveLeader { to: 2 }));
        let moved = Observed { leader: 2, ..observed("a:300/10 b:10/10 c:10/10") };
        assert_eq!(next(&moved), Some(Step::Defragment(1)));
    }

    #[test]
    fn never_when_one_more_loss_would_cost_the_quorum() {
        assert_eq!(next(&observed("a:300/10 b:300/10 c:-")), None);
        assert_eq!(next(&observed("a:300/10 b:300/10")), None, "two are no more than one");
        assert_eq!(next(&observed("a:300/10")), None, "alone");
        assert_eq!(next(&observed("a:300/10 b:- c:-")), None);
        assert_eq!(next(&observed("a:300/10 b:300/10 c:300/10 d:300/10 e:-")), Some(Step::Defragment(2)));
        let refusing = full("a:1000/10 b:1000/10 c:-", true);
        assert_eq!(next(&refusing), None, "also not while writes are refused");
    }

    #[test]
    fn a_full_one_forgets_shrinks_and_takes_writes_again() {
        assert_eq!(next(&full("a:1001/900 b:1001/900 c:1001/900", false)), Some(Step::Compact));
        assert_eq!(next(&full("a:1001/100 b:1001/100 c:1001/100", true)), Some(Step::Defragment(2)));
        assert_eq!(next(&full("a:1001/100 b:100/100 c:100/100", true)), Some(Step::MoveLeader { to: 2 }));
        assert_eq!(next(&full("a:100/100 b:100/100 c:100/100", true)), Some(Step::Disarm(2)));
        let stale = full("a:1001/1001 b:1001/1001 c:1001/1001", true);
        assert_eq!(next(&stale), Some(Step::Defragment(2)), "what it says of its free pages is old");
        let really = Observed { rewritten: [1, 2, 3].into(), ..full("a:1001/990 b:1001/990 c:1001/990", true) };
        assert_eq!(next(&really), None, "what is in use stays: a person has to decide");
        assert_eq!(fill_percent(&really), 100);
        let barely = Observed { rewritten: [1, 2, 3].into(), ..full("a:960/940 b:960/940 c:960/940", true) };
        assert_eq!(next(&barely), None, "the next write would raise it again");
    }

    #[test]
    fn a_lone_one_is_rewritten_only_while_it_takes_no_writes() {
        let alone = |compacted| Observed { no_space: vec![1], compacted, ..observed("a:1000/10") };
        assert_eq!(next(&alone(false)), Some(Step::Compact));
        assert_eq!(next(&alone(true)), Some(Step::Defragment(1)));
        let done = Observed { no_space: vec![1], compacted: true, ..observed("a:10/10") };
        assert_eq!(next(&done), Some(Step::Disarm(1)));
    }
}
