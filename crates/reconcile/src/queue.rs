//! Which keys to look at and when: each key once, never two workers on one key. Pure: time comes in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use api::Key;
use tokio::time::Instant;

/// Keys waiting, due later, and under way. Bounded by the number of keys there are.
#[derive(Debug, Default)]
pub struct Queue {
    ready: VecDeque<Key>,
    waiting: BTreeSet<Key>,
    /// The earliest time a key is due, and the same by time.
    due: BTreeMap<Key, Instant>,
    by_time: BTreeSet<(Instant, Key)>,
    busy: BTreeSet<Key>,
    /// Keys that were told of while under way: they are looked at once more afterwards.
    again: BTreeSet<Key>,
    failures: BTreeMap<Key, u32>,
}

// === impl Queue ===

impl Queue {
    /// Looks at a key as soon as a worker is free.
    pub fn add(&mut self, key: Key) {
        if self.busy.contains(&key) {
            self.again.insert(key);
            return;
        }
        self.forget_due(&key);
        if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Looks at a key at a time, or earlier where it was to be looked at earlier.
    pub fn add_at(&mut self, key: Key, at: Instant) {
        let sooner = self.due.get(&key).is_some_and(|due| *due <= at);
        if sooner || self.waiting.contains(&key) || self.again.contains(&key) {
            return;
        }
        self.forget_due(&key);
        self.due.insert(key.clone(), at);
        self.by_time.insert((at, key));
    }

    /// The next key; it counts as under way until [`Queue::done`].
    pub fn take(&mut self, now: Instant) -> Option<Key> {
        while let Some((at, _)) = self.by_time.first()
            && *at <= now
        {
            let (_, key) = self.by_time.pop_first().expect("it was there one line ago");
            self.due.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// A key's turn is over. Returns how many turns in a row have failed.
    pub fn done(&mut self, key: &Key, failed: bool) -> u32 {
        self.busy.remove(key);
        let failures = if failed { self.failures.remove(key).unwrap_or(0) + 1 } else { 0 };
        if failed {
            self.failures.insert(key.clone(), failures);
        } else {
            self.failures.remove(key);
        }
        // After a failure the backoff decides, not the news: else a conflict with a busy writer spins.
        if self.again.remove(key) && !failed {
            self.add(key.clone());
        }
        failures
    }

    /// Keys waiting for a worker.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub fn busy(&self) -> usize {
        self.busy.len()
    }

    pub fn failing(&self) -> usize {
        self.failures.len()
    }

    fn forget_due(&mut self, key: &Key) {
        if let Some(at) = self.due.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use api::Key;
    use std::time::Duration;
    use tokio::time::Instant;

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    #[test]
    fn a_key_waits_once_and_runs_alone() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"));
        queue.add(key("a"));
        assert_eq!(queue.take(now), Some(key("a")));
        queue.add(key("a"));
        assert_eq!(queue.take(now), None, "a worker has it");
        assert_eq!(queue.done(&key("a"), false), 0);
        assert_eq!(queue.take(now), Some(key("a")), "it was told of meanwhile");
    }

    #[test]
    fn the_earlier_of_two_times_wins_and_news_beats_both() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let second = Duration::from_secs(1);
        queue.add_at(key("a"), now + 3 * second);
        queue.add_at(key("a"), now + second);
        queue.add_at(key("a"), now + 2 * second);
        assert_eq!(queue.next_due(), Some(now + second));
        assert_eq!(queue.take(now), None);
        queue.add(key("a"));
        assert_eq!(queue.take(now), Some(key("a")));
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn failures_in_a_row_are_counted_until_one_turn_holds() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for expect in 1..=3 {
            queue.add(key("a"));
            queue.take(now);
            assert_eq!(queue.done(&key("a"), true), expect);
        }
        queue.add(key("a"));
        queue.take(now);
        assert_eq!(queue.done(&key("a"), false), 0);
        assert_eq!(queue.failing(), 0);
    }

    #[test]
    fn news_during_a_failed_turn_does_not_skip_the_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"));
        queue.take(now);
        queue.add(key("a"));
        queue.done(&key("a"), true);
        queue.add_at(key("a"), now + Duration::from_secs(1));
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.take(now + Duration::from_secs(1)), Some(key("a")));
    }
}
