//! The one durable record behind all servers, as a quorum of etcd is: what was acknowledged stays, and everything else
//! can go wrong on the way to it. Each server reaches it over a link of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use admit::{Batch, Change, Expect, Place, Write};
use async_trait::async_trait;
use base::{Revision, Rng};
use bytes::Bytes;
use store::{CommitId, Engine, EngineError, Entry, EntryChange, Load, Row, Tail, TailError, WriteError};
use tokio::sync::{mpsc, watch};

use crate::world::{Weather, below};

/// Entries that are sent down a tail at once.
const GROUP_MAX: usize = 64;
/// A request over a link that is down ends after this.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// What is durable.
#[derive(Default)]
struct State {
    live: BTreeMap<(String, String), (Place, Revision, Bytes)>,
    entries: Vec<Entry>,
    compacted: Revision,
    revision: Revision,
}

/// The record itself.
pub struct Record {
    weather: Weather,
    state: Mutex<State>,
    newest: watch::Sender<Revision>,
}

/// How one server reaches the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Up,
    /// Nothing passes, and nobody says so.
    Down,
    /// The server's process is gone.
    Closed,
}

/// One server's end.
pub struct Member {
    name: Arc<str>,
    record: Arc<Record>,
    link: watch::Receiver<Link>,
    rng: Arc<dyn Rng>,
}

// === impl Record ===

impl Record {
    pub fn new(weather: Weather) -> Arc<Record> {
        Arc::new(Record { weather, state: Mutex::default(), newest: watch::Sender::new(Revision::ZERO) })
    }

    pub fn member(self: &Arc<Record>, name: &str, link: watch::Receiver<Link>, rng: Arc<dyn Rng>) -> Arc<dyn Engine> {
        Arc::new(Member { name: name.into(), record: self.clone(), link, rng })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn commit(&self, id: CommitId, batch: Batch) -> Result<Revision, WriteError> {
        let mut state = self.state();
        for change in &batch.changes {
            let current = state.live.get(&name(&change.place)).map(|(_, revision, _)| *revision);
            let holds = match change.expect {
                Expect::Absent => current.is_none(),
                Expect::At(revision) => current == Some(revision),
            };
            if !holds {
                return Err(WriteError::Conflict { place: change.place.clone(), current });
            }
        }
        if batch.changes.iter().all(|change| change.write == Write::Keep) {
            return Ok(state.revision);
        }
        let revision = state.revision.next();
        state.revision = revision;
        let changes = batch.changes.into_iter().filter_map(|change| state.write(change, revision)).collect();
        state.entries.push(Entry { revision, id, changes });
        drop(state);
        self.newest.send_replace(revision);
        Ok(revision)
    }

    /// The entries after a revision, no more than fit one group.
    fn after(&self, after: Revision) -> Result<Vec<Entry>, TailError> {
        let state = self.state();
        if after < state.compacted {
            return Err(TailError::Compacted { oldest: state.compacted });
        }
        let first = state.entries.partition_point(|entry| entry.revision <= after);
        Ok(state.entries[first..].iter().take(GROUP_MAX).cloned().collect())
    }

    /// Forgets history, as a compaction that others asked for.
    pub fn forget(&self, through: Revision) {
        let mut state = self.state();
        state.compacted = state.compacted.max(through.min(state.revision));
    }

    /// Everything committed after a revision, compacted or not: for whoever judges.
    pub fn since(&self, after: Revision) -> Vec<Entry> {
        let state = self.state();
        let first = state.entries.partition_point(|entry| entry.revision <= after);
        state.entries[first..].to_vec()
    }

    /// What is stored under a name, as it lies there.
    pub fn value(&self, storage: &str, key: &str) -> Option<Bytes> {
        self.state().live.get(&(storage.to_owned(), key.to_owned())).map(|(_, _, value)| value.clone())
    }

    /// The names that begin so.
    pub fn keys(&self, storage: &str, prefix: &str) -> Vec<String> {
        let state = self.state();
        let from = (storage.to_owned(), prefix.to_owned());
        let found = state.live.range(from..).map(|((of, key), _)| (of, key));
        found.take_while(|(of, key)| *of == storage && key.starts_with(prefix)).map(|(_, key)| key.clone()).collect()
    }

    pub fn newest(&self) -> Revision {
        self.state().revision
    }
}

impl State {
    fn write(&mut self, change: Change, revision: Revision) -> Option<EntryChange> {
        let place = change.place;
        let value = match change.write {
            Write::Keep => return None,
            Write::Delete => {
                self.live.remove(&name(&place));
                None
            }
            Write::Put(value) => {
                self.live.insert(name(&place), (place.clone(), revision, value.clone()));
                Some(value)
            }
        };
        Some(EntryChange { place, value })
    }
}

/// For whoever looks into a seed, with `EVENKEEL_LOG=sim=debug`.
fn trace(by: &str, places: &[Place], outcome: &Result<Revision, WriteError>) {
    let places: Vec<String> = places.iter().map(|place| format!("{} {}", place.storage, place.key)).collect();
    match outcome {
        Ok(revision) => tracing::debug!(by, %revision, ?places, "commit"),
        Err(error) => tracing::debug!(by, %error, ?places, "no commit"),
    }
}

fn name(place: &Place) -> (String, String) {
    (place.storage.to_string(), place.key.to_string())
}

// === impl Member ===

impl Member {
    /// One way over the link. A link that is down swallows the message.
    async fn travel(&self) -> Result<(), EngineError> {
        let millis = 1 + below(&*self.rng, self.record.weather.latency_millis_max);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let mut link = self.link.clone();
        let up = link.wait_for(|link| *link != Link::Down);
        let now = match tokio::time::timeout(LINK_TIMEOUT, up).await {
            Ok(Ok(link)) => *link,
            Ok(Err(_)) => Link::Closed,
            Err(_) => Link::Down,
        };
        match now {
            Link::Up => Ok(()),
            Link::Closed => Err(EngineError::Closed),
            Link::Down => Err(EngineError::Unavailable("the record does not answer".into())),
        }
    }

