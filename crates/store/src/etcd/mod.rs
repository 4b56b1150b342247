//! The etcd engine: for clusters with more than one server, over a managed or an external etcd.
//!
//! One batch is one transaction, guarded by modification revisions. Every transaction also puts the commit's id to one
//! key of ours (`_store/last`), which makes three hard things simple: a lost reply is found in the tail by its id, a
//! linearizable read of that one key is the read barrier, and neither depends on progress notifications, which etcd
//! before 3.4.25 sends too early. What becomes of a write without an answer is [`fence`]'s.

mod compaction;
mod config;
mod fence;
mod keys;
mod members;
mod reach;
mod tail;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use admit::{Batch, Change, Expect, Write};
use async_trait::async_trait;
use base::Revision;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::engine::{CommitId, Engine, EngineError, Load, Row, Tail, TailError, WriteError};

pub use config::{Config, ConnectError, EndpointProvider, TlsProvider};
pub use members::{Alarm, AlarmKind, Fingerprint, Member, MemberStatus, Members, MembersError};
pub use reach::{ReachError, reach};

use fence::Fence;
use keys::Keys;
use wire::request_op::Request as Op;
use wire::response_op::Response as Answer;

/// Documents of one page while loading. A page of largest objects stays under [`MESSAGE_BYTES_MAX`].
const LOAD_ROWS: i64 = 250;
const LOAD_CHUNKS_MAX: usize = 2;
/// Largest answer taken: a page of [`LOAD_ROWS`] objects of the largest size.
const MESSAGE_BYTES_MAX: usize = 400 << 20;
/// Sends of one commit that other servers' fences stop.
const FENCE_ATTEMPTS_MAX: usize = 16;
/// Longer than it takes to elect a leader.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
const READ_PAUSE: Duration = Duration::from_millis(50);

const _: () = assert!(LOAD_ROWS as usize * base::limits::OBJECT_BYTES_MAX <= MESSAGE_BYTES_MAX);

/// The engine's handle. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub(crate) struct Etcd {
    channel: Channel,
    keys: Arc<Keys>,
    /// Wire revision minus etcd's. Read once: it changes only while no store has the engine open.
    base: Arc<Mutex<Option<u64>>>,
    fence: Arc<Fence>,
}

/// Prepares the connection to etcd. The connection itself is made, and made again, when it is needed.
///
/// # Errors
/// For endpoints that are not URLs.
pub fn connect(config: Config) -> Result<Arc<dyn Engine>, ConnectError> {
    let keys = Arc::new(Keys::new(&config.prefix));
    let channel = config::channel(&config)?;
    Ok(Arc::new(Etcd { channel, keys, base: Arc::default(), fence: Arc::default() }))
}

#[async_trait]
impl Engine for Etcd {
    async fn load(&self) -> Result<Load, EngineError> {
        let base = self.base().await?;
        let revision = self.newest().await?;
        let (chunks, rows) = mpsc::channel(LOAD_CHUNKS_MAX);
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.pages(revision, base, &chunks).await {
                let _ = chunks.send(Err(error)).await;
            }
        });
        let revision = wire_revision(base, revision);
        Ok(Load { revision, floors: Default::default(), rows })
    }

    async fn commit(&self, id: CommitId, batch: Batch) -> Result<Revision, WriteError> {
        let base = self.base().await.map_err(|error| WriteError::Unavailable(error.into()))?;
        for _ in 0..FENCE_ATTEMPTS_MAX {
            let token = self.fence.seen();
            let (request, mut kv) = (self.transaction(id, &batch, base, token), self.kv());
            let mut answer = self.decided(token, kv.txn(request)).await?;
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            if answer.succeeded {
                return Ok(wire_revision(base, revision));
            }
            if !self.fence.stopped(token, answer.responses.first()) {
                return Err(conflict(batch, answer.responses.split_off(1), base));
            }
        }
        Err(WriteError::Unavailable("servers raise the fence all the time".into()))
    }

    async fn read_barrier(&self) -> Result<Revision, EngineError> {
        let base = self.base().await?;
        let request = wire::RangeRequest { key: self.keys.last().into(), ..Default::default() };
        let answer = self.range(request).await?;
        Ok(answer.kvs.first().map_or(Revision::ZERO, |last| wire_revision(base, last.mod_revision)))
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        let base = self.base().await.map_err(TailError::Broken)?;
        tail::start(self.clone(), base, after).await
    }

    async fn compact(&self, through: Revision) -> Result<(), EngineError> {
        let base = self.base().await?;
        let Some(revision) = etcd_revision(base, through).filter(|revision| 0 < *revision) else { return Ok(()) };
        self.compact_once(revision).await
    }

    async fn leap(&self, beyond: Revision) -> Result<(), EngineError> {
        let newest = self.newest().await?;
        let have = wire_revision(self.stored_base().await?, newest);
        if beyond <= have {
            return Ok(());
        }
        let base = beyond.0 - u64::try_from(newest).unwrap_or(0);
        let put = wire::PutRequest { key: self.keys.epoch().into(), value: base.to_string().into(), lease: 0 };
        let success = vec![wire::RequestOp { request: Some(Op::RequestPut(put)) }];
        self.kv().txn(wire::TxnRequest { success, ..Default::default() }).await.map_err(read_error)?;
        self.remember(base);
        Ok(())
    }
}

