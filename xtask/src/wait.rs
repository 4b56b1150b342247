//! Waiting for a level with a bound: the only place of the automation that lets time pass.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// Asks until the answer is `Ok` or, with the last error, until `bound` is over.
pub fn eventually<T>(bound: Duration, mut probe: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + bound;
    loop {
        match probe() {
            Err(_) if Instant::now() < deadline => std::thread::park_timeout(POLL),
            answer => return answer,
        }
    }
}
