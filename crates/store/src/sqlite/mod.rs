//! The embedded engine: one SQLite file, one writer thread.
//!
//! The thread is the only user of the connection: it takes waiting commits as one group, checks each against the open
//! transaction (which sees the group's earlier members), syncs once, then publishes. The callers are async and never wait
//! on the disk themselves.

mod file;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use admit::Batch;
use async_trait::async_trait;
use base::Revision;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::engine::{CommitId, Engine, EngineError, Load, Tail, TailError, WriteError};

pub use file::SqliteError;

/// Commits that may wait for the writer thread.
const QUEUE_JOBS_MAX: usize = 4096;

/// The engine's handle: sends jobs to the writer thread, which ends when the last handle is gone.
struct Sqlite {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    /// Newest durable revision, published by the writer.
    newest: Arc<AtomicU64>,
}

/// What the writer thread does.
enum Job {
    Commit(CommitJob),
    Load { reply: oneshot::Sender<Result<Load, EngineError>> },
    Tail { after: Revision, reply: oneshot::Sender<Result<Tail, TailError>> },
    Compact { through: Revision, reply: oneshot::Sender<Result<(), EngineError>> },
    Leap { beyond: Revision, reply: oneshot::Sender<Result<(), EngineError>> },
}

struct CommitJob {
    id: CommitId,
    batch: Batch,
    reply: oneshot::Sender<Result<Revision, WriteError>>,
    /// Given back when the job is done: bounds the queue.
    _room: OwnedSemaphorePermit,
}

/// Opens or creates the database file and starts its writer thread.
///
/// # Errors
/// When the file cannot be opened, is of a newer format, or the thread does not start.
pub fn open(path: &Path) -> Result<Arc<dyn Engine>, SqliteError> {
    let file = file::File::open(path)?;
    let newest = Arc::new(AtomicU64::new(file.revision.0));
    let (jobs, queue) = mpsc::channel();
    let writer = writer::Writer::new(file, queue, newest.clone());
    std::thread::Builder::new().name("store".into()).spawn(move || writer.run()).map_err(SqliteError::Thread)?;
    Ok(Arc::new(Sqlite { jobs, room: Arc::new(Semaphore::new(QUEUE_JOBS_MAX)), newest }))
}

#[async_trait]
impl Engine for Sqlite {
    async fn load(&self) -> Result<Load, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Load { reply }).map_err(|_| EngineError::Closed)?;
        answer.await.map_err(|_| EngineError::Closed)?
    }

    async fn commit(&self, id: CommitId, batch: Batch) -> Result<Revision, WriteError> {
        let room = self.room.clone().acquire_owned().await.map_err(|_| WriteError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = CommitJob { id, batch, reply, _room: room };
        self.jobs.send(Job::Commit(job)).map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    async fn read_barrier(&self) -> Result<Revision, EngineError> {
        Ok(Revision(self.newest.load(Ordering::Acquire)))
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        let closed = || TailError::Broken(EngineError::Closed);
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Tail { after, reply }).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn compact(&self, through: Revision) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Compact { through, reply }).map_err(|_| EngineError::Closed)?;
        answer.await.map_err(|_| EngineError::Closed)?
    }

    async fn leap(&self, beyond: Revision) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Leap { beyond, reply }).map_err(|_| EngineError::Closed)?;
        answer.await.map_err(|_| EngineError::Closed)?
    }
}
