//! The load: one open schedule of turns, taken by writers that each wait for their acknowledgement.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use e2e::{Answer, Connection, Endpoint, pause};
use serde_json::{Value, json};

use super::PATH;
use super::record::{Change, Record, Wish};
use super::rounds::PATIENCE;

/// How often a writer without work or without a server looks again.
const IDLE: Duration = Duration::from_millis(5);

/// More objects than this a writer does not keep: it deletes one instead of making another.
const LIVE_MAX: usize = 50;
/// Acknowledgements whose moments are remembered.
const RECENT_MAX: usize = 256;

/// The schedule: turns are due at a steady rate while a window is open, whether the one before was answered or not.
#[derive(Default)]
pub struct Pace {
    window: RwLock<Option<Window>>,
    acknowledged: AtomicU64,
    /// When the newest acknowledgements came, [`RECENT_MAX`] at most, oldest first.
    recent: Mutex<VecDeque<Instant>>,
    /// Windows closed so far. A connection of an earlier one is to a server that was killed.
    closed: AtomicU64,
    /// How long windows were open before their server was killed.
    up: Mutex<Duration>,
    longest: Mutex<Duration>,
}

struct Window {
    opened: Instant,
    period: Duration,
    turns: AtomicU32,
    ended: AtomicBool,
}

// === impl Pace ===

impl Pace {
    pub fn open(&self, period: Duration) {
        let window = Window { opened: Instant::now(), period, turns: AtomicU32::new(0), ended: AtomicBool::new(false) };
        self.recent.lock().expect("no holder of this lock panics").clear();
        *self.window.write().expect("no holder of this lock panics") = Some(window);
    }

    /// Stops the clock: what is acknowledged from now on does not count.
    pub fn end(&self) {
        if let Some(window) = &*self.window.read().expect("no holder of this lock panics")
            && !window.ended.swap(true, Ordering::Relaxed)
        {
            *self.up.lock().expect("no holder of this lock panics") += window.opened.elapsed();
        }
    }

    /// Returns once no writer has a request under way.
    pub fn close(&self) {
        self.end();
        *self.window.write().expect("no holder of this lock panics") = None;
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Acknowledged writes a second of the windows so far.
    pub fn rate(&self) -> f64 {
        let up = self.up.lock().expect("no holder of this lock panics").as_secs_f64();
        self.acknowledged.load(Ordering::Relaxed) as f64 / up.max(f64::MIN_POSITIVE)
    }

    /// Acknowledgements of this last span, [`RECENT_MAX`] at most.
    pub fn acknowledged_within(&self, span: Duration) -> usize {
        let recent = self.recent.lock().expect("no holder of this lock panics");
        recent.iter().rev().take_while(|at| at.elapsed() <= span).count()
    }

    pub fn acknowledged_since(&self, moment: Instant) -> bool {
        self.recent.lock().expect("no holder of this lock panics").back().is_some_and(|at| moment <= *at)
    }

    /// The longest that nothing was acknowledged while turns were due.
    pub fn longest(&self) -> Duration {
        *self.longest.lock().expect("no holder of this lock panics")
    }

    fn acknowledge(&self, opened: Instant) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut recent = self.recent.lock().expect("no holder of this lock panics");
        let silent = recent.back().unwrap_or(&opened).elapsed();
        let mut longest = self.longest.lock().expect("no holder of this lock panics");
        *longest = silent.max(*longest);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Instant::now());
    }

    /// Performs the next turn when it is due. False without an open window.
    fn turn(&self, write: impl FnOnce() -> bool) -> bool {
        let window = self.window.read().expect("no holder of this lock panics");
        let Some(window) = &*window else { return false };
        let due = window.opened + window.period * window.turns.fetch_add(1, Ordering::Relaxed);
        pause(due.saturating_duration_since(Instant::now()));
        if write() && !window.ended.load(Ordering::Relaxed) {
            self.acknowledge(window.opened);
        }
        true
    }
}

