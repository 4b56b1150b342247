//! Children that are replaced: who serves meanwhile, and what is left of a replacement that was cut short.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use container::child::{self, Kind, Known, Replacement, Spec, Status, Supervised};
use tokio::sync::mpsc;

const WAIT: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(100);

/// A child that does nothing, or ends at once.
struct Sleeper {
    folder: PathBuf,
    edition: &'static str,
    seconds: &'static str,
    /// Told of every child that is waited for; where nobody listens it is well at once, else never.
    waits: Option<mpsc::Sender<u32>>,
    /// It is well once somebody was told.
    finishes: bool,
    /// The process that neither gets well nor answers.
    frozen: Option<Arc<AtomicU32>>,
}

impl Sleeper {
    fn new(folder: &Path, edition: &'static str) -> Sleeper {
        Sleeper { folder: folder.to_path_buf(), edition, seconds: "600", waits: None, finishes: false, frozen: None }
    }
}

impl Kind for Sleeper {
    fn name(&self) -> &'static str {
        "sleeper"
    }

    fn record(&self) -> PathBuf {
        self.folder.join("sleeper.json")
    }

    fn replacement(&self) -> Replacement {
        Replacement::Beside
    }

    async fn wanted(&self) -> Result<Spec, Box<dyn Error + Send + Sync>> {
        Ok(Spec {
            program: "/bin/sleep".into(),
            arguments: vec![self.seconds.into()],
            folders: Vec::new(),
            files: vec![(self.folder.join(self.edition), "settings".into())],
            edition: self.edition.into(),
            log: self.folder.join("sleeper.log"),
            cgroup: format!("ek-test-child-{}", std::process::id()),
        })
    }

    fn found_timeout(&self) -> Duration {
        SOON
    }

    fn ask_every(&self) -> Duration {
        SOON
    }

    async fn answers(&self, child: &Known) -> bool {
        self.frozen.as_ref().is_none_or(|frozen| frozen.load(Ordering::Relaxed) != child.process.identity.pid)
    }

    async fn ready(&self, child: &Known, _: Option<&Known>) {
        if !self.answers(child).await {
            std::future::pending::<()>().await;
        }
        match &self.waits {
            Some(told) => {
                told.send(child.process.identity.pid).await.unwrap();
                if !self.finishes {
                    std::future::pending::<()>().await;
                }
            }
            None if self.seconds == "0" => std::future::pending().await,
            None => {}
        }
    }
}

async fn start(sleeper: Sleeper) -> (u32, bool) {
    let mut child = Supervised::new(sleeper);
    child.start().await.unwrap();
    match &*child.status().borrow() {
        Status::Running { pid, adopted, .. } => (*pid, *adopted),
        down => panic!("{down:?}"),
    }
}

#[tokio::test]
async fn an_agent_that_ends_finishes_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let (told, mut waits) = mpsc::channel(1);
    // Nobody can be told until it is received.
    told.send(0).await.unwrap();
    let sleeper = Sleeper { waits: Some(told), finishes: true, ..Sleeper::new(folder.path(), "one") };
    let child = Supervised::new(sleeper);
    let mut status = child.status();
    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let run = tokio::spawn(child.run(async move { drop(drained.await) }));
    // It runs and is not well yet when the drain comes.
    let started = async {
        while child::running(&folder.path().join("sleeper.json")).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, started).await.unwrap();
    drain.send(()).unwrap();
    assert_eq!(waits.recv().await, Some(0));
    let pid = tokio::time::timeout(WAIT, waits.recv()).await.unwrap().unwrap();
    tokio::time::timeout(WAIT, run).await.unwrap().unwrap();
    assert_eq!(*status.borrow_and_update(), Status::Running { pid, adopted: false, restarts: 0 });
    assert!(child::stop("sleeper", &folder.path().join("sleeper.json"), async { None }).await.unwrap());
}

