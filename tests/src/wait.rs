//! Waiting for a level with a bound: the only place of the tests that lets time pass.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const POLL: Duration = Duration::from_millis(25);

/// Asks until the answer is `Ok`, at most for `bound`; then fails with the last error.
pub fn eventually<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + bound;
    loop {
        match probe() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what}: not within {} s", bound.as_secs()));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Checks that something stays true for the whole of `span`.
pub fn holds(what: &str, span: Duration, mut probe: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + span;
    while Instant::now() < deadline {
        if !probe().with_context(|| what.to_owned())? {
            bail!("{what}: stopped being true");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Lets a span pass that is itself what is measured. Not for waiting.
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}