    fn trouble(&self) -> bool {
        below(&*self.rng, self.record.weather.commit_trouble_one_in) == 0
    }
}

#[async_trait]
impl Engine for Member {
    async fn load(&self) -> Result<Load, EngineError> {
        self.travel().await?;
        let (chunks, rows) = mpsc::channel(1);
        let (revision, all) = {
            let state = self.record.state();
            let row = |(place, revision, value): &(Place, Revision, Bytes)| Row {
                place: place.clone(),
                revision: *revision,
                value: value.clone(),
            };
            (state.revision, state.live.values().map(row).collect::<Vec<Row>>())
        };
        let _ = chunks.try_send(Ok(all));
        Ok(Load { revision, floors: BTreeMap::new(), rows })
    }

    async fn commit(&self, id: CommitId, batch: Batch) -> Result<Revision, WriteError> {
        let refused = |error: EngineError| match error {
            EngineError::Closed => WriteError::Closed,
            other => WriteError::Unavailable(other.into()),
        };
        self.travel().await.map_err(refused)?;
        if self.trouble() {
            return Err(WriteError::Unavailable("the record took no write".into()));
        }
        let places: Vec<Place> = batch.changes.iter().map(|change| change.place.clone()).collect();
        let outcome = self.record.commit(id, batch);
        trace(&self.name, &places, &outcome);
        let lost = |error: EngineError| WriteError::Unknown(error.into());
        self.travel().await.map_err(lost)?;
        if self.trouble() {
            return Err(WriteError::Unknown("the reply was lost".into()));
        }
        outcome
    }

    async fn read_barrier(&self) -> Result<Revision, EngineError> {
        self.travel().await?;
        let newest = self.record.newest();
        self.travel().await.map(|()| newest)
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        self.travel().await.map_err(TailError::Broken)?;
        self.record.after(after)?;
        let (groups, receiver) = mpsc::channel(4);
        let Member { name, record, link, rng } = self;
        let end = Member { name: name.clone(), record: record.clone(), link: link.clone(), rng: rng.clone() };
        tokio::spawn(end.feed(after, groups));
        Ok(Tail(receiver))
    }

    async fn compact(&self, through: Revision) -> Result<(), EngineError> {
        self.travel().await?;
        self.record.forget(through);
        Ok(())
    }

    async fn leap(&self, beyond: Revision) -> Result<(), EngineError> {
        self.travel().await?;
        let mut state = self.record.state();
        state.revision = state.revision.max(beyond);
        Ok(())
    }
}

impl Member {
    /// Sends what is committed down one tail, until the link breaks or nobody reads.
    async fn feed(self, mut after: Revision, groups: mpsc::Sender<Result<Vec<Entry>, TailError>>) {
        let mut newest = self.record.newest.subscribe();
        loop {
            tokio::select! { biased;
                () = groups.closed() => return,
                waited = newest.wait_for(|newest| after < *newest) => if waited.is_err() { return },
            }
            let group = match self.travel().await {
                Ok(()) => self.record.after(after),
                Err(error) => Err(TailError::Broken(error)),
            };
            let failed = group.is_err();
            if let Ok(group) = &group {
                after = group.last().map_or(after, |entry| entry.revision);
            }
            if groups.send(group).await.is_err() || failed {
                return;
            }
        }
    }
}
