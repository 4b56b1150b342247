//! Pods that wait for a node: ready to be tried, backing off after a failure, or waiting for news that could help.

use std::collections::BTreeMap;

use api::Key;
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};

const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(1);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(10);
/// Unschedulable pods are tried again after this long even without news.
const UNSCHEDULABLE_MAX: SignedDuration = SignedDuration::from_mins(5);

/// What has changed in the cluster, in the classes that can make a pod schedulable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    pub node: bool,
    pub pod_gone: bool,
    pub pod_bound: bool,
    pub volume: bool,
}

impl News {
    fn meets(self, wanted: News) -> bool {
        self.node && wanted.node
            || self.pod_gone && wanted.pod_gone
            || self.pod_bound && wanted.pod_bound
            || self.volume && wanted.volume
    }
}

#[derive(Debug, Default)]
pub struct Queue {
    entries: BTreeMap<SmolStr, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    priority: i32,
    since: Timestamp,
    attempts: u32,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Backoff {
        until: Timestamp,
    },
    /// Until one of the wanted kinds of news arrives; then no sooner than the backoff allows.
    Waiting {
        wants: News,
        since: Timestamp,
    },
}

impl Queue {
    /// Keeps an entry for this pod; a new one is ready at once.
    pub fn keep(&mut self, uid: &SmolStr, key: &Key, priority: i32, now: Timestamp) {
        let fresh = || Entry { key: key.clone(), priority, since: now, attempts: 0, state: State::Ready };
        self.entries.entry(uid.clone()).or_insert_with(fresh).priority = priority;
    }

    pub fn retain(&mut self, wanted: impl Fn(&SmolStr) -> bool) {
        self.entries.retain(|uid, _| wanted(uid));
    }

    pub fn remove(&mut self, uid: &SmolStr) {
        self.entries.remove(uid);
    }

    /// A changed pod is tried again: its own spec may be what stood in the way.
    pub fn wake(&mut self, uid: &SmolStr, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(uid)
            && let State::Waiting { since, .. } = entry.state
        {
            entry.state = after(since, entry.attempts, now);
        }
    }

    /// Moves pods that the news could help, whose backoff has passed, or that have waited long.
    pub fn advance(&mut self, news: News, now: Timestamp) {
        for entry in self.entries.values_mut() {
            match entry.state {
                State::Ready => {}
                State::Backoff { until } if until <= now => entry.state = State::Ready,
                State::Backoff { .. } => {}
                State::Waiting { wants, since } => {
                    if news.meets(wants) || since + UNSCHEDULABLE_MAX <= now {
                        entry.state = after(since, entry.attempts, now);
                    }
                }
            }
        }
    }

    /// Ready pods: the highest priority first, then who waits longest.
    pub fn ready(&self) -> Vec<(SmolStr, Key)> {
        let mut ready: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.state == State::Ready).collect();
        ready.sort_by(|(a_uid, a), (b_uid, b)| {
            (b.priority, a.since, &a.key, a_uid).cmp(&(a.priority, b.since, &b.key, b_uid))
        });
        ready.into_iter().map(|(uid, entry)| (uid.clone(), entry.key.clone())).collect()
    }

    /// The pod did not fit; `wants` says which news could change that.
    pub fn failed(&mut self, uid: &SmolStr, wants: News, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.attempts = entry.attempts.saturating_add(1);
            entry.state = State::Waiting { wants, since: now };
        }
    }

    /// Something went wrong that trying again may cure by itself.
    pub fn back_off(&mut self, uid: &SmolStr, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.attempts = entry.attempts.saturating_add(1);
            entry.state = State::Backoff { until: now + backoff(entry.attempts) };
        }
    }

    /// When the next entry becomes due by time alone.
    pub fn next_due(&self) -> Option<Timestamp> {
        let due = |entry: &Entry| match entry.state {
            State::Ready => None,
            State::Backoff { until } => Some(until),
            State::Waiting { since, .. } => Some(since + UNSCHEDULABLE_MAX),
        };
        self.entries.values().filter_map(due).min()
    }
}

fn backoff(attempts: u32) -> SignedDuration {
    let doublings = attempts.saturating_sub(1).min(8);
    (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX)
}

fn after(since: Timestamp, attempts: u32, now: Timestamp) -> State {
    let until = since + backoff(attempts);
    if until <= now { State::Ready } else { State::Backoff { until } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_right_news_and_backs_off() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (mut queue, uid) = (Queue::default(), SmolStr::from("u"));
        queue.keep(&uid, &Key::new("a", "p"), 0, now);
        assert_eq!(queue.ready().len(), 1);
        queue.failed(&uid, News { node: true, ..News::default() }, now);
        queue.advance(News { volume: true, ..News::default() }, now);
        assert!(queue.ready().is_empty());
        queue.advance(News { node: true, ..News::default() }, now);
        assert!(queue.ready().is_empty(), "the first backoff is one second");
        assert_eq!(queue.next_due(), Some(now + BACKOFF_FIRST));
        queue.advance(News::default(), now + BACKOFF_FIRST);
        assert_eq!(queue.ready().len(), 1);
    }
}