impl Etcd {
    fn kv(&self) -> wire::kv_client::KvClient<Channel> {
        wire::kv_client::KvClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// One consistent read. Who asks while members look for a leader is told so at once, and then only has to ask again.
    async fn range(&self, request: wire::RangeRequest) -> Result<wire::RangeResponse, EngineError> {
        let until = Instant::now() + READ_TIMEOUT;
        loop {
            match self.kv().range(request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if never_sent(&status) || until <= Instant::now() => return Err(read_error(status)),
                Err(_) => tokio::time::sleep(READ_PAUSE).await,
            }
        }
    }

    async fn base(&self) -> Result<u64, EngineError> {
        let known = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = known {
            return Ok(base);
        }
        let base = self.stored_base().await?;
        self.remember(base);
        Ok(base)
    }

    fn remember(&self, base: u64) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(base);
    }

    async fn stored_base(&self) -> Result<u64, EngineError> {
        let request = wire::RangeRequest { key: self.keys.epoch().into(), ..Default::default() };
        let answer = self.kv().range(request).await.map_err(read_error)?.into_inner();
        let Some(epoch) = answer.kvs.first() else { return Ok(0) };
        let text = std::str::from_utf8(&epoch.value).ok().and_then(|text| text.parse().ok());
        text.ok_or_else(|| EngineError::Damaged("the epoch is not a number".into()))
    }

    /// etcd's newest revision, linearizable.
    async fn newest(&self) -> Result<i64, EngineError> {
        let request = wire::RangeRequest { key: self.keys.last().into(), count_only: true, ..Default::default() };
        let answer = self.kv().range(request).await.map_err(read_error)?.into_inner();
        answer
            .header
            .map(|header| header.revision)
            .ok_or_else(|| EngineError::Damaged("an answer without a header".into()))
    }

    /// Sends every document as of one revision.
    async fn pages(
        &self,
        revision: i64,
        base: u64,
        chunks: &mpsc::Sender<Result<Vec<Row>, EngineError>>,
    ) -> Result<(), EngineError> {
        let (mut key, end) = self.keys.documents();
        loop {
            let request = wire::RangeRequest {
                key: key.into(),
                range_end: end.clone().into(),
                limit: LOAD_ROWS,
                revision,
                ..Default::default()
            };
            let answer = self.kv().range(request).await.map_err(read_error)?.into_inner();
            let Some(last) = answer.kvs.last() else { return Ok(()) };
            key = keys::successor(&last.key);
            let rows: Result<Vec<Row>, EngineError> = answer.kvs.into_iter().map(|kv| self.row(base, kv)).collect();
            if chunks.send(Ok(rows?)).await.is_err() || !answer.more {
                return Ok(());
            }
        }
    }

    fn row(&self, base: u64, kv: wire::KeyValue) -> Result<Row, EngineError> {
        let place = self.keys.decode(&kv.key);
        let place = place.ok_or_else(|| EngineError::Damaged(format!("the key {:?} is not ours", kv.key)))?;
        Ok(Row { place, revision: wire_revision(base, kv.mod_revision), value: kv.value })
    }

