//! The outside judge: it stores rows over HTTP without end, keeps its own log of what was acknowledged, and looks later
//! whether each of them can be read. What it knows comes from nobody inside.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::saas::{self, HTTP_TIMEOUT, NODE_PORT};
use e2e::{Http, eventually, pause};
use serde_json::{Value, json};

/// Enough that the pace is kept while some of them wait for an answer that does not come.
const WRITERS: u32 = 10;
/// Of each writer: five rows a second of all together.
const PERIOD: Duration = Duration::from_secs(2);
const READERS: usize = 4;
/// How long a row may be out of reach while it is looked for.
const READ_BOUND: Duration = Duration::from_secs(60);

/// A row that was acknowledged.
#[derive(Clone)]
struct Row {
    id: u64,
    text: String,
    at: Instant,
}

/// A request that was not answered as it should be, and when its client gave up.
#[derive(Clone)]
struct Failure {
    at: Instant,
    why: String,
}

#[derive(Default)]
struct Record {
    rows: Vec<Row>,
    failures: Vec<Failure>,
    /// Rows up to this one are in the application's own backup.
    declared: Option<usize>,
}

struct Shared {
    record: Mutex<Record>,
    log: Mutex<File>,
    /// Addresses that clients use.
    doors: RwLock<Vec<String>>,
    /// Held for reading by every request under way, for writing while nobody may write.
    open: RwLock<bool>,
    stop: AtomicBool,
}

/// Stores rows until it is dropped.
pub struct Judge {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

/// What became of the requests since some moment.
pub struct Tally {
    pub stored: usize,
    pub failed: usize,
    /// From the moment until the last client that gave up.
    pub errors_until: Duration,
    pub last: Option<String>,
}

// === impl Judge ===

impl Judge {
    pub fn start(folder: &Path) -> anyhow::Result<Judge> {
        let path = folder.join("acknowledged.jsonl");
        let log = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let shared = Arc::new(Shared {
            record: Mutex::default(),
            log: Mutex::new(log),
            doors: RwLock::default(),
            open: RwLock::new(true),
            stop: AtomicBool::new(false),
        });
        let writers = (0..WRITERS).map(|number| {
            let shared = shared.clone();
            thread::spawn(move || shared.write(number))
        });
        let writers = writers.collect();
        Ok(Judge { shared, writers })
    }

    /// Which hosts clients go to from now on; each request to the next of them, and to that one alone.
    pub fn enter_by(&self, addresses: Vec<String>) {
        *self.shared.doors.write().expect("no holder of this lock panics") = addresses;
    }

    /// Nobody writes; returns once no request is under way.
    pub fn hold(&self) {
        *self.shared.open.write().expect("no holder of this lock panics") = false;
    }

    pub fn go_on(&self) {
        *self.shared.open.write().expect("no holder of this lock panics") = true;
    }

    pub fn since(&self, moment: Instant) -> Tally {
        let record = self.shared.record();
        let failures: Vec<&Failure> = record.failures.iter().filter(|failure| failure.at >= moment).collect();
        let last = failures.iter().max_by_key(|failure| failure.at);
        Tally {
            stored: record.rows.iter().filter(|row| row.at >= moment).count(),
            failed: failures.len(),
            errors_until: last.map(|last| last.at.duration_since(moment)).unwrap_or_default(),
            last: last.map(|last| last.why.clone()),
        }
    }

    /// Waits until every request was answered well for a whole span.
    pub fn is_well(&self, span: Duration, bound: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        eventually("all requests are answered", bound + span, || {
            ensure!(begin.elapsed() >= span, "not for long enough");
            let from = Instant::now().checked_sub(span).context("the clock began just now")?;
            let tally = self.since(from);
            let last = tally.last.unwrap_or_default();
            ensure!(tally.failed == 0 && tally.stored > 0, "{} failed, {} stored; {last}", tally.failed, tally.stored);
            Ok(())
        })
    }

