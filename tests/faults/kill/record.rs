//! What the outside client was told, object by object: the judge of what the server must still know.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::{Endpoint, eventually};
use serde_json::Value;

use super::PATH;
use super::rounds::PATIENCE;

/// How long a server may be unable to, after what was done to it.
const LIST_BOUND: Duration = Duration::from_secs(60);

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Created or updated to this value; the revision is the acknowledgement's.
    Put {
        revision: u64,
        value: String,
    },
    Deleted,
}

/// What was asked and not answered: it may have happened or not. Nobody touches such an object again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Put(String),
    Delete,
}

#[derive(Clone, Debug, Default)]
pub struct Object {
    pub acknowledged: Vec<Change>,
    pub unanswered: Option<Wish>,
}

/// All objects, and what contradicted an acknowledgement on the way.
#[derive(Default)]
pub struct Record {
    objects: Mutex<BTreeMap<String, Object>>,
    newest: AtomicU64,
    contradictions: Mutex<Vec<String>>,
}

// === impl Record ===

impl Record {
    pub fn acknowledged(&self, name: &str, change: Change) {
        if let Change::Put { revision, .. } = change {
            self.newest.fetch_max(revision, Ordering::Relaxed);
        }
        let mut objects = self.objects.lock().expect("no holder of this lock panics");
        objects.entry(name.to_owned()).or_default().acknowledged.push(change);
    }

    /// The newest revision that was acknowledged: what is written from now on comes after it.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    pub fn unanswered(&self, name: &str, wish: Wish) {
        let mut objects = self.objects.lock().expect("no holder of this lock panics");
        objects.entry(name.to_owned()).or_default().unanswered = Some(wish);
    }

    pub fn contradicted(&self, what: String) {
        self.contradictions.lock().expect("no holder of this lock panics").push(what);
    }

    pub fn objects(&self) -> BTreeMap<String, Object> {
        self.objects.lock().expect("no holder of this lock panics").clone()
    }

    pub fn summary(&self) -> String {
        let objects = self.objects();
        let count = |matches: fn(&Change) -> bool| {
            objects.values().flat_map(|object| &object.acknowledged).filter(|change| matches(change)).count()
        };
        let deleted = count(|change| *change == Change::Deleted);
        let unanswered = objects.values().filter(|object| object.unanswered.is_some()).count();
        format!(
            "{} creations and updates and {deleted} deletions acknowledged and all there, {unanswered} unanswered",
            count(|change| *change != Change::Deleted)
        )
    }

    /// Compares with what the server lists now. Nobody may write meanwhile.
    pub fn judge(&self, endpoint: &Endpoint) -> anyhow::Result<()> {
        if let Some(what) = self.contradictions.lock().expect("no holder of this lock panics").first() {
            bail!("an acknowledged write was contradicted: {what}");
        }
        let list = eventually("the server lists", LIST_BOUND, || {
            let answer = endpoint.connect_within(PATIENCE)?.call("GET", PATH, "")?;
            ensure!(answer.code == 200, "the list answered {}", answer.code);
            serde_json::from_slice::<Value>(&answer.body).context("read the list")
        })?;
        let at: u64 = list["metadata"]["resourceVersion"].as_str().context("the list has no revision")?.parse()?;
        let items = list["items"].as_array().context("the list has no items")?;
        let mut found: BTreeMap<&str, (u64, &str)> = items.iter().filter_map(state).collect();
        for (name, object) in self.objects() {
            let state = found.remove(name.as_str());
            object.explains(state).with_context(|| format!("{name} is {state:?} after {object:?}"))?;
            if let Some(Change::Put { revision, .. }) = object.acknowledged.last() {
                ensure!(at >= *revision, "the list is at {at}, but {revision} was acknowledged");
            }
        }
        // The cluster's own CA bundle lies in every namespace.
        found.remove("kube-root-ca.crt");
        ensure!(found.is_empty(), "nobody wrote {found:?}");
        Ok(())
    }
}

/// Name, revision and value of a listed object.
fn state(item: &Value) -> Option<(&str, (u64, &str))> {
    let metadata = &item["metadata"];
    let revision = metadata["resourceVersion"].as_str()?.parse().ok()?;
    Some((metadata["name"].as_str()?, (revision, item["data"]["n"].as_str().unwrap_or_default())))
}

// === impl Object ===

impl Object {
    /// Whether what was told allows this state.
    fn explains(&self, state: Option<(u64, &str)>) -> anyhow::Result<()> {
        let kept = match (self.acknowledged.last(), state) {
            (Some(Change::Put { revision, value }), Some((at, found))) => *revision == at && value == found,
            (Some(Change::Deleted) | None, None) => true,
            (Some(Change::Put { .. }), None) | (Some(Change::Deleted) | None, Some(_)) => false,
        };
        let happened = match (&self.unanswered, state) {
            (Some(Wish::Put(value)), Some((_, found))) => value == found,
            (Some(Wish::Delete), None) => true,
            _ => false,
        };
        ensure!(kept || happened, "an acknowledged write is lost or changed");
        Ok(())
    }
}
