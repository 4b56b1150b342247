//! What becomes of a write that is not answered. A write that waits for a leader that is gone is lost on its way, and
//! etcd says so only after seconds; one that is delayed may still happen when nobody expects it any more.
//!
//! Every transaction also compares one key of ours, the fence, with what it was. Raising the fence, which is a small
//! write of its own and may be tried as often as need be, therefore decides about all that were sent before: they have
//! happened by then, or never will. What has happened is in the tail.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Response, Status};

use super::{Answer, Etcd, Op, read_error, wire, write_error};
use crate::engine::{EngineError, WriteError};

/// A write that takes longer is perhaps lost. Early costs one small write; late costs every client this time.
const PATIENCE: Duration = Duration::from_millis(500);
/// The fence is raised again where that is not answered: it may be lost on the same way. Members that look for a leader
/// keep what they are asked, so that the last of these tries is on its way as soon as there is one.
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
    /// One try at a time decides for all who wait.
    raising: Mutex<()>,
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
        let mut call = pin!(call);
        let answer = match timeout(PATIENCE, &mut call).await {
            Ok(answer) => answer,
            Err(_) => tokio::select! { biased;
                answer = &mut call => answer,
                raised = self.raise(token) => return Err(match raised {
                    Ok(()) => WriteError::Settled("etcd did not answer in time".into()),
                    Err(error) => WriteError::Unknown(error.into()),
                }),
            },
        };
        match answer.map_err(write_error) {
            Ok(answer) => Ok(answer.into_inner()),
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
        let mut failure = late();
        while self.fence.seen() <= token {
            if until <= Instant::now() {
                return Err(failure);
            }
            match timeout(AGAIN, self.kv().txn(self.raising(token))).await {
                Ok(Ok(answer)) => self.raised(token, &answer.into_inner()),
                Ok(Err(status)) => {
                    failure = read_error(status);
                    sleep(PAUSE).await;
                }
                Err(_) => {}
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