    /// What is acknowledged up to now is in the application's own backup; call it while nobody writes.
    pub fn declare_restore_point(&self) {
        let mut record = self.shared.record();
        record.declared = Some(record.rows.len());
    }

    /// That backup is restored: what came after it is lost, as was declared. How many rows that are.
    pub fn restored(&self) -> anyhow::Result<usize> {
        let mut record = self.shared.record();
        let declared = record.declared.take().context("no restore point was declared")?;
        Ok(record.rows.split_off(declared).len())
    }

    /// Every acknowledged row is there, with what was stored. How many they are.
    pub fn verify(&self) -> anyhow::Result<usize> {
        let rows = self.shared.record().rows.clone();
        let share = rows.len().div_ceil(READERS).max(1);
        let outcomes: Vec<anyhow::Result<()>> = thread::scope(|scope| {
            let readers: Vec<_> = rows.chunks(share).map(|rows| scope.spawn(|| self.shared.read(rows))).collect();
            readers.into_iter().map(|reader| reader.join().expect("readers do not panic")).collect()
        });
        outcomes.into_iter().collect::<anyhow::Result<Vec<()>>>()?;
        Ok(rows.len())
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().expect("no holder of this lock panics")
    }

    /// The address that is next.
    fn door(&self, turn: usize) -> Option<String> {
        let doors = self.doors.read().expect("no holder of this lock panics");
        let at = turn.checked_rem(doors.len())?;
        doors.get(at).cloned()
    }

    fn write(&self, number: u32) {
        let mut due = Instant::now() + PERIOD / WRITERS * number;
        for turn in 0_usize.. {
            pause(due.saturating_duration_since(Instant::now()));
            // Who waited for an answer longer than a turn leaves out turns instead of catching up.
            due = (due + PERIOD).max(Instant::now());
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let open = self.open.read().expect("no holder of this lock panics");
            let door = if *open { self.door(turn + number as usize) } else { None };
            let Some(door) = door else { continue };
            let text = format!("row {turn} of writer {number}");
            let began = Instant::now();
            match saas::post(&door, &text) {
                Ok(id) => self.acknowledged(Row { id, text, at: Instant::now() }),
                Err(error) => {
                    let why = format!("{door} after {:.1} s: {error:#}", began.elapsed().as_secs_f64());
                    self.record().failures.push(Failure { at: Instant::now(), why });
                }
            }
        }
    }

    fn acknowledged(&self, row: Row) {
        let line = json!({"id": row.id, "text": row.text});
        let written = writeln!(self.log.lock().expect("no holder of this lock panics"), "{line}");
        written.expect("the judge can write its log");
        self.record().rows.push(row);
    }

    fn read(&self, rows: &[Row]) -> anyhow::Result<()> {
        let mut connection = None;
        for (turn, row) in rows.iter().enumerate() {
            eventually(&format!("row {} is read", row.id), READ_BOUND, || {
                let answer = self.get(&mut connection, turn, row.id);
                if answer.is_err() {
                    connection = None;
                }
                let (code, body) = answer?;
                ensure!(code == 200 || code == 404, "answered {code}: {body}");
                let said: Value = serde_json::from_str(&body)?;
                ensure!(said["text"] == row.text.as_str(), "an acknowledged row is lost: {} became {said}", row.text);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn get(&self, connection: &mut Option<Http>, turn: usize, id: u64) -> anyhow::Result<(u16, String)> {
        if connection.is_none() {
            let door = self.door(turn).context("no host to go to")?;
            *connection = Some(Http::connect(&door, NODE_PORT, HTTP_TIMEOUT)?);
        }
        connection.as_mut().context("just connected")?.call("GET", &format!("/items/{id}"), "")
    }
}

/// A folder for what the lane keeps, emptied.
pub fn folder() -> anyhow::Result<std::path::PathBuf> {
    let folder = e2e::target().join("story");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}
