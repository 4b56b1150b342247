//! The only writer of the memory: loads the engine's state, then applies what its tail tells, group by group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use admit::Place;
use api::{Header, Object};
use base::{Chain, Revision, SmolStr};
use bytes::Bytes;
use tokio::time::MissedTickBehavior;

use crate::engine::{Engine, EngineError, Entry, Tail, TailError};
use crate::envelope;
use crate::event::Event;
use crate::keyring::Keyring;
use crate::memory::{HISTORY_SECONDS_MIN, Memory};
use crate::snapshot;
use crate::store::{Applied, OpenError, Shared};
use crate::{place, splice};

/// How often old history is dropped when nothing is written.
const PRUNE_PERIOD: Duration = Duration::from_secs(60);
/// Waits between attempts to reach an engine that does not answer.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Loads before giving up on one that a tail can continue.
const START_ATTEMPTS_MAX: usize = 5;

pub(crate) struct TailTask {
    shared: Arc<Shared>,
    /// The revision of each half of a compaction period ago: the engine may forget what is older.
    marks: [Revision; 2],
    marked_at_seconds: i64,
}

/// Why the tail stops for good, rather than trying again.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("open {place:?}")]
    Envelope {
        place: Place,
        #[source]
        source: envelope::EnvelopeError,
    },
    #[error("{place:?} is not an API object")]
    Object {
        place: Place,
        #[source]
        source: api::object::ObjectError,
    },
}

// === impl TailTask ===

impl TailTask {
    pub(crate) fn new(shared: Arc<Shared>) -> TailTask {
        let now = shared.clock.now().as_second();
        TailTask { shared, marks: [Revision::ZERO; 2], marked_at_seconds: now }
    }

    pub(crate) async fn run(mut self, first: Tail) {
        let mut next = Some(first);
        let mut wait = RETRY_FIRST;
        loop {
            let after = self.shared.memory().applied;
            let tail = match next.take() {
                Some(tail) => Ok(tail),
                None => self.shared.engine.tail(after).await,
            };
            let ended = match tail {
                Ok(tail) => self.follow(tail, &mut wait).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) | Err(TailError::Broken(EngineError::Closed)) => return,
                Err(TailError::Compacted { .. }) => next = self.reload().await,
                Err(error) => tracing::warn!(err = %Chain(&error), "the engine's tail broke; starting it again"),
            }
            if self.shared.failure.borrow().is_some() {
                return;
            }
            if next.is_none() {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }

    /// Applies until the tail ends. `Ok` when the engine was closed.
    async fn follow(&mut self, mut tail: Tail, wait: &mut Duration) -> Result<(), TailError> {
        let mut prune = tokio::time::interval(PRUNE_PERIOD);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The tick first: it is rare, and a tail that never pauses must not keep it from coming.
            tokio::select! { biased;
                _ = prune.tick() => self.maintain().await,
                group = tail.next() => match group {
                    None => return Ok(()),
                    Some(group) => {
                        *wait = RETRY_FIRST;
                        if let Err(error) = self.apply(group?) {
                            return Err(self.fail(&error));
                        }
                    }
                },
            }
        }
    }

    /// Applies a group, wakes who watches, tells who committed: in this order, so that an acknowledged write is visible.
    /// Last those who wait for a revision: they may look whether their own commit is among what came.
    fn apply(&self, group: Vec<Entry>) -> Result<(), ApplyError> {
        let now = self.shared.clock.now().as_second();
        let keys = self.shared.keys();
        let mut touched = BTreeSet::new();
        let mut applied = Vec::with_capacity(group.len());
        for entry in group {
            if entry.revision <= self.shared.memory().applied {
                continue;
            }
            let events = self.events(&keys, &entry)?;
            touched.extend(events.iter().map(|event| event.place.storage.clone()));
            self.shared.memory_mut().apply(entry.revision, &events, now);
            applied.push((entry.id, Applied { revision: entry.revision, events }));
        }
        self.wake(&touched);
        for (id, applied) in applied {
            self.shared.resolve(id, applied);
        }
        let newest = self.shared.memory().applied;
        self.shared.applied.send_replace(newest);
        Ok(())
    }

    fn wake(&self, touched: &BTreeSet<SmolStr>) {
        let memory = self.shared.memory();
        for collection in touched.iter().filter_map(|storage| memory.get(storage)) {
            collection.wake();
        }
    }

