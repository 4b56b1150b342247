//! Growing pauses between tries, spread by jitter so that a fleet does not knock in step.

use std::time::Duration;

use base::Rng;

/// `first`, doubled per failure in a row up to `most`; each pause is drawn from its upper half.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    /// For requests of a watch or a list: upstream's reflector waits 0.8 s to 30 s; a local server is back sooner.
    pub const WATCH: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(10) };

    /// The pause before try number `failures + 1`. `failures` is at least 1 after a first failure.
    pub fn pause(&self, failures: u32, rng: &dyn Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let full = self.first.saturating_mul(1 << doublings).min(self.most);
        let half = full / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(rng.next_u64() % span)
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use base::SeededRng;
    use std::time::Duration;

    #[test]
    fn grows_to_its_bound_and_no_further() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) };
        let rng = SeededRng::new(7);
        for (failures, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000)] {
            let pause = backoff.pause(failures, &rng);
            let full = Duration::from_millis(full);
            assert!(full / 2 <= pause && pause <= full, "{failures}: {pause:?}");
        }
    }
}
