//! The world's real clock and randomness, behind the ports of `base`.

use base::{Clock, Rng};
use jiff::Timestamp;

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The TLS provider's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("the kernel gives randomness once it has booted");
    }
}
