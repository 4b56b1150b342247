//! Seats for requests: reads and writes served at once are bounded, the rest wait a little, then are told 429.
//!
//! A light form of priority and fairness: administrators (`system:masters`) and long-running requests take no seat, so a
//! flood can neither lock the owner out nor be kept alive by open watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::{Reason, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{READS_INFLIGHT_MAX, SEAT_TIMEOUT, WAITING_REQUESTS_MAX, WRITES_INFLIGHT_MAX};

pub struct Seats {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Seats {
    pub fn new() -> Seats {
        let reads = Arc::new(Semaphore::new(READS_INFLIGHT_MAX));
        let writes = Arc::new(Semaphore::new(WRITES_INFLIGHT_MAX));
        Seats { reads, writes, waiting: AtomicUsize::new(0) }
    }

    /// A seat, at once or within [`SEAT_TIMEOUT`].
    pub async fn take(&self, write: bool) -> Result<OwnedSemaphorePermit, Status> {
        let seats = if write { &self.writes } else { &self.reads };
        if let Ok(seat) = seats.clone().try_acquire_owned() {
            return Ok(seat);
        }
        let _waiting = Waiting::enter(&self.waiting)?;
        match tokio::time::timeout(SEAT_TIMEOUT, seats.clone().acquire_owned()).await {
            Ok(Ok(seat)) => Ok(seat),
            Ok(Err(_)) | Err(_) => Err(too_many()),
        }
    }
}

impl Default for Seats {
    fn default() -> Self {
        Seats::new()
    }
}

/// Counts one waiting request for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Result<Waiting<'a>, Status> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let entered = Waiting(waiting);
        if before < WAITING_REQUESTS_MAX { Ok(entered) } else { Err(too_many()) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn too_many() -> Status {
    let mut status = Status::new(Reason::TooManyRequests, "Too many requests, please try again later.");
    status.details.get_or_insert_default().retry_after_seconds = 1;
    status
}