    /// Builds an entry's events outside the write lock: nobody else writes, so what is read here stays true.
    fn events(&self, keys: &Keyring, entry: &Entry) -> Result<Arc<[Arc<Event>]>, ApplyError> {
        let mut events = Vec::with_capacity(entry.changes.len());
        for (index, change) in entry.changes.iter().enumerate() {
            let index = u32::try_from(index).expect("BATCH_CHANGES_MAX fits u32");
            let prev = self.shared.memory().find(&change.place.storage, &change.place.key).cloned();
            let next = match &change.value {
                Some(value) => Some(open(keys, &change.place, entry.revision, value)?),
                None => None,
            };
            if prev.is_none() && next.is_none() {
                continue;
            }
            events.push(Arc::new(Event::new((entry.revision, index), change.place.clone(), prev, next)));
        }
        Ok(events.into())
    }

    fn fail(&self, error: &ApplyError) -> TailError {
        let text = Chain(error).to_string();
        tracing::error!(err = %text, "the store met data it cannot read and refuses writes");
        self.shared.failure.send_replace(Some(text.clone()));
        self.shared.release_waiters();
        TailError::Broken(EngineError::Damaged(text))
    }

    /// The tail's place is gone: take the whole state anew, and a tail that continues it. Every watcher is told.
    async fn reload(&self) -> Option<Tail> {
        let keys = self.shared.keys();
        match start(self.shared.engine.as_ref(), &keys).await {
            Ok((fresh, tail)) => {
                let revision = fresh.applied;
                self.shared.memory_mut().replace(fresh);
                self.shared.release_waiters();
                self.shared.applied.send_replace(revision);
                tracing::warn!(%revision, "the engine's history was compacted past the tail; watchers list again");
                Some(tail)
            }
            Err(error) => {
                tracing::warn!(err = %Chain(&error), "loading the state anew failed; trying again");
                None
            }
        }
    }

    /// Drops old history here, and in the engine what nobody here can ask for any more.
    async fn maintain(&mut self) {
        let now = self.shared.clock.now().as_second();
        self.shared.memory_mut().prune(now);
        if now < self.marked_at_seconds + HISTORY_SECONDS_MIN {
            return;
        }
        let [older, newer] = self.marks;
        self.marks = [newer, self.shared.memory().applied];
        self.marked_at_seconds = now;
        if older != Revision::ZERO
            && let Err(error) = self.shared.engine.compact(older).await
        {
            tracing::warn!(err = %Chain(&error), "compacting the engine's history failed; trying again later");
        }
    }
}

/// The whole state of an engine, and the tail that continues it.
pub(crate) async fn start(engine: &dyn Engine, keys: &Keyring) -> Result<(Memory, Tail), OpenError> {
    for _ in 0..START_ATTEMPTS_MAX {
        let memory = load(engine, keys).await?;
        match engine.tail(memory.applied).await {
            Ok(tail) => return Ok((memory, tail)),
            // So much was written meanwhile that the engine forgot where the load ended.
            Err(TailError::Compacted { .. }) => {}
            Err(TailError::Broken(error)) => return Err(error.into()),
        }
    }
    Err(EngineError::Unavailable("the history is compacted faster than the state loads".into()).into())
}

/// Reads the whole state of an engine.
async fn load(engine: &dyn Engine, keys: &Keyring) -> Result<Memory, OpenError> {
    let mut load = engine.load().await?;
    let mut memory = Memory::new(load.revision);
    while let Some(rows) = load.rows.recv().await {
        for row in rows? {
            if snapshot::is_marker(&row.place) {
                return Err(OpenError::HalfImported);
            }
            let object = open(keys, &row.place, row.revision, &row.value).map_err(|error| match error {
                ApplyError::Envelope { place, source } => OpenError::Envelope { place, source },
                ApplyError::Object { place, source } => OpenError::Object { place, source },
            })?;
            memory.entry(&row.place.storage).live.insert(row.place.key, object);
        }
    }
    for (storage, floor) in &load.floors {
        memory.entry(storage).lower_floor(*floor);
    }
    Ok(memory)
}

fn open(keys: &Keyring, place: &Place, revision: Revision, value: &Bytes) -> Result<Arc<Object>, ApplyError> {
    let opened =
        envelope::open(keys, place, value).map_err(|source| ApplyError::Envelope { place: place.clone(), source })?;
    served(place, revision, &opened.document, opened.offset)
        .map_err(|source| ApplyError::Object { place: place.clone(), source })
}

/// The served form of a stored document: made once per version, shared by everyone.
pub(crate) fn served(
    place: &Place,
    revision: Revision,
    document: &[u8],
    offset: Option<usize>,
) -> Result<Arc<Object>, api::object::ObjectError> {
    let Some(offset) = offset.filter(|_| !place::is_claim(&place.storage)) else {
        let bytes = Bytes::copy_from_slice(document);
        return Ok(Arc::new(Object::new(place.key.clone(), revision, bytes, Header::default())));
    };
    let parsed = Object::parse(splice::splice(document, offset, revision))?;
    Ok(Arc::new(Object::new(place.key.clone(), revision, parsed.bytes, parsed.header)))
}
