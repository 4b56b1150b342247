//! An engine between the store and a real one, which loses what a network loses.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use admit::Batch;
use async_trait::async_trait;
use base::Revision;

use crate::{CommitId, Engine, EngineError, Entry, Load, Tail, TailError, WriteError};

/// A real engine behind a network that can be told what to lose.
pub struct Faulty {
    inner: Arc<dyn Engine>,
    pub lose_replies: AtomicBool,
    pub lose_requests: AtomicBool,
    /// So many are lost on the way there, then so many on the way back, and their outcome stands.
    pub settle: [AtomicUsize; 2],
    tail_cut: AtomicBool,
    forwards: Mutex<Vec<tokio::task::AbortHandle>>,
}

// === impl Faulty ===

impl Faulty {
    pub fn over(inner: Arc<dyn Engine>) -> Faulty {
        Faulty {
            inner,
            lose_replies: AtomicBool::new(false),
            lose_requests: AtomicBool::new(false),
            settle: Default::default(),
            tail_cut: AtomicBool::new(false),
            forwards: Mutex::default(),
        }
    }

    pub fn cut_tail(&self) {
        self.tail_cut.store(true, Ordering::Relaxed);
        for forward in self.forwards.lock().unwrap().drain(..) {
            forward.abort();
        }
    }

    pub fn mend_tail(&self) {
        self.tail_cut.store(false, Ordering::Relaxed);
    }
}

#[async_trait]
impl Engine for Faulty {
    async fn load(&self) -> Result<Load, EngineError> {
        self.inner.load().await
    }

    async fn commit(&self, id: CommitId, batch: Batch) -> Result<Revision, WriteError> {
        if self.lose_requests.load(Ordering::Relaxed) {
            return Err(WriteError::Unknown("lost on the way there".into()));
        }
        let settles = |left: &AtomicUsize| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        };
        if settles(&self.settle[0]) {
            return Err(WriteError::Settled("it never arrives".into()));
        }
        let reply = self.inner.commit(id, batch).await;
        if settles(&self.settle[1]) {
            return Err(WriteError::Settled("it has arrived".into()));
        }
        if self.lose_replies.load(Ordering::Relaxed) {
            return Err(WriteError::Unknown("lost on the way back".into()));
        }
        reply
    }

    async fn read_barrier(&self) -> Result<Revision, EngineError> {
        self.inner.read_barrier().await
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        if self.tail_cut.load(Ordering::Relaxed) {
            return Err(TailError::Broken(EngineError::Unavailable("cut".into())));
        }
        let mut tail = self.inner.tail(after).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let broken = BrokenOnDrop(sender);
        let forward = tokio::spawn(async move {
            while let Some(group) = tail.next().await {
                if broken.0.send(group).await.is_err() {
                    return;
                }
            }
        });
        self.forwards.lock().unwrap().push(forward.abort_handle());
        Ok(Tail(receiver))
    }

    async fn compact(&self, through: Revision) -> Result<(), EngineError> {
        self.inner.compact(through).await
    }

    async fn leap(&self, beyond: Revision) -> Result<(), EngineError> {
        self.inner.leap(beyond).await
    }
}

/// Says that the tail broke when its forwarder is aborted.
struct BrokenOnDrop(tokio::sync::mpsc::Sender<Result<Vec<Entry>, TailError>>);

impl Drop for BrokenOnDrop {
    fn drop(&mut self) {
        let _ = self.0.try_send(Err(TailError::Broken(EngineError::Unavailable("cut".into()))));
    }
}
