//! Which bundles of a target may go. Never the newest, and never the last that was proven.

use jiff::{SignedDuration, Timestamp};

use super::BundleName;

/// A bundle that a target holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub name: BundleName,
    /// A proof of it has passed.
    pub proven: bool,
}

/// How many are kept, and for how long. Both must allow a bundle to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many stay, whatever their age.
    pub count: usize,
    /// Of the others those that are younger stay too; None: they go.
    pub age: Option<SignedDuration>,
}

// === impl Retention ===

impl Retention {
    /// Those that go, oldest first. Input in any order.
    pub fn surplus(&self, held: &[Held], now: Timestamp) -> Vec<BundleName> {
        let mut newest_first: Vec<&Held> = held.iter().collect();
        newest_first.sort_by(|one, other| other.name.cmp(&one.name));
        let last_proven = newest_first.iter().find(|held| held.proven).map(|held| &held.name);
        let old = |held: &&&Held| self.age.is_none_or(|age| held.name.made() + age < now);
        let beyond = newest_first.iter().skip(self.count.max(1)).filter(old);
        let mut surplus: Vec<BundleName> = beyond.map(|held| held.name.clone()).collect();
        surplus.retain(|name| Some(name) != last_proven);
        surplus.reverse();
        surplus
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, Retention};
    use crate::backup::BundleName;
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    const DAY: i64 = 86_400;

    fn now() -> Timestamp {
        Timestamp::from_second(1000 * DAY).unwrap()
    }

    fn held(days: i64, proven: bool) -> Held {
        let made = now() - SignedDuration::from_secs(days * DAY);
        Held { name: BundleName::new(made, 1), proven }
    }

    /// Ages in days of those that go.
    fn gone(count: usize, age: Option<i64>, list: &[(i64, bool)]) -> Vec<i64> {
        let retention = Retention { count, age: age.map(|days| SignedDuration::from_secs(days * DAY)) };
        let list: Vec<Held> = list.iter().map(|(days, proven)| held(*days, *proven)).collect();
        let days = |name: BundleName| now().duration_since(name.made()).as_secs() / DAY;
        retention.surplus(&list, now()).into_iter().map(days).collect()
    }

    #[test]
    fn the_last_proven_one_stays() {
        assert_eq!(gone(2, None, &[(1, false), (2, false), (3, false), (4, true), (5, true)]), [5, 3]);
        assert_eq!(gone(2, None, &[(1, true), (2, false), (3, true)]), [3]);
        assert_eq!(gone(2, Some(7), &[(1, false), (2, false), (3, false), (9, false)]), [9]);
        assert_eq!(gone(0, None, &[(1, false), (2, false)]), [2], "one stays always");
    }

    proptest! {
        #[test]
        fn nothing_that_counts_ever_goes(
            list in proptest::collection::btree_map(0_i64..400, any::<bool>(), 0..30),
            count in 0_usize..10,
            age in proptest::option::of(0_i64..400),
            seed in any::<u64>(),
        ) {
            let mut list: Vec<Held> = list.into_iter().map(|(days, proven)| held(days, proven)).collect();
            let retention = Retention { count, age: age.map(|days| SignedDuration::from_secs(days * DAY)) };
            let surplus = retention.surplus(&list, now());
            let left = |list: &[Held]| -> Vec<Held> {
                list.iter().filter(|held| !surplus.contains(&held.name)).cloned().collect()
            };
            let kept = left(&list);
            let newest = list.iter().max_by_key(|held| held.name.clone());
            prop_assert!(newest.is_none_or(|newest| kept.contains(newest)), "the newest goes");
            let proven = list.iter().filter(|held| held.proven).max_by_key(|held| held.name.clone());
            prop_assert!(proven.is_none_or(|proven| kept.contains(proven)), "the last proven one goes");
            prop_assert!(kept.len() >= count.min(list.len()), "fewer than asked for stay");
            prop_assert!(age.is_some() || kept.len() <= count.max(1) + 1, "more than asked for stay");
            prop_assert!(retention.surplus(&kept, now()).is_empty(), "a second look takes more");
            // The order of a listing decides nothing.
            let length = list.len().max(1);
            list.rotate_left((seed as usize) % length);
            prop_assert_eq!(retention.surplus(&list, now()), surplus);
        }
    }
}
