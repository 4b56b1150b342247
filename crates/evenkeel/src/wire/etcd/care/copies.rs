//! Whether the copies hold the same. What memory or a disk turned is seen by nobody who reads one copy alone, and etcd's
//! own alarm for it stops all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use store::etcd::{Fingerprint, Member, MemberStatus, Members};
use tracing::{error, info, warn};

/// How often copies that were there all the time are compared: each reads its whole database for it.
const EVERY: Duration = Duration::from_secs(3600);
/// Comparisons in a row that could not tell; after these the next is put off as after one that could.
const TRIES_MAX: u32 = 5;

/// Copies that hold something else than most.
pub type Odd = BTreeSet<u64>;

/// When the leader compares, and what it found.
#[derive(Default)]
pub struct Comparison {
    last: Option<Instant>,
    /// Voters that answered at the last look: one that was away is compared as soon as it is back.
    present: BTreeSet<u64>,
    /// What one comparison found is believed when the next one finds it too.
    suspects: Odd,
    tries: u32,
}

// === impl Comparison ===

impl Comparison {
    /// Compares where it is time; answers what is certain.
    pub async fn look(
        &mut self,
        members: &Members,
        list: &[Member],
        statuses: &BTreeMap<u64, MemberStatus>,
        revision: i64,
    ) -> Option<Odd> {
        let voters: Vec<&Member> = list.iter().filter(|member| !member.learner).collect();
        let there: BTreeSet<u64> = voters.iter().map(|one| one.id).filter(|id| statuses.contains_key(id)).collect();
        if !there.is_subset(&self.present) {
            self.last = None;
        }
        self.present = there;
        if self.last.is_some_and(|at| at.elapsed() < EVERY) {
            return None;
        }
        let asked = voters.iter().filter(|one| self.present.contains(&one.id));
        let asked = asked.filter_map(|one| Some((one.id, one.client_urls.first()?)));
        let asked = asked.map(|(id, url)| async move { (id, members.fingerprint(url, revision).await) });
        let prints =
            futures::future::join_all(asked).await.into_iter().filter_map(|(id, print)| Some((id, print.ok()?)));
        let found = odd(&prints.collect(), voters.len());
        self.settle(found)
    }

    /// Nothing as long as nothing is certain; then the next look compares again.
    fn settle(&mut self, found: Option<Odd>) -> Option<Odd> {
        let Some(found) = found else {
            self.tries += 1;
            if TRIES_MAX <= self.tries {
                (self.tries, self.last) = (0, Some(Instant::now()));
            }
            return None;
        };
        self.tries = 0;
        if !found.is_empty() && found != self.suspects {
            warn!(members = ?found, "a copy of the state seems to differ from the others");
            self.suspects = found;
            return None;
        }
        self.last = Some(Instant::now());
        if found.is_empty() {
            info!("the copies of the state hold the same");
        } else {
            error!(members = ?found, "a copy of the state differs from the others");
        }
        Some(found)
    }

    /// Whether the next look should come soon.
    pub fn is_open(&self) -> bool {
        self.last.is_none()
    }
}

/// Who holds something else than most of the voters. None where it cannot be told: too few answered, or their histories
/// do not begin at one place.
fn odd(prints: &BTreeMap<u64, Fingerprint>, voters: usize) -> Option<Odd> {
    let mut groups: BTreeMap<Fingerprint, Odd> = BTreeMap::new();
    for (id, print) in prints {
        groups.entry(*print).or_default().insert(*id);
    }
    let most = groups.values().find(|group| voters < group.len() * 2)?;
    let begins: BTreeSet<i64> = prints.values().map(|print| print.compacted).collect();
    (begins.len() == 1).then(|| prints.keys().filter(|id| !most.contains(id)).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Odd, odd};
    use store::etcd::Fingerprint;

    fn found(prints: &[(u64, u32, i64)], voters: usize) -> Option<Vec<u64>> {
        let prints =
            prints.iter().map(|(id, hash, compacted)| (*id, Fingerprint { hash: *hash, compacted: *compacted }));
        odd(&prints.collect(), voters).map(|odd| odd.into_iter().collect())
    }

    #[test]
    fn most_are_right_and_nothing_is_guessed() {
        assert_eq!(found(&[(1, 7, 0), (2, 7, 0), (3, 7, 0)], 3), Some(Vec::new()));
        assert_eq!(found(&[(1, 7, 0), (2, 8, 0), (3, 7, 0)], 3), Some(vec![2]));
        assert_eq!(found(&[(1, 7, 0), (2, 7, 0)], 3), Some(Vec::new()), "one is away");
        assert_eq!(found(&[(1, 7, 0), (2, 8, 0)], 3), None, "one of the two is wrong");
        assert_eq!(found(&[(1, 7, 0), (2, 8, 0), (3, 9, 0)], 3), None);
        assert_eq!(found(&[(1, 7, 0), (2, 8, 0)], 2), None);
        assert_eq!(found(&[(1, 7, 5), (2, 7, 5), (3, 8, 4)], 3), None, "one has not forgotten as much");
        assert_eq!(found(&[], 3), None);
    }

    #[test]
    fn one_comparison_is_no_proof() {
        let mut comparison = Comparison::default();
        let two = || Some(Odd::from([2]));
        assert_eq!(comparison.settle(two()), None);
        assert!(comparison.is_open());
        assert_eq!(comparison.settle(None), None);
        assert_eq!(comparison.settle(two()), two());
        assert!(!comparison.is_open());
    }
}
