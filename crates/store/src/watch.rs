//! A watcher: a cursor into one storage's ring. It holds no queue that could fall behind; falling behind is `Gone`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{Revision, SmolStr};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::event::Event;
use crate::memory::Gone;
use crate::store::Shared;

/// Events taken from the ring under one lock.
const READ_AHEAD_EVENTS_MAX: usize = 64;
/// An idle watcher hears of progress this often, so that it stays ahead of the history's end.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

/// What a watcher sees next.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Change(Arc<Event>),
    /// Everything up to this revision was delivered. The API forwards it only to clients that asked for bookmarks.
    Bookmark(Revision),
}

/// A watch of one storage.
pub struct Watch {
    shared: Arc<Shared>,
    storage: SmolStr,
    cursor: u64,
    ready: VecDeque<Arc<Event>>,
    /// Everything up to here was delivered.
    seen: Revision,
    changed: watch::Receiver<u64>,
    bookmarks: tokio::time::Interval,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn start(shared: Arc<Shared>, storage: &str, after: Revision) -> Result<Watch, Gone> {
        let storage = SmolStr::from(storage);
        let (cursor, changed) = {
            let mut memory = shared.memory_mut();
            let collection = memory.entry(&storage);
            (collection.cursor(after)?, collection.subscribe())
        };
        // The first at once: who watches from an earlier revision learns whether anything happened since.
        let mut bookmarks = tokio::time::interval(BOOKMARK_PERIOD);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Watch { shared, storage, cursor, ready: VecDeque::new(), seen: after, changed, bookmarks })
    }

    /// The next change, or a bookmark when there was none for a while. Safe to cancel.
    ///
    /// # Errors
    /// When the watcher fell behind the history: it must list again.
    pub async fn next(&mut self) -> Result<WatchEvent, Gone> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(WatchEvent::Change(event));
            }
            tokio::select! {
                biased;
                _ = self.changed.changed() => {}
                _ = self.bookmarks.tick() => {
                    if let Some(bookmark) = self.progress()?.filter(|revision| self.seen < *revision) {
                        self.seen = bookmark;
                        return Ok(WatchEvent::Bookmark(bookmark));
                    }
                }
            }
        }
    }

    /// A change that is already there.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, Gone> {
        if self.ready.is_empty() {
            self.changed.mark_unchanged();
            let memory = self.shared.memory();
            let collection = memory.get(&self.storage).expect("made when the watch started; collections never go away");
            self.cursor = collection.read(self.cursor, READ_AHEAD_EVENTS_MAX, &mut self.ready)?;
        }
        let event = self.ready.pop_front();
        if let Some(event) = &event {
            self.seen = event.revision;
        }
        Ok(event)
    }

    /// The revision up to which everything was delivered, if nothing is waiting to be: what a requested bookmark says.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn progress(&mut self) -> Result<Option<Revision>, Gone> {
        if !self.ready.is_empty() {
            return Ok(None);
        }
        let memory = self.shared.memory();
        let collection = memory.get(&self.storage).expect("made when the watch started; collections never go away");
        // Reading nothing still finds out whether the cursor fell behind.
        collection.read(self.cursor, 0, &mut VecDeque::new())?;
        Ok((collection.end() == self.cursor).then_some(memory.applied))
    }
}
