//! How often machines may knock: a bucket for each address and one for all. What is refused costs more than what is
//! granted, so that members are not held up by what guessers do to themselves. Pure: addresses and times, in; a verdict,
//! out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use jiff::{SignedDuration, Timestamp};

/// Addresses that are remembered. Those that have been quiet for longest are forgotten first.
const ADDRESSES_MAX: usize = 1024;
/// A machine asks a few times when it starts and twice a minute after that; a rack may share one address.
const EACH: Rate = Rate { burst: 60, per_second: 5 };
/// Proofs of keys that are verified, by everybody together.
const ALL: Rate = Rate { burst: 300, per_second: 50 };
/// What a refusal costs on top of the question.
const REFUSAL: i64 = 10;
const MILLI: i64 = 1000;

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: i64,
    per_second: i64,
}

/// In thousandths of a question; below zero it has to be waited for.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    milli: i64,
    at: Timestamp,
}

/// Who asked how often.
#[derive(Debug)]
pub struct Limit {
    each: BTreeMap<IpAddr, Bucket>,
    all: Bucket,
}

// === impl Bucket ===

impl Bucket {
    fn full(rate: Rate, now: Timestamp) -> Bucket {
        Bucket { milli: rate.burst * MILLI, at: now }
    }

    fn refill(&mut self, rate: Rate, now: Timestamp) {
        // A clock that goes back gives nothing, and takes nothing.
        let passed = now.duration_since(self.at).max(SignedDuration::ZERO).min(SignedDuration::from_hours(1));
        let gained = i64::try_from(passed.as_millis()).unwrap_or_default() * rate.per_second;
        self.milli = (self.milli + gained).min(rate.burst * MILLI);
        self.at = now;
    }

    /// How long until there is one more.
    fn wait(&self, rate: Rate) -> SignedDuration {
        SignedDuration::from_millis(((MILLI - self.milli).max(0) + rate.per_second - 1) / rate.per_second)
    }

    fn take(&mut self, count: i64, rate: Rate) {
        // Nobody owes more than one burst: an address is not locked out for longer than that takes.
        self.milli = (self.milli - count * MILLI).max(-rate.burst * MILLI);
    }
}

// === impl Limit ===

impl Limit {
    pub fn new(now: Timestamp) -> Limit {
        Limit { each: BTreeMap::new(), all: Bucket::full(ALL, now) }
    }

    /// Whether somebody may ask now; if not, how long to wait.
    pub fn ask(&mut self, from: Option<IpAddr>, now: Timestamp) -> Result<(), SignedDuration> {
        let each = self.bucket(from, now);
        let wait = each.wait(EACH);
        if wait.is_positive() {
            return Err(wait);
        }
        self.all.refill(ALL, now);
        let wait = self.all.wait(ALL);
        if wait.is_positive() {
            return Err(wait);
        }
        self.all.take(1, ALL);
        self.bucket(from, now).take(1, EACH);
        Ok(())
    }

    /// Somebody was refused.
    pub fn refused(&mut self, from: Option<IpAddr>, now: Timestamp) {
        self.bucket(from, now).take(REFUSAL, EACH);
    }

    fn bucket(&mut self, from: Option<IpAddr>, now: Timestamp) -> &mut Bucket {
        let from = network(from.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        if ADDRESSES_MAX <= self.each.len() && !self.each.contains_key(&from) {
            self.forget();
        }
        let bucket = self.each.entry(from).or_insert_with(|| Bucket::full(EACH, now));
        bucket.refill(EACH, now);
        bucket
    }

    fn forget(&mut self) {
        let quiet = self.each.iter().min_by_key(|(_, bucket)| bucket.at).map(|(address, _)| *address);
        if let Some(address) = quiet {
            self.each.remove(&address);
        }
    }
}

/// One machine may have as many addresses of IPv6 as it likes within its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from(u128::from(six) >> 64 << 64)),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::{ADDRESSES_MAX, Limit};
    use jiff::{SignedDuration, Timestamp};
    use std::net::IpAddr;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// How many questions in a row are let through.
    fn asks(limit: &mut Limit, from: &str, at: Timestamp) -> usize {
        (0..1000).take_while(|_| limit.ask(address(from), at).is_ok()).count()
    }

    #[test]
    fn an_address_has_its_own_measure_and_gets_it_back_with_time() {
        let mut limit = Limit::new(NOW);
        assert_eq!(asks(&mut limit, "192.0.2.1", NOW), 60);
        assert_eq!(asks(&mut limit, "::ffff:192.0.2.1", NOW), 0, "the same one");
        assert_eq!(asks(&mut limit, "192.0.2.2", NOW), 60, "another one is not held up");
        let wait = limit.ask(address("192.0.2.1"), NOW).unwrap_err();
        assert_eq!(asks(&mut limit, "192.0.2.1", NOW + wait), 1);
        assert_eq!(
            asks(&mut limit, "192.0.2.1", NOW + wait - SignedDuration::from_secs(5)),
            0,
            "a clock that went back"
        );
        assert_eq!(asks(&mut limit, "2001:db8::1", NOW), 60);
        assert_eq!(asks(&mut limit, "2001:db8::2:1", NOW), 0, "one network");
    }

    #[test]
    fn who_is_refused_waits_sooner_and_not_for_ever() {
        let mut limit = Limit::new(NOW);
        let mut tries = 0;
        while limit.ask(address("192.0.2.1"), NOW).is_ok() {
            limit.refused(address("192.0.2.1"), NOW);
            tries += 1;
        }
        assert_eq!(tries, 6);
        for _ in 0..100 {
            limit.refused(address("192.0.2.1"), NOW);
        }
        assert!(limit.ask(address("192.0.2.1"), NOW + SignedDuration::from_secs(13)).is_ok());
    }

    #[test]
    fn all_together_have_a_measure_and_the_table_has_an_end() {
        let mut limit = Limit::new(NOW);
        let through: usize = (0..20).map(|last| asks(&mut limit, &format!("192.0.2.{last}"), NOW)).sum();
        assert_eq!(through, 300);
        for high in 0..40 {
            for low in 0..100 {
                let at = NOW + SignedDuration::from_millis(high * 100 + low);
                let _ = limit.ask(address(&format!("10.0.{high}.{low}")), at);
            }
        }
        assert_eq!(limit.each.len(), ADDRESSES_MAX);
    }
}
