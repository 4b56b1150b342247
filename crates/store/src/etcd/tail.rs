//! The tail over etcd's watch: one stream, started again where it stopped, until the engine is dropped.

use std::time::Duration;

use base::{Chain, Revision};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::wire::event::EventType;
use super::wire::watch_request::RequestUnion;
use super::{Etcd, MESSAGE_BYTES_MAX, wire, wire_revision};
use crate::engine::{CommitId, EngineError, Entry, EntryChange, Tail, TailError};

/// Groups that may wait for the store; then etcd keeps them.
const TAIL_GROUPS_MAX: usize = 256;
/// Waits between attempts to open the stream again.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

struct TailTask {
    etcd: Etcd,
    base: u64,
    /// The next revision to ask for: everything before it was delivered, or did not concern us.
    next: i64,
    out: mpsc::Sender<Result<Vec<Entry>, TailError>>,
}

/// Why a stream ended.
enum End {
    Compacted {
        oldest: i64,
    },
    /// Worth another stream.
    Broken(EngineError),
    /// Nobody listens any more.
    Dropped,
}

/// Starts the tail after a revision. A history that is compacted already is told at once.
pub(super) async fn start(etcd: Etcd, base: u64, after: Revision) -> Result<Tail, TailError> {
    let next = i64::try_from(after.0.saturating_sub(base)).unwrap_or(0) + 1;
    let (out, receiver) = mpsc::channel(TAIL_GROUPS_MAX);
    let mut task = TailTask { etcd, base, next, out };
    let stream = match task.open().await {
        Ok(stream) => stream,
        Err(End::Compacted { oldest }) => return Err(TailError::Compacted { oldest: wire_revision(base, oldest) }),
        Err(End::Broken(error)) => return Err(TailError::Broken(error)),
        Err(End::Dropped) => return Err(TailError::Broken(EngineError::Closed)),
    };
    tokio::spawn(task.run(stream));
    Ok(Tail(receiver))
}

/// A watch stream with its request half, which has to stay open.
struct Stream {
    answers: Streaming<wire::WatchResponse>,
    _requests: mpsc::Sender<wire::WatchRequest>,
}

// === impl TailTask ===

impl TailTask {
    async fn run(mut self, first: Stream) {
        let mut stream = Some(first);
        let mut wait = RETRY_FIRST;
        loop {
            let end = match stream.take() {
                Some(stream) => {
                    wait = RETRY_FIRST;
                    self.follow(stream).await
                }
                None => match self.open().await {
                    Ok(opened) => {
                        stream = Some(opened);
                        continue;
                    }
                    Err(end) => end,
                },
            };
            match end {
                End::Dropped => return,
                End::Compacted { oldest } => {
                    let oldest = wire_revision(self.base, oldest);
                    let _ = self.out.send(Err(TailError::Compacted { oldest })).await;
                    return;
                }
                End::Broken(error) => {
                    tracing::info!(err = %Chain(&error), next = self.next, "etcd's watch ended; opening it again");
                }
            }
            tokio::select! {
                () = self.out.closed() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_MAX),
            }
        }
    }

    /// Opens the stream and waits until etcd says that the watch stands.
    async fn open(&mut self) -> Result<Stream, End> {
        let (key, range_end) = self.etcd.keys.all();
        let create = wire::WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision: self.next,
            progress_notify: true,
            prev_kv: false,
        };
        let (requests, receiver) = mpsc::channel(1);
        let create = wire::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(create).await.map_err(|_| End::Dropped)?;
        let client = wire::watch_client::WatchClient::new(self.etcd.channel.clone());
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answers = client.watch(ReceiverStream::new(receiver)).await.map_err(broken)?.into_inner();
        let mut stream = Stream { answers, _requests: requests };
        let created = stream.next().await?;
        if created.canceled {
            return Err(canceled(&created));
        }
        Ok(stream)
    }

    async fn follow(&mut self, mut stream: Stream) -> End {
        loop {
            let answer = tokio::select! {
                () = self.out.closed() => return End::Dropped,
                answer = stream.next() => answer,
            };
            let answer = match answer {
                Ok(answer) if answer.canceled => return canceled(&answer),
                Ok(answer) => answer,
                Err(end) => return end,
            };
            // A progress notification: nothing of ours up to here, so a later stream may start after it.
            let through = match answer.events.last().and_then(|event| event.kv.as_ref()) {
                Some(last) => last.mod_revision,
                None => answer.header.as_ref().map_or(0, |header| header.revision),
            };
            let entries = match self.entries(answer.events) {
                Ok(entries) => entries,
                Err(error) => return End::Broken(error),
            };
            if !entries.is_empty() && self.out.send(Ok(entries)).await.is_err() {
                return End::Dropped;
            }
            self.next = self.next.max(through + 1);
        }
    }

    /// Events of one revision become one entry; etcd never splits a revision over two answers.
    fn entries(&self, events: Vec<wire::Event>) -> Result<Vec<Entry>, EngineError> {
        let mut entries: Vec<Entry> = Vec::new();
        let last = self.etcd.keys.last();
        for event in events {
            let kind = event.r#type();
            let Some(kv) = event.kv.filter(|kv| self.next <= kv.mod_revision) else { continue };
            let revision = wire_revision(self.base, kv.mod_revision);
            if entries.last().is_none_or(|entry| entry.revision != revision) {
                entries.push(Entry { revision, id: CommitId::default(), changes: Vec::new() });
            }
            let entry = entries.last_mut().expect("pushed above");
            if kv.key == last {
                entry.id = commit_id(&kv.value);
            } else if !self.etcd.keys.is_own(&kv.key) {
                let place = self.etcd.keys.decode(&kv.key);
                let place = place.ok_or_else(|| EngineError::Damaged(format!("the key {:?} is not ours", kv.key)))?;
                let value = (kind == EventType::Put).then_some(kv.value);
                entry.changes.push(EntryChange { place, value });
            }
        }
        entries.retain(|entry| !entry.changes.is_empty());
        Ok(entries)
    }
}

// === impl Stream ===

impl Stream {
    async fn next(&mut self) -> Result<wire::WatchResponse, End> {
        match self.answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(End::Broken(EngineError::Unavailable("etcd ended the watch".into()))),
            Err(status) => Err(broken(status)),
        }
    }
}

fn commit_id(value: &[u8]) -> CommitId {
    value.try_into().map(u128::from_be_bytes).map(CommitId).unwrap_or_default()
}

fn broken(status: tonic::Status) -> End {
    End::Broken(EngineError::Unavailable(status.into()))
}

fn canceled(answer: &wire::WatchResponse) -> End {
    if answer.compact_revision != 0 {
        return End::Compacted { oldest: answer.compact_revision };
    }
    End::Broken(EngineError::Unavailable(format!("etcd cancelled the watch: {}", answer.cancel_reason).into()))
}
