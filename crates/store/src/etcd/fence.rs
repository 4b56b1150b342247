//! What becomes of a write that is not answered. A write that waits for a leader that is gone is lost on its way, and
//! etcd says so only after seconds; one that is delayed may still happen when nobody expects it any more.
//!
//! Every transaction also compares one key of ours, the fence, with what it was. Raising the fence, which is a small
//! write of its own and may be tried as often as need be, therefore decides about all that were sent before: they have
//! happened by then, or never will. What has happened is in the tail.

use std::future::Future;
use std::pin::pin;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Response, Status};

use super::{Answer, Etcd, Op, read_error, wire, write_error};
use crate::engine::{EngineError, WriteError};

/// A write that takes longer is perhaps lost. Late costs its client this time; early costs all that are under way another
/// try, so that a queue that moves is waited in.
const PATIENCE: Duration = Duration::from_millis(500);
/// Writes that are sent at nearly the same time overtake each other; one that was sent so much earlier is lost.
const OVERTAKING: Duration = Duration::from_millis(200);
/// Where that is not answered the fence is raised once more beside it: it may be lost on the same way. Members that look
/// for a leader keep what they are asked, so that the last of these tries is on its way as soon as there is one.
const AGAIN: Duration = Duration::from_millis(250);
/// Between tries that are refused at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Longer than it takes to elect a leader, twice.
const RAISE_TIMEOUT: Duration = Duration::from_secs(6);

/// The fence as this engine knows it.
#[derive(Default)]
pub(super) struct Fence {
    /// etcd's revision of the key; 0 where nobody raised it yet, or where it was not seen yet.
    seen: AtomicI64,
    /// One at a time decides for all who wait.
    raising: Mutex<()>,
    pace: std::sync::Mutex<Pace>,
}

/// How transactions are answered.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// When one was answered last.
    answered: Option<Instant>,
    /// When the newest of those that are answered was sent.
    newest: Option<Instant>,
}

// === impl Pace ===

impl Pace {
    fn answer(&mut self, sent: Instant, now: Instant) {
        self.answered = Some(now);
        self.newest = self.newest.max(Some(sent));
    }

    /// Whether one that was sent then only waits: others are answered, and none that was sent well after it.
    fn is_queue(&self, sent: Instant, now: Instant) -> bool {
        let moves = self.answered.is_some_and(|at| now.duration_since(at) < PATIENCE);
        moves && self.newest.is_some_and(|newest| newest < sent + OVERTAKING)
    }
}

// === impl Fence ===

impl Fence {
    pub(super) fn seen(&self) -> i64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Revisions only grow: an answer that comes late tells nothing new.
    fn learn(&self, revision: i64) {
        self.seen.fetch_max(revision, Ordering::AcqRel);
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a transaction failed because the fence is elsewhere; where that is, is known then.
    pub(super) fn stopped(&self, token: i64, response: Option<&wire::ResponseOp>) -> bool {
        let Some(Answer::ResponseRange(range)) = response.and_then(|one| one.response.as_ref()) else { return false };
        let at = range.kvs.first().map_or(0, |kv| kv.mod_revision);
        self.learn(at);
        at != token
    }
}

impl Etcd {
    /// What a transaction compares, and reads where that does not hold.
    pub(super) fn fenced(&self, token: i64) -> (wire::Compare, wire::RequestOp) {
        let key = Bytes::from(self.keys.fence());
        let read = wire::RangeRequest { key: key.clone(), keys_only: true, ..Default::default() };
        let compare = wire::Compare {
            result: wire::compare::CompareResult::Equal.into(),
            target: wire::compare::CompareTarget::Mod.into(),
            key,
            target_union: Some(wire::compare::TargetUnion::ModRevision(token)),
        };
        (compare, wire::RequestOp { request: Some(Op::RequestRange(read)) })
    }

    /// The answer to a transaction that was sent with this token, or the certainty that the tail has all there is to know.
    pub(super) async fn decided(
        &self,
        token: i64,
        call: impl Future<Output = Result<Response<wire::TxnResponse>, Status>>,
    ) -> Result<wire::TxnResponse, WriteError> {
        let (mut call, sent) = (pin!(call), Instant::now());
        let answer = loop {
            match timeout(PATIENCE, &mut call).await {
                Ok(answer) => break answer,
                Err(_) if self.fence.pace().is_queue(sent, Instant::now()) => {}
                Err(_) => tokio::select! { biased;
                    answer = &mut call => break answer,
                    raised = self.raise(token) => return Err(match raised {
                        Ok(()) => WriteError::Settled("etcd did not answer in time".into()),
                        Err(error) => WriteError::Unknown(error.into()),
                    }),
                },
            }
        };
        match answer.map_err(write_error) {
            Ok(answer) => {
                self.fence.pace().answer(sent, Instant::now());
                Ok(answer.into_inner())
            }
            Err(WriteError::Unknown(source)) => match self.raise(token).await {
                Ok(()) => Err(WriteError::Settled(source)),
                Err(_) => Err(WriteError::Unknown(source)),
            },
            Err(error) => Err(error),
        }
    }

    /// Returns once the fence is beyond the token.
    async fn raise(&self, token: i64) -> Result<(), EngineError> {
        let until = Instant::now() + RAISE_TIMEOUT;
        let late = || EngineError::Unavailable("etcd takes no writes".into());
        let _one = timeout_at(until, self.fence.raising.lock()).await.map_err(|_| late())?;
        let (mut failure, mut tries) = (late(), JoinSet::new());
        while self.fence.seen() <= token {
            if until <= Instant::now() {
                return Err(failure);
            }
            let (mut kv, request) = (self.kv(), self.raising(token));
            tries.spawn(async move { kv.txn(request).await });
            match timeout(AGAIN, tries.join_next()).await {
                Ok(Some(Ok(Ok(answer)))) => self.raised(token, &answer.into_inner()),
                Ok(Some(Ok(Err(status)))) => {
                    failure = read_error(status);
                    sleep(PAUSE).await;
                }
                Ok(Some(Err(_)) | None) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn raising(&self, token: i64) -> wire::TxnRequest {
        let (compare, read) = self.fenced(token);
        let put = Op::RequestPut(wire::PutRequest { key: self.keys.fence().into(), value: Bytes::new(), lease: 0 });
        let success = vec![wire::RequestOp { request: Some(put) }];
        wire::TxnRequest { compare: vec![compare], success, failure: vec![read] }
    }

    fn raised(&self, token: i64, answer: &wire::TxnResponse) {
        if answer.succeeded {
            self.fence.learn(answer.header.as_ref().map_or(0, |header| header.revision));
        } else {
            self.fence.stopped(token, answer.responses.first());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OVERTAKING, PATIENCE, Pace};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_queue_that_moves_is_no_loss() {
        let (start, step) = (Instant::now(), Duration::from_millis(10));
        let mut pace = Pace::default();
        assert!(!pace.is_queue(start, start + PATIENCE), "nothing was ever answered");
        pace.answer(start, start + PATIENCE);
        let now = start + PATIENCE + step;
        assert!(pace.is_queue(start + step, now), "one that was sent before it was answered just now");
        assert!(!pace.is_queue(start + step, now + PATIENCE), "the queue stands");
        pace.answer(start + step + OVERTAKING, now);
        assert!(!pace.is_queue(start + step, now), "one that was sent long after it is answered");
        assert!(pace.is_queue(start + step * 2, now));
    }
}
