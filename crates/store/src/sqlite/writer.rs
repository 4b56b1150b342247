//! The writer thread: groups commits, syncs once per group, publishes after the sync, checkpoints on a timer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use admit::{Batch, Place, Write};
use base::Revision;
use rusqlite::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use super::file::{File, LOG_PAGES_CHECKPOINT, Verdict};
use super::{CommitJob, Job};
use crate::engine::{EngineError, Entry, EntryChange, Load, Row, Tail, TailError, WriteError};

/// Commits of one group: bounds how long the first waits for the last.
const GROUP_COMMITS_MAX: usize = 256;
/// A dirty log is checkpointed after this long, at the next pause.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(10);
/// Recent entries kept for a tail that starts a little late.
const RECENT_ENTRIES_MAX: usize = 256;
const RECENT_BYTES_MAX: usize = 1 << 20;
/// Groups a tail may lag; then the writer waits for it, and writers wait for the writer.
const TAIL_GROUPS_MAX: usize = 1024;
/// Rows of one chunk while loading, and chunks ahead of the reader.
const LOAD_ROWS: usize = 256;
const LOAD_CHUNKS_MAX: usize = 4;

pub(super) struct Writer {
    file: File,
    queue: Receiver<Job>,
    newest: Arc<AtomicU64>,
    tails: Vec<mpsc::Sender<Result<Vec<Entry>, TailError>>>,
    recent: Recent,
    /// When the log got its first page since the last checkpoint.
    dirty_since: Option<Instant>,
    /// Rough pages in the log, to checkpoint early under load.
    log_pages: i64,
}

/// The last entries, for tails that start a little late.
struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The newest revision no longer here.
    floor: Revision,
}

/// One member of a group after its turn.
enum Done {
    Written { revision: Revision, id: crate::CommitId, batch: Batch },
    Guarded { revision: Revision },
    Conflict { place: Place, current: Option<Revision> },
}

type Reply = oneshot::Sender<Result<Revision, WriteError>>;

// === impl Writer ===

impl Writer {
    pub(super) fn new(file: File, queue: Receiver<Job>, newest: Arc<AtomicU64>) -> Writer {
        let recent = Recent { entries: VecDeque::new(), bytes: 0, floor: file.revision };
        Writer { file, queue, newest, tails: Vec::new(), recent, dirty_since: None, log_pages: 0 }
    }

    /// Until every handle is gone; then the file is left checkpointed.
    pub(super) fn run(mut self) {
        let mut next = None;
        loop {
            let job = match next.take() {
                Some(job) => job,
                None => match self.wait() {
                    Wait::Job(job) => job,
                    Wait::Checkpoint => {
                        self.checkpoint();
                        continue;
                    }
                    Wait::Closed => break,
                },
            };
            match job {
                Job::Commit(first) => next = self.group(first),
                Job::Load { reply } => self.load(reply),
                Job::Tail { after, reply } => drop(reply.send(self.tail(after))),
                Job::Compact { through, reply } => {
                    self.recent.compact(through);
                    let _ = reply.send(Ok(()));
                }
                Job::Leap { beyond, reply } => drop(reply.send(self.leap(beyond))),
            }
        }
        self.checkpoint();
    }

    fn wait(&self) -> Wait {
        let Some(since) = self.dirty_since else {
            return self.queue.recv().map_or(Wait::Closed, Wait::Job);
        };
        let left = CHECKPOINT_PERIOD.saturating_sub(since.elapsed());
        if left.is_zero() || LOG_PAGES_CHECKPOINT <= self.log_pages {
            return Wait::Checkpoint;
        }
        match self.queue.recv_timeout(left) {
            Ok(job) => Wait::Job(job),
            Err(RecvTimeoutError::Timeout) => Wait::Checkpoint,
            Err(RecvTimeoutError::Disconnected) => Wait::Closed,
        }
    }

