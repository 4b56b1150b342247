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
