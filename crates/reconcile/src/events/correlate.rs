//! Which of many events become objects: the same again is counted, many alike are combined, a flood is cut. Pure.
//!
//! The rules are those of client-go's correlator: equal events count up; more than ten of one reason about one object
//! within ten minutes are combined; one source may write 25 about one object at once and one more every five minutes.

use std::collections::{BTreeMap, VecDeque};

use api::{Key, Tree};
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::News;

/// Objects and events remembered; the oldest are forgotten first, which costs a second event object, nothing more.
const REMEMBERED_MAX: usize = 4096;
const ALIKE_MAX: usize = 10;
const ALIKE_WITHIN: SignedDuration = SignedDuration::from_mins(10);
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

#[derive(Debug)]
pub(super) struct Correlator {
    host: String,
    written: Remembered<Written>,
    groups: Remembered<Group>,
    budgets: Remembered<Budget>,
}

/// What to do about one event.
#[derive(Debug, PartialEq)]
pub(super) enum Write {
    Create {
        key: Key,
        object: Tree,
    },
    /// `object` is for when the counted event has expired.
    Count {
        key: Key,
        patch: Tree,
        object: Tree,
    },
    Nothing,
}

#[derive(Debug)]
struct Written {
    key: Key,
    count: u64,
    first: Timestamp,
}

#[derive(Debug)]
struct Group {
    messages: std::collections::BTreeSet<String>,
    since: Timestamp,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

/// A map that forgets its oldest entries.
#[derive(Debug)]
struct Remembered<T> {
    entries: BTreeMap<String, T>,
    order: VecDeque<String>,
}

// === impl Correlator ===

impl Correlator {
    pub(super) fn new(host: &str) -> Correlator {
        let host = host.to_owned();
        Correlator { host, written: Remembered::new(), groups: Remembered::new(), budgets: Remembered::new() }
    }

    pub(super) fn step(&mut self, news: &News, now: Timestamp) -> Write {
        let about =
            format!("{}\n{}\n{}\n{}", news.component, news.regarding.kind, news.regarding.key, news.regarding.uid);
        let group = format!("{about}\n{}\n{}\n{}", news.regarding.field_path, news.warning, news.reason);
        let combined = self.combines(&group, &news.message, now);
        let message =
            if combined { format!("(combined from similar events): {}", news.message) } else { news.message.clone() };
        let same = if combined { group } else { format!("{group}\n{message}") };
        if !self.affords(&about, now) {
            return Write::Nothing;
        }
        if let Some(written) = self.written.get_mut(&same) {
            written.count += 1;
            let object = object(&self.host, news, &message, written, now);
            let patch = json!({"count": written.count, "lastTimestamp": seconds(now), "message": message});
            return Write::Count { key: written.key.clone(), patch, object };
        }
        // As upstream names events: the object's name and the time in nanoseconds, in hexadecimal.
        let name = format!("{}.{:x}", news.regarding.key.name, now.as_nanosecond());
        let namespace = Some(news.regarding.key.namespace.as_str()).filter(|ns| !ns.is_empty()).unwrap_or("default");
        let written = Written { key: Key::new(namespace, &name), count: 1, first: now };
        let object = object(&self.host, news, &message, &written, now);
        let key = written.key.clone();
        self.written.insert(same, written);
        Write::Create { key, object }
    }

    /// True where too many messages of one reason came within the window.
    fn combines(&mut self, group: &str, message: &str, now: Timestamp) -> bool {
        let fresh = || Group { messages: std::collections::BTreeSet::new(), since: now };
        if self.groups.get_mut(group).is_none_or(|known| known.since + ALIKE_WITHIN < now) {
            self.groups.insert(group.to_owned(), fresh());
        }
        let known = self.groups.get_mut(group).expect("it was inserted above");
        if known.messages.len() <= ALIKE_MAX {
            known.messages.insert(message.to_owned());
        }
        known.messages.len() > ALIKE_MAX
    }

    fn affords(&mut self, about: &str, now: Timestamp) -> bool {
        if self.budgets.get_mut(about).is_none() {
            self.budgets.insert(about.to_owned(), Budget { tokens: BURST, at: now });
        }
        let budget = self.budgets.get_mut(about).expect("it was inserted above");
        let passed = now.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.tokens = (budget.tokens + passed * REFILL_PER_SECOND).min(BURST);
        budget.at = now;
        let affords = budget.tokens >= 1.0;
        if affords {
            budget.tokens -= 1.0;
        }
        affords
    }
}

fn object(host: &str, news: &News, message: &str, written: &Written, now: Timestamp) -> Tree {
    let about = &news.regarding;
    let mut involved = json!({
        "apiVersion": about.api_version, "kind": about.kind, "name": about.key.name, "uid": about.uid,
    });
    for (field, value) in [("namespace", &about.key.namespace), ("fieldPath", &about.field_path)] {
        if !value.is_empty() {
            involved[field] = json!(value);
        }
    }
    let mut source = json!({"component": news.component});
    if !host.is_empty() {
        source["host"] = json!(host);
    }
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": written.key.name, "namespace": written.key.namespace},
        "involvedObject": involved,
        "reason": news.reason, "message": message, "type": if news.warning { "Warning" } else { "Normal" },
        "source": source, "reportingComponent": news.component, "reportingInstance": host,
        "firstTimestamp": seconds(written.first), "lastTimestamp": seconds(now), "count": written.count,
    })
}

fn seconds(at: Timestamp) -> SmolStr {
    base::format_smolstr!("{at:.0}")
}

// === impl Remembered ===

impl<T> Remembered<T> {
    fn new() -> Remembered<T> {
        Remembered { entries: BTreeMap::new(), order: VecDeque::new() }
    }

    fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        self.entries.get_mut(key)
    }

    fn insert(&mut self, key: String, value: T) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Correlator, News, Write};
    use api::Key;
    use api::op::Regarding;
    use jiff::{SignedDuration, Timestamp};

    fn news(message: &str) -> News {
        let regarding = Regarding {
            api_version: "v1".into(),
            kind: "Pod".into(),
            key: Key::new("n", "web"),
            uid: "u".into(),
            field_path: "".into(),
        };
        let reason = "BackOff".into();
        News { component: "kubelet".into(), regarding, warning: true, reason, message: message.to_owned() }
    }

    fn show(write: &Write) -> String {
        match write {
            Write::Create { object, .. } => format!("create {}", object["message"].as_str().unwrap()),
            Write::Count { patch, .. } => format!("count {}", patch["count"]),
            Write::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut correlator = Correlator::new("host");
        let seen: Vec<_> =
            (0..3).map(|_| show(&correlator.step(&news("pull failed"), Timestamp::UNIX_EPOCH))).collect();
        assert_eq!(seen, ["create pull failed", "count 2", "count 3"]);
    }

    #[test]
    fn many_alike_are_combined_and_a_flood_is_cut_until_time_passes() {
        let mut correlator = Correlator::new("host");
        let mut now = Timestamp::UNIX_EPOCH;
        let mut say = |n: usize, now| show(&correlator.step(&news(&format!("try {n}")), now));
        for n in 0..10 {
            assert_eq!(say(n, now), format!("create try {n}"));
        }
        assert_eq!(say(10, now), "create (combined from similar events): try 10");
        assert_eq!(say(11, now), "count 2");
        for n in 12..25 {
            assert!(say(n, now).starts_with("count"), "{n}");
        }
        assert_eq!(say(25, now), "nothing");
        now += SignedDuration::from_mins(5);
        assert_ne!(say(26, now), "nothing");
    }
}
