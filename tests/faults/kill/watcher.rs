//! A watcher that lives through every kill: it continues where it was, or is told 410 and lists again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::{Endpoint, eventually, pause};
use serde_json::Value;

use super::PATH;
use super::record::{Change, Record};
use super::rounds::PATIENCE;

/// Every so often a watch ends by itself and is continued, as ordinary clients' do.
const WATCH_SECONDS: u32 = 5;
/// How long the last events may be on their way.
const LAST_EVENTS_BOUND: Duration = Duration::from_secs(90);
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Default)]
pub struct Watcher {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The revision up to which everything is known; None before the first list.
    at: Option<u64>,
    /// Creations and updates by their revision.
    puts: BTreeMap<u64, String>,
    deleted: BTreeSet<String>,
    live: BTreeSet<String>,
    /// Spans of revisions that only a list told of: after the first, up to and with the second.
    listed: Vec<(u64, u64)>,
    /// From which revisions watches began.
    watched: Vec<u64>,
    /// What a watch must never do.
    faults: Vec<String>,
}

/// Why a watch ended.
enum End {
    /// Closed or cut: continue from the last revision.
    Over,
    /// 410: list again.
    Gone,
}

// === impl Watcher ===

impl Watcher {
    /// Lists and watches until told to stop.
    pub fn run(&self, endpoint: &Endpoint, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let at = self.seen.lock().expect("no holder of this lock panics").at;
            let end = match at {
                None => self.list(endpoint).map(|()| End::Over),
                Some(at) => self.watch(endpoint, at),
            };
            match end {
                Ok(End::Over) => {}
                Ok(End::Gone) => self.seen.lock().expect("no holder of this lock panics").at = None,
                // The server is down: nothing is lost by asking again.
                Err(_) => pause(ASK_AGAIN),
            }
        }
    }

    fn list(&self, endpoint: &Endpoint) -> anyhow::Result<()> {
        let answer = endpoint.connect_within(PATIENCE)?.call("GET", PATH, "")?;
        ensure!(answer.code == 200, "the list answered {}", answer.code);
        let list: Value = serde_json::from_slice(&answer.body)?;
        self.seen.lock().expect("no holder of this lock panics").listed(&list)
    }

    fn watch(&self, endpoint: &Endpoint, at: u64) -> anyhow::Result<End> {
        let mut connection = endpoint.connect_within(PATIENCE)?;
        let path = format!("{PATH}?watch=1&timeoutSeconds={WATCH_SECONDS}&resourceVersion={at}");
        if connection.watch(&path).is_err() {
            return refusal(endpoint, &path);
        }
        self.seen.lock().expect("no holder of this lock panics").watched.push(at);
        let mut line = Vec::new();
        while let Some(chunk) = connection.chunk()? {
            line.extend(chunk);
            while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let event: Vec<u8> = line.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&event).context("read an event")?;
                if event["type"] == "ERROR" && event["object"]["code"] == 410 {
                    return Ok(End::Gone);
                }
                self.seen.lock().expect("no holder of this lock panics").event(&event);
            }
        }
        Ok(End::Over)
    }

    /// Every acknowledged write was seen exactly once, or a list told of it after a 410.
    pub fn judge(&self, record: &Record) -> anyhow::Result<()> {
        let objects = record.objects();
        eventually("the watcher has seen every acknowledged write", LAST_EVENTS_BOUND, || {
            let seen = self.seen.lock().expect("no holder of this lock panics");
            if let Some(fault) = seen.faults.first() {
                bail!("{fault}");
            }
            objects.iter().try_for_each(|(name, object)| {
                object.acknowledged.iter().try_for_each(|change| seen.knows(name, change))
            })
        })
    }

    pub fn told(&self) -> String {
        let seen = self.seen.lock().expect("no holder of this lock panics");
        let (events, lists) = (seen.puts.len() + seen.deleted.len(), seen.listed.len());
        format!("{events} events over {} watches and {lists} lists", seen.watched.len())
    }
}

/// Asks again for the whole answer: a watch that does not begin was refused with 410, or the server is down.
fn refusal(endpoint: &Endpoint, path: &str) -> anyhow::Result<End> {
    let answer = endpoint.connect_within(PATIENCE)?.call("GET", path, "")?;
    // The code of the answer or, in a stream that ends at once, of its only event.
    let event: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let gone = event.is_some_and(|event| event["type"] == "ERROR" && event["object"]["code"] == 410);
    ensure!(answer.code == 410 || gone, "the watch answered {}", answer.code);
    Ok(End::Gone)
}

// === impl Seen ===

impl Seen {
    /// A list replaces what is known: what it no longer holds was deleted.
    fn listed(&mut self, list: &Value) -> anyhow::Result<()> {
        let at = revision_of(list).context("the list has no revision")?;
        let items = list["items"].as_array().context("the list has no items")?;
        let from = self.puts.last_key_value().map_or(0, |(revision, _)| *revision);
        let live: BTreeSet<String> = items.iter().filter_map(name_of).collect();
        self.deleted.extend(self.live.difference(&live).cloned());
        for item in items {
            if let (Some(revision), Some(name)) = (revision_of(item), name_of(item)) {
                self.puts.insert(revision, name);
            }
        }
        self.live = live;
        self.listed.push((from, at));
        self.at = Some(at);
        Ok(())
    }

    fn event(&mut self, event: &Value) {
        let (Some(revision), Some(name)) = (revision_of(&event["object"]), name_of(&event["object"])) else {
            self.faults.push(format!("an event without name or revision: {event}"));
            return;
        };
        if self.at.is_some_and(|at| revision <= at) {
            self.faults.push(format!("{} of {name} at {revision} came after {:?}", event["type"], self.at));
        }
        self.at = Some(revision);
        let known = match event["type"].as_str() {
            Some("ADDED") => self.puts.insert(revision, name.clone()).is_none() && self.live.insert(name.clone()),
            Some("MODIFIED") => self.puts.insert(revision, name.clone()).is_none() && self.live.contains(&name),
            Some("DELETED") => self.live.remove(&name) && self.deleted.insert(name.clone()),
            _ => false,
        };
        if !known {
            self.faults
                .push(format!("{} of {name} at {revision} does not follow from what came before", event["type"]));
        }
    }

    /// What was seen just before and after a revision, and what only lists told of.
    fn around(&self, revision: u64) -> String {
        let before = self.puts.range(..revision).next_back();
        let after = self.puts.range(revision..).next();
        format!("seen before {before:?}, after {after:?}, lists {:?}, watched from {:?}", self.listed, self.watched)
    }

    fn knows(&self, name: &str, change: &Change) -> anyhow::Result<()> {
        match change {
            Change::Put { revision, .. } => {
                let listed = || self.listed.iter().any(|(from, to)| from < revision && revision <= to);
                let seen = self.puts.get(revision).is_some_and(|seen| seen == name);
                ensure!(seen || listed(), "{name} at {revision} was not seen: {}", self.around(*revision));
            }
            Change::Deleted => {
                // Between two lists an object may have come and gone unseen.
                let unseen = || self.listed.len() > 1 && !self.puts.values().any(|seen| seen == name);
                ensure!(self.deleted.contains(name) || unseen(), "the deletion of {name} was not seen");
            }
        }
        Ok(())
    }
}

fn revision_of(tree: &Value) -> Option<u64> {
    tree["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

fn name_of(tree: &Value) -> Option<String> {
    tree["metadata"]["name"].as_str().map(str::to_owned)
}