/// Writes until told to stop; after a lost connection through the next of the servers.
pub fn run(endpoints: &[Endpoint], number: usize, record: &Record, pace: &Pace, stop: &AtomicBool) {
    let mut writer = Writer { number, made: 0, turn: 0, live: VecDeque::new(), connection: None };
    let mut connected_after = 0;
    let mut servers = endpoints.iter().cycle().skip(number);
    while !stop.load(Ordering::Relaxed) {
        let closed = pace.closed.load(Ordering::Relaxed);
        let usable = writer.connection.take().filter(|_| connected_after == closed);
        writer.connection = usable.or_else(|| servers.next()?.connect_within(PATIENCE).ok());
        connected_after = closed;
        if writer.connection.is_none() || !pace.turn(|| writer.write(record)) {
            pause(IDLE);
        }
    }
}

struct Writer {
    number: usize,
    made: u64,
    turn: u64,
    /// Objects of this writer whose last write was acknowledged, and at which revision.
    live: VecDeque<(String, u64)>,
    connection: Option<Connection>,
}

impl Writer {
    /// One write, two creations to an update and a deletion. Returns whether it was acknowledged.
    fn write(&mut self, record: &Record) -> bool {
        self.turn += 1;
        match (self.turn % 4, self.live.pop_front()) {
            (0, Some((name, revision))) => self.delete(record, &name, revision),
            (2, Some((name, revision))) => self.update(record, &name, revision),
            (_, Some((name, revision))) if LIVE_MAX <= self.live.len() => self.delete(record, &name, revision),
            (_, kept) => {
                self.live.extend(kept);
                self.create(record)
            }
        }
    }

    fn create(&mut self, record: &Record) -> bool {
        self.made += 1;
        let name = format!("w{}-{}", self.number, self.made);
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": name}});
        self.put(record, ("POST", PATH, 201), &name, name.clone(), &body)
    }

    fn update(&mut self, record: &Record, name: &str, revision: u64) -> bool {
        let value = format!("{name} after {revision}");
        let metadata = json!({"name": name, "resourceVersion": revision.to_string()});
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"n": value}});
        self.put(record, ("PUT", &format!("{PATH}/{name}"), 200), name, value, &body)
    }

    /// A creation or an update: its method and path, and the code of a good answer.
    fn put(&mut self, record: &Record, how: (&str, &str, u16), name: &str, value: String, body: &Value) -> bool {
        let (method, path, good) = how;
        let before = record.newest();
        match self.call(method, path, body) {
            Some(answer) if answer.code == good => {
                let Some(revision) = revision(&answer.body) else {
                    record.contradicted(format!("{name} was answered without a revision"));
                    return false;
                };
                if revision <= before {
                    record.contradicted(format!("{name} was written at {revision}, after {before} was acknowledged"));
                }
                record.acknowledged(name, Change::Put { revision, value });
                self.live.push_back((name.to_owned(), revision));
                true
            }
            answer => {
                record.unanswered(name, Wish::Put(value));
                refused(record, name, answer);
                false
            }
        }
    }

    fn delete(&mut self, record: &Record, name: &str, revision: u64) -> bool {
        let preconditions = json!({"resourceVersion": revision.to_string()});
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
        match self.call("DELETE", &format!("{PATH}/{name}"), &body) {
            Some(answer) if answer.code == 200 => {
                record.acknowledged(name, Change::Deleted);
                true
            }
            answer => {
                record.unanswered(name, Wish::Delete);
                refused(record, name, answer);
                false
            }
        }
    }

    /// None when no answer came: that is no acknowledgement.
    fn call(&mut self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        let mut connection = self.connection.take()?;
        let answer = connection.call(method, path, &body.to_string()).ok()?;
        self.connection = Some(connection);
        Some(answer)
    }
}

/// The names and revisions are this writer's own: a server that remembers them has no reason to refuse.
fn refused(record: &Record, name: &str, answer: Option<Answer>) {
    if let Some(answer) = answer.filter(|answer| matches!(answer.code, 404 | 409)) {
        record.contradicted(format!("{name}: {} {}", answer.code, String::from_utf8_lossy(&answer.body)));
    }
}

fn revision(body: &[u8]) -> Option<u64> {
    let tree: Value = serde_json::from_slice(body).ok()?;
    tree["metadata"]["resourceVersion"].as_str()?.parse().ok()
}