/// Also where it was not reaped yet.
fn has_ended(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")) || !runs(pid)
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn the_old_one_stays_until_the_new_one_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let (first, adopted) = start(Sleeper::new(folder.path(), "one")).await;
    assert!(!adopted);
    assert_eq!(start(Sleeper::new(folder.path(), "one")).await, (first, true));

    // One that does not get well changes nothing.
    let broken = Sleeper { seconds: "0", ..Sleeper::new(folder.path(), "broken") };
    assert_eq!(start(broken).await, (first, true));
    assert_eq!(child::running(&folder.path().join("sleeper.json")), Some(first));

    // One that does takes over.
    let (second, adopted) = start(Sleeper::new(folder.path(), "two")).await;
    assert!(!adopted && second != first && has_ended(first));

    // An agent that ends in the middle of it leaves two; the next one ends the one that was not well yet.
    let (told, mut waits) = mpsc::channel(1);
    let endless = Sleeper { waits: Some(told), ..Sleeper::new(folder.path(), "three") };
    let cut_short = tokio::spawn(async move { Supervised::new(endless).start().await });
    let third = tokio::time::timeout(WAIT, waits.recv()).await.unwrap().unwrap();
    cut_short.abort();
    assert!(cut_short.await.unwrap_err().is_cancelled());
    assert!(runs(second) && runs(third));
    assert_eq!(start(Sleeper::new(folder.path(), "two")).await, (second, true));
    assert!(has_ended(third) && runs(second));

    let record = folder.path().join("sleeper.json");
    assert!(child::stop("sleeper", &record, async { None }).await.unwrap() && has_ended(second));
    assert!(!child::stop("sleeper", &record, async { None }).await.unwrap());
}

#[tokio::test]
async fn one_that_was_never_written_down_does_not_stay_beside_another() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("sleeper.json");
    let (first, _) = start(Sleeper::new(folder.path(), "one")).await;
    // As if the agent had ended between the start and the note.
    std::fs::remove_file(&record).unwrap();
    let (second, adopted) = start(Sleeper::new(folder.path(), "one")).await;
    assert!(!adopted && second != first && has_ended(first));

    std::fs::remove_file(&record).unwrap();
    assert!(!child::stop("sleeper", &record, async { None }).await.unwrap());
    assert!(has_ended(second), "who stops it finds it as well");
}

#[tokio::test]
async fn one_that_stays_silent_is_replaced_by_the_agent_that_runs_and_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let frozen = Arc::new(AtomicU32::new(0));
    let sleeper = |edition| Sleeper { frozen: Some(frozen.clone()), ..Sleeper::new(folder.path(), edition) };
    let child = Supervised::new(sleeper("one"));
    let mut status = child.status();
    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let run = tokio::spawn(child.run(async move { drop(drained.await) }));
    let mut running = async |other: u32| {
        let is_another = |status: &Status| matches!(status, Status::Running { pid, .. } if *pid != other);
        match *tokio::time::timeout(WAIT, status.wait_for(is_another)).await.unwrap().unwrap() {
            Status::Running { pid, .. } => pid,
            Status::Down { .. } => unreachable!("it runs"),
        }
    };
    let first = running(0).await;
    frozen.store(first, Ordering::Relaxed);
    let second = running(first).await;
    assert!(has_ended(first) && runs(second));
    drain.send(()).unwrap();
    tokio::time::timeout(WAIT, run).await.unwrap().unwrap();

    // An agent that starts takes no process for one that works, as it was started and as another.
    frozen.store(second, Ordering::Relaxed);
    let (third, adopted) = start(sleeper("one")).await;
    assert!(!adopted && has_ended(second) && runs(third));
    frozen.store(third, Ordering::Relaxed);
    let (fourth, adopted) = start(sleeper("two")).await;
    assert!(!adopted && has_ended(third));
    assert_eq!(start(sleeper("two")).await, (fourth, true));
    assert!(child::stop("sleeper", &folder.path().join("sleeper.json"), async { None }).await.unwrap());
}
