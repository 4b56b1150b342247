//! Performs the effects of one [`Watcher`] and writes what it learns into the view's snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Object, Snapshot};
use base::{Chain, Revision};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::view::{Form, Shared};
use crate::watcher::{Effect, Event, PAGE_OBJECTS_MAX, Watcher};
use crate::{Backoff, Change, Client, ClientError, Frames, ListOptions, ResponseBody, Watched};

/// A watch is asked to end between this and twice this, so that servers can balance their connections.
const WATCH_SECONDS_MIN: u64 = 300;
/// Slack on top of what was asked before a silent stream counts as broken.
const WATCH_SLACK: Duration = Duration::from_secs(30);
/// A watch that was opened to catch up has this long before another one is tried.
const CATCH_UP_PERIOD: Duration = Duration::from_millis(500);

pub(crate) struct Pump {
    client: Client,
    watched: Watched,
    form: Form,
    shared: Arc<Shared>,
    stream: Option<OpenWatch>,
    wanted: watch::Receiver<Revision>,
}

struct OpenWatch {
    body: ResponseBody,
    frames: Frames,
    since: Instant,
    until: Instant,
}

// === impl Pump ===

impl Pump {
    pub(crate) fn new(client: Client, watched: Watched, form: Form, shared: Arc<Shared>) -> Pump {
        let wanted = shared.wanted.subscribe();
        Pump { client, watched, form, shared, stream: None, wanted }
    }

    pub(crate) async fn run(mut self) {
        let mut effects = Vec::new();
        let mut watcher = Watcher::start(&mut effects);
        loop {
            let events = self.perform(std::mem::take(&mut effects)).await;
            for event in events {
                watcher = watcher.step(event, &mut effects);
                // Frames that follow an error in one chunk belong to a watch that is over.
                if !matches!(watcher, Watcher::Watching { .. }) {
                    break;
                }
            }
        }
    }

    /// Applies what is known, then does the one thing there is to report on.
    async fn perform(&mut self, effects: Vec<Effect>) -> Vec<Event> {
        let mut known = Vec::new();
        let mut next = None;
        for effect in effects {
            match effect {
                Effect::Replace { .. } | Effect::Put(_) | Effect::Remove(_) | Effect::Advance(_) => known.push(effect),
                Effect::List { .. } | Effect::Watch { .. } | Effect::Pause { .. } => next = Some(effect),
            }
        }
        self.apply(known);
        match next {
            Some(Effect::List { more }) => vec![self.list(more.as_deref()).await],
            Some(Effect::Watch { from }) => self.open(from).await,
            Some(Effect::Pause { failures }) => {
                self.stream = None;
                tokio::time::sleep(Backoff::WATCH.pause(failures, self.client.rng())).await;
                vec![Event::PauseOver]
            }
            _ => self.read().await,
        }
    }

    async fn list(&mut self, more: Option<&str>) -> Event {
        let options = ListOptions { limit: Some(PAGE_OBJECTS_MAX), more, form: self.form, ..self.watched.options() };
        match self.client.list(&self.watched.gvr, &options).await {
            Ok(page) => Event::Page(page),
            Err(error) => {
                warn!(kind = %self.watched.gvr, error = %Chain(&error), "list failed");
                Event::ListFailed(status(error))
            }
        }
    }

    async fn open(&mut self, from: Revision) -> Vec<Event> {
        let seconds = WATCH_SECONDS_MIN + self.client.rng().next_u64() % WATCH_SECONDS_MIN;
        let timeout = Duration::from_secs(seconds);
        let options = ListOptions { form: self.form, ..self.watched.options() };
        match self.client.watch(&self.watched.gvr, &options, from, timeout).await {
            Ok(body) => {
                let since = Instant::now();
                let until = since + timeout + WATCH_SLACK;
                self.stream = Some(OpenWatch { body, frames: Frames::default(), since, until });
                self.read().await
            }
            Err(error) => self.ended(Some(error)),
        }
    }

