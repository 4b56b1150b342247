//! Answers from elsewhere, kept for a short while in bounded memory. Pure: time comes in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

/// Answers kept at once.
pub const ENTRIES_MAX: usize = 4096;
/// Longest an answer is kept, whatever it says.
pub const TTL_MAX: Duration = Duration::from_secs(30);
/// Longest an answer that there is nothing is kept.
pub const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(5);

/// What was asked; names compare without case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheKey {
    pub name: Name,
    pub kind: RecordType,
    /// The client wants signatures: another answer.
    pub signatures: bool,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    stored: Duration,
    until: Duration,
}

/// Times are distances from a fixed start.
#[derive(Debug, Default)]
pub struct Cache {
    entries: BTreeMap<CacheKey, Entry>,
    order: VecDeque<CacheKey>,
}

// === impl Cache ===

impl Cache {
    /// An answer that is still good, its TTLs less the time it lay here.
    pub fn get(&self, key: &CacheKey, now: Duration) -> Option<Message> {
        let entry = self.entries.get(key).filter(|entry| now < entry.until)?;
        let mut message = entry.message.clone();
        let age = u32::try_from(now.saturating_sub(entry.stored).as_secs()).unwrap_or(u32::MAX);
        let records = message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals);
        for record in records {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    pub fn put(&mut self, key: CacheKey, message: &Message, now: Duration) {
        let Some(keep) = lifetime(message).filter(|keep| !keep.is_zero()) else { return };
        let entry = Entry { message: message.clone(), stored: now, until: now + keep };
        if self.entries.insert(key.clone(), entry).is_none() {
            self.order.push_back(key);
        }
        while ENTRIES_MAX < self.entries.len() {
            let Some(oldest) = self.order.pop_front() else { break };
            self.entries.remove(&oldest);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

/// How long a message may be kept; None where it may not.
fn lifetime(message: &Message) -> Option<Duration> {
    if message.metadata.truncation {
        return None;
    }
    let shortest = message.answers.iter().map(|record| record.ttl).min();
    match (message.metadata.response_code, shortest) {
        (ResponseCode::NoError, Some(seconds)) => Some(Duration::from_secs(seconds.into()).min(TTL_MAX)),
        (ResponseCode::NoError | ResponseCode::NXDomain, _) => {
            // RFC 2308: the lesser of the record's TTL and its minimum field.
            let soa = message.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            });
            Some(Duration::from_secs(soa?.into()).min(NEGATIVE_TTL_MAX))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

    fn key(number: usize) -> CacheKey {
        CacheKey { name: Name::from_ascii(format!("n{number}.")).unwrap(), kind: RecordType::A, signatures: false }
    }

    fn answer(ttl: u32) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.add_answer(Record::from_rdata(key(0).name, ttl, RData::A(A([192, 0, 2, 1].into()))));
        message
    }

    #[test]
    fn answers_age_end_and_make_room() {
        let seconds = Duration::from_secs;
        let mut cache = Cache::default();
        cache.put(key(0), &answer(10), seconds(100));
        assert_eq!(cache.get(&key(0), seconds(104)).unwrap().answers[0].ttl, 6);
        assert!(cache.get(&key(0), seconds(110)).is_none());
        cache.put(key(1), &answer(0), seconds(0));
        cache.put(key(2), &Message::error_msg(1, OpCode::Query, ResponseCode::ServFail), seconds(0));
        assert_eq!(cache.len(), 1, "what must not be kept is not");
        for number in 0..ENTRIES_MAX + 10 {
            cache.put(key(number), &answer(9999), seconds(200));
        }
        assert_eq!(cache.len(), ENTRIES_MAX);
        assert!(cache.get(&key(ENTRIES_MAX + 9), seconds(200 + 29)).is_some());
        assert!(cache.get(&key(ENTRIES_MAX + 9), seconds(200 + 31)).is_none(), "30 s are the most");
    }
}