    /// Commits everything that waits as one transaction. Returns a job of another kind that came up meanwhile.
    fn group(&mut self, first: CommitJob) -> Option<Job> {
        let mut jobs = vec![first];
        let mut other = None;
        while jobs.len() < GROUP_COMMITS_MAX {
            match self.queue.try_recv() {
                Ok(Job::Commit(job)) => jobs.push(job),
                Ok(job) => {
                    other = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        let mut replies = Vec::with_capacity(jobs.len());
        match self.transaction(jobs, &mut replies) {
            Ok(done) => self.publish(done, replies),
            Err(failure) => {
                self.file.rollback();
                tracing::warn!(error = %failure.error, members = replies.len(), "a group of commits failed");
                for reply in replies {
                    let _ = reply.send(Err(failure.for_one_member()));
                }
            }
        }
        other
    }

    /// The group's transaction up to and including its sync. On an error all its members fail.
    fn transaction(&mut self, jobs: Vec<CommitJob>, replies: &mut Vec<Reply>) -> Result<Vec<Done>, GroupFailure> {
        let mut rest = jobs.into_iter();
        let result = self.fill(&mut rest, replies);
        replies.extend(rest.map(|job| job.reply));
        let (done, revision) = result.map_err(GroupFailure::before_commit)?;
        self.file.commit().map_err(GroupFailure::at_commit)?;
        if self.file.revision < revision {
            self.dirty_since.get_or_insert_with(Instant::now);
        }
        self.file.revision = revision;
        Ok(done)
    }

    fn fill(
        &self,
        jobs: &mut impl Iterator<Item = CommitJob>,
        replies: &mut Vec<Reply>,
    ) -> rusqlite::Result<(Vec<Done>, Revision)> {
        self.file.begin()?;
        let mut revision = self.file.revision;
        let mut done = Vec::new();
        for CommitJob { id, batch, reply, .. } in jobs {
            replies.push(reply);
            done.push(match self.file.check(&batch)? {
                Verdict::Conflict { place, current } => Done::Conflict { place, current },
                Verdict::Holds if batch.changes.iter().all(|change| change.write == Write::Keep) => {
                    Done::Guarded { revision }
                }
                Verdict::Holds => {
                    revision = revision.next();
                    self.file.write(&batch, revision)?;
                    Done::Written { revision, id, batch }
                }
            });
        }
        if self.file.revision < revision {
            self.file.set_revision(revision)?;
        }
        Ok((done, revision))
    }

    /// Tells the tails, then the committers.
    fn publish(&mut self, done: Vec<Done>, replies: Vec<Reply>) {
        self.newest.store(self.file.revision.0, Ordering::Release);
        let mut entries = Vec::with_capacity(done.len());
        let mut answers = Vec::with_capacity(done.len());
        for one in done {
            answers.push(match one {
                Done::Conflict { place, current } => Err(WriteError::Conflict { place, current }),
                Done::Guarded { revision } => Ok(revision),
                Done::Written { revision, id, batch } => {
                    self.log_pages += pages(&batch);
                    entries.push(Entry { revision, id, changes: changes(batch) });
                    Ok(revision)
                }
            });
        }
        if !entries.is_empty() {
            self.recent.extend(&entries);
            self.tails.retain(|tail| tail.blocking_send(Ok(entries.clone())).is_ok());
        }
        for (reply, answer) in replies.into_iter().zip(answers) {
            let _ = reply.send(answer);
        }
    }

    fn load(&self, reply: oneshot::Sender<Result<Load, EngineError>>) {
        let (chunks, rows) = mpsc::channel(LOAD_CHUNKS_MAX);
        let load = match self.file.floors() {
            Ok(floors) => Ok(Load { revision: self.file.revision, floors, rows }),
            Err(error) => Err(EngineError::Unavailable(error.into())),
        };
        let failed = load.is_err();
        if reply.send(load).is_err() || failed {
            return;
        }
        let result = self.file.scan(LOAD_ROWS, |chunk: Vec<Row>| chunks.blocking_send(Ok(chunk)).is_ok());
        if let Err(error) = result {
            let _ = chunks.blocking_send(Err(EngineError::Unavailable(error.into())));
        }
    }

    fn tail(&mut self, after: Revision) -> Result<Tail, TailError> {
        if after < self.recent.floor {
            return Err(TailError::Compacted { oldest: self.recent.floor });
        }
        let missed: Vec<Entry> = self.recent.entries.iter().filter(|entry| after < entry.revision).cloned().collect();
        let (sender, receiver) = mpsc::channel(TAIL_GROUPS_MAX);
        if !missed.is_empty() {
            let _ = sender.blocking_send(Ok(missed));
        }
        self.tails.push(sender);
        Ok(Tail(receiver))
    }

    fn leap(&mut self, beyond: Revision) -> Result<(), EngineError> {
        let revision = self.file.revision.max(beyond);
        let written =
            self.file.begin().and_then(|()| self.file.set_revision(revision)).and_then(|()| self.file.commit());
        if let Err(error) = written {
            self.file.rollback();
            return Err(EngineError::Unavailable(error.into()));
        }
        self.file.revision = revision;
        self.newest.store(revision.0, Ordering::Release);
        self.recent.compact(revision);
        Ok(())
    }

    fn checkpoint(&mut self) {
        self.dirty_since = None;
        self.log_pages = 0;
        match self.file.checkpoint() {
            Ok(0) => {}
            Ok(left) => {
                // A pause later will do: the log stays valid, only longer.
                self.dirty_since = Some(Instant::now());
                tracing::debug!(left, "checkpoint was partial");
            }
            Err(error) => {
                self.dirty_since = Some(Instant::now());
                tracing::warn!(%error, "checkpoint failed; the log keeps everything");
            }
        }
    }
}

enum Wait {
    Job(Job),
    Checkpoint,
    Closed,
}

// === impl Recent ===

impl Recent {
    fn extend(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.bytes += size(entry);
            self.entries.push_back(entry.clone());
        }
        while RECENT_ENTRIES_MAX < self.entries.len() || RECENT_BYTES_MAX < self.bytes {
            self.pop();
        }
    }

    fn compact(&mut self, through: Revision) {
        while self.entries.front().is_some_and(|entry| entry.revision <= through) {
            self.pop();
        }
        self.floor = self.floor.max(through);
    }

    fn pop(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes -= size(&entry);
        self.floor = self.floor.max(entry.revision);
    }
}

fn size(entry: &Entry) -> usize {
    entry.changes.iter().map(|change| 128 + change.value.as_ref().map_or(0, bytes::Bytes::len)).sum()
}

/// Pages a batch puts into the log, roughly: its values, and a leaf of the index and of the table per change.
fn pages(batch: &Batch) -> i64 {
    let of_change = |write: &Write| match write {
        Write::Put(value) => 2 + value.len() / 4096,
        Write::Delete => 2,
        Write::Keep => 0,
    };
    let pages: usize = batch.changes.iter().map(|change| of_change(&change.write)).sum();
    i64::try_from(pages).expect("a batch in memory has fewer pages")
}

fn changes(batch: Batch) -> Vec<EntryChange> {
    let change = |change: admit::Change| match change.write {
        Write::Put(value) => Some(EntryChange { place: change.place, value: Some(value) }),
        Write::Delete => Some(EntryChange { place: change.place, value: None }),
        Write::Keep => None,
    };
    batch.changes.into_iter().filter_map(change).collect()
}

/// Why a whole group failed, and whether a power cut could still bring it to life.
struct GroupFailure {
    error: Arc<rusqlite::Error>,
    at_commit: bool,
}

impl GroupFailure {
    fn before_commit(error: rusqlite::Error) -> GroupFailure {
        GroupFailure { error: Arc::new(error), at_commit: false }
    }

    fn at_commit(error: rusqlite::Error) -> GroupFailure {
        GroupFailure { error: Arc::new(error), at_commit: true }
    }

    fn for_one_member(&self) -> WriteError {
        match self.error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => WriteError::Full,
            // The log may hold the frames although their sync failed.
            _ if self.at_commit => WriteError::Unknown(self.error.clone().into()),
            _ => WriteError::Unavailable(self.error.clone().into()),
        }
    }
}