    /// Waits for the next chunk and returns the events that are whole with it; none when a line is still open.
    async fn read(&mut self) -> Vec<Event> {
        loop {
            let Some(open) = self.stream.as_mut() else { return vec![Event::WatchEnded(None)] };
            let chunk = tokio::select! { biased;
                chunk = tokio::time::timeout_at(open.until, open.body.frame()) => chunk,
                from = outdated(&mut self.wanted, &self.shared, &self.watched.gvr, open.since) => {
                    return Box::pin(self.open(from)).await;
                }
            };
            let chunk = match chunk {
                Err(_) => return self.ended(Some(ClientError::Timeout(WATCH_SLACK))),
                Ok(None) => return self.ended(None),
                Ok(Some(Err(error))) => return self.ended(Some(ClientError::transport(error))),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            match open.frames.push(&chunk) {
                Ok(frames) if frames.is_empty() => {}
                Ok(frames) => return frames.into_iter().map(Event::Frame).collect(),
                Err(error) => return self.ended(Some(error)),
            }
        }
    }

    fn ended(&mut self, error: Option<ClientError>) -> Vec<Event> {
        self.stream = None;
        let Some(error) = error else { return vec![Event::WatchEnded(None)] };
        debug!(kind = %self.watched.gvr, error = %Chain(&error), "watch ended");
        vec![Event::WatchEnded(status(error))]
    }

    /// Publishes one new snapshot for everything one chunk brought, then the changes it made.
    fn apply(&mut self, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        let mut changes = Vec::new();
        self.shared.snapshot.send_modify(|snapshot| self.write(snapshot, effects, &mut changes));
        for (old, new) in changes {
            let key = old.as_ref().or(new.as_ref()).expect("a change has a side").key.clone();
            let change = Change { gvr: self.watched.gvr.clone(), key, old, new };
            // Without receivers there is nobody to tell.
            let _ = self.shared.changes.send(Arc::new(change));
        }
    }

    fn write(&self, snapshot: &mut Snapshot, effects: Vec<Effect>, changes: &mut Vec<Pair>) {
        let mut stream = snapshot.stream(&self.watched.gvr);
        for effect in effects {
            match effect {
                Effect::Replace { revision, objects } => {
                    let present: BTreeSet<_> = objects.iter().map(|object| object.key.clone()).collect();
                    if !stream.synced {
                        stream.began = revision;
                    }
                    let gone: Vec<_> =
                        stream.iter().map(|o| o.key.clone()).filter(|key| !present.contains(key)).collect();
                    for key in gone {
                        let old = stream.remove(&key);
                        changes.push((old, None));
                    }
                    for object in objects {
                        put(&mut stream, object, changes);
                    }
                    // Never backwards: a list may be served by a cache that is behind what a watch has shown.
                    stream.revision = stream.revision.max(revision);
                    stream.synced = true;
                }
                Effect::Put(object) => {
                    stream.revision = stream.revision.max(object.revision);
                    put(&mut stream, object, changes);
                }
                Effect::Remove(object) => {
                    stream.revision = stream.revision.max(object.revision);
                    if let Some(old) = stream.remove(&object.key) {
                        changes.push((Some(old), None));
                    }
                }
                Effect::Advance(revision) => stream.revision = stream.revision.max(revision),
                Effect::List { .. } | Effect::Watch { .. } | Effect::Pause { .. } => {}
            }
        }
        snapshot.put_stream(self.watched.gvr.clone(), stream);
    }
}

/// Returns once somebody waits for more than the stream shows; with how far it is.
async fn outdated(wanted: &mut watch::Receiver<Revision>, shared: &Shared, gvr: &Gvr, since: Instant) -> Revision {
    loop {
        let wish = *wanted.borrow_and_update();
        let shown = || shared.snapshot.borrow().stream(gvr).revision;
        if shown() < wish {
            tokio::time::sleep_until(since + CATCH_UP_PERIOD).await;
            return shown();
        }
        if wanted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

type Pair = (Option<Arc<Object>>, Option<Arc<Object>>);

fn put(stream: &mut api::Stream, object: Arc<Object>, changes: &mut Vec<Pair>) {
    let old = stream.get(&object.key).cloned();
    if old.as_ref().is_some_and(|old| old.revision == object.revision && old.header.uid == object.header.uid) {
        return;
    }
    stream.put(object.clone());
    changes.push((old, Some(object)));
}

fn status(error: ClientError) -> Option<api::Status> {
    match error {
        ClientError::Status(status) => Some(status),
        ClientError::Transport { .. }
        | ClientError::Timeout(_)
        | ClientError::Decode { .. }
        | ClientError::TooLarge { .. } => None,
    }
}
