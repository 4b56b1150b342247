//! Ports to a world that exists only here: one line of virtual time, clocks that differ from it, randomness from a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base::{Clock, Rng, SeededRng};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Wall time of a machine: virtual time, and how far its clock is off.
pub struct SimClock {
    origin: Instant,
    off_millis: AtomicI64,
}

/// A source of numbers that gives others, so that each part's numbers do not depend on how often another asks.
pub struct Seeds(SeededRng);

/// How much goes wrong in a run. It is drawn before anything else, so that seeds differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Longest way of one message to the record or back.
    pub latency_millis_max: u64,
    /// Of so many commits one is refused, and one loses its reply.
    pub commit_trouble_one_in: u64,
    /// Of so many writes one never hears its answer.
    pub lost_one_in: u64,
    /// Of so many writes of loops one is held up before it is carried out.
    pub held_one_in: u64,
    /// Something goes wrong, or right again, no more seldom than this.
    pub trouble_seconds_max: u64,
}

// === impl Weather ===

impl Weather {
    pub fn draw(rng: &dyn Rng) -> Weather {
        let any = |choices: [u64; 3]| choices[usize::try_from(below(rng, 3)).expect("a small number")];
        Weather {
            latency_millis_max: any([4, 12, 120]),
            commit_trouble_one_in: any([12, 40, 400]),
            lost_one_in: any([20, 60, 600]),
            held_one_in: any([60, 200, 1000]),
            trouble_seconds_max: any([4, 8, 30]),
        }
    }
}

// === impl SimClock ===

impl SimClock {
    pub fn new() -> Arc<SimClock> {
        Arc::new(SimClock { origin: Instant::now(), off_millis: AtomicI64::new(0) })
    }

    /// Sets the clock off by this much.
    pub fn skew(&self, by: SignedDuration) {
        self.off_millis.store(i64::try_from(by.as_millis()).unwrap_or_default(), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a literal time");
        start + self.origin.elapsed() + SignedDuration::from_millis(self.off_millis.load(Ordering::Relaxed))
    }
}

// === impl Seeds ===

impl Seeds {
    pub fn new(seed: u64) -> Seeds {
        Seeds(SeededRng::new(seed))
    }

    pub fn split(&self) -> Arc<dyn Rng> {
        Arc::new(SeededRng::new(self.0.next_u64()))
    }
}

/// A number below `bound`.
pub fn below(rng: &dyn Rng, bound: u64) -> u64 {
    rng.next_u64() % bound
}

pub fn seconds(rng: &dyn Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(least * 1000 + below(rng, (most - least) * 1000))
}