    /// Compares for every expectation, operations for every write, and on failure reads of every place that was expected.
    /// The fence comes first in both.
    fn transaction(&self, id: CommitId, batch: &Batch, base: u64, token: i64) -> wire::TxnRequest {
        let (compare, read) = self.fenced(token);
        let mut request = wire::TxnRequest { compare: vec![compare], failure: vec![read], success: Vec::new() };
        for Change { place, expect, write } in &batch.changes {
            let key = Bytes::from(self.keys.encode(place));
            request.compare.push(self.compare(&key, *expect, base));
            let read = wire::RangeRequest { key: key.clone(), keys_only: true, ..Default::default() };
            request.failure.push(wire::RequestOp { request: Some(Op::RequestRange(read)) });
            let op = match write {
                Write::Keep => continue,
                Write::Put(value) => Op::RequestPut(wire::PutRequest { key, value: value.clone(), lease: 0 }),
                Write::Delete => Op::RequestDeleteRange(wire::DeleteRangeRequest { key, range_end: Bytes::new() }),
            };
            request.success.push(wire::RequestOp { request: Some(op) });
        }
        if !request.success.is_empty() {
            let value = Bytes::copy_from_slice(&id.0.to_be_bytes());
            let put = Op::RequestPut(wire::PutRequest { key: self.keys.last().into(), value, lease: 0 });
            request.success.push(wire::RequestOp { request: Some(put) });
        }
        request
    }

    fn compare(&self, key: &Bytes, expect: Expect, base: u64) -> wire::Compare {
        // Revision 0 is "absent"; a revision from before this epoch cannot be there, so -1 never holds.
        let revision = match expect {
            Expect::Absent => 0,
            Expect::At(revision) => etcd_revision(base, revision).filter(|revision| 0 < *revision).unwrap_or(-1),
        };
        wire::Compare {
            result: wire::compare::CompareResult::Equal.into(),
            target: wire::compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(wire::compare::TargetUnion::ModRevision(revision)),
        }
    }
}

/// The first expectation that did not hold, out of the reads of a failed transaction.
fn conflict(batch: Batch, responses: Vec<wire::ResponseOp>, base: u64) -> WriteError {
    let mut first = None;
    for (change, response) in batch.changes.into_iter().zip(responses) {
        let Some(Answer::ResponseRange(range)) = response.response else { continue };
        let current = range.kvs.first().map(|kv| wire_revision(base, kv.mod_revision));
        let holds = match change.expect {
            Expect::Absent => current.is_none(),
            Expect::At(revision) => current == Some(revision),
        };
        if !holds {
            return WriteError::Conflict { place: change.place, current };
        }
        first.get_or_insert((change.place, current));
    }
    match first {
        Some((place, current)) => WriteError::Conflict { place, current },
        None => WriteError::Unavailable("etcd refused a transaction without expectations".into()),
    }
}

fn wire_revision(base: u64, revision: i64) -> Revision {
    Revision(base + u64::try_from(revision).unwrap_or(0))
}

fn etcd_revision(base: u64, revision: Revision) -> Option<i64> {
    i64::try_from(revision.0.checked_sub(base)?).ok()
}

fn read_error(status: Status) -> EngineError {
    EngineError::Unavailable(status.into())
}

/// Sorts what etcd and the connection say by what it means for the write.
fn write_error(status: Status) -> WriteError {
    if never_sent(&status) {
        return WriteError::Unavailable(status.into());
    }
    let message = status.message();
    match status.code() {
        Code::ResourceExhausted if message.contains("space") => WriteError::Full,
        Code::InvalidArgument | Code::ResourceExhausted if message.contains("too large") => WriteError::TooLarge,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated
        | Code::ResourceExhausted => WriteError::Unavailable(status.into()),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => WriteError::Unknown(status.into()),
    }
}

/// Whether there was no connection to send the request on.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<config::NotConnected>() {
            return true;
        }
        cause = error.source();
    }
    false
}
