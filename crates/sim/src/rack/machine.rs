//! A machine of the rack as the keeper meets it: what lies on its disk, which process runs, and the verbs that process
//! answers. It keeps the rules of the node's own side: a fence that only rises, programs that are tried before they are
//! installed, journals that only grow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base::{Clock, Rng};
use bytes::Bytes;
use evenkeel::coordination::{About, Fell, Lines, Received, Report, SwapRequest, Trial};
use jiff::SignedDuration;
use keeper::{Digest, Fence, Order, Release, Role, Runs, Settings};
use tokio::sync::{mpsc, watch};

use super::judge::Judge;
use crate::world::{SimClock, below};

/// What happened to a machine or its process and waits to be seen to.
const EVENTS_MAX: usize = 64;
/// Who asked hears the answer before the port closes.
const ANSWER_TIME: Duration = Duration::from_millis(200);
const FREE_BYTES: u64 = 64 << 30;

/// What can happen to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is to make room for another program.
    Drain,
    /// As `kill -9`; a service manager starts it again.
    Kill,
    /// The machine has no power.
    Off,
}

/// What runs on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    Off,
    /// The machine is on; its agent does not answer.
    Down,
    Up {
        running: Runs,
    },
}

/// What outlives the process.
pub struct Disk {
    pub installed: Runs,
    pub trial: Option<Trial>,
    pub fell: Option<Fell>,
    pub journals: BTreeMap<String, String>,
    programs: BTreeMap<Digest, (Release, Bytes)>,
    fence: Fence,
}

pub struct Machine {
    pub name: String,
    pub role: Role,
    pub clock: Arc<SimClock>,
    pub judge: Arc<Judge>,
    pub process: watch::Sender<Process>,
    disk: Mutex<Disk>,
    events: mpsc::Sender<Event>,
    rng: Arc<dyn Rng>,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Silent,
    Stale(String),
    Other(String),
}

// === impl Disk ===

impl Disk {
    /// Nothing but a program.
    fn blank(program: &Bytes) -> Disk {
        let release = release(program);
        Disk {
            programs: BTreeMap::from([(release.program.clone(), (release.clone(), program.clone()))]),
            installed: Runs { release, settings: Settings::default() },
            trial: None,
            fell: None,
            journals: BTreeMap::new(),
            fence: Fence::default(),
        }
    }
}

// === impl Machine ===

impl Machine {
    pub fn new(
        name: &str,
        role: Role,
        program: &Bytes,
        judge: Arc<Judge>,
        rng: Arc<dyn Rng>,
    ) -> (Arc<Machine>, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let disk = Disk::blank(program);
        let (disk, clock, process) = (Mutex::new(disk), SimClock::new(), watch::Sender::new(Process::Off));
        (Arc::new(Machine { name: name.to_owned(), role, clock, judge, process, disk, events, rng }), receiver)
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no holder of this lock panics")
    }

    /// Another machine has its name from now on.
    pub fn replace(&self, program: &Bytes) {
        *self.disk() = Disk::blank(program);
        self.judge.replaced(&self.name);
    }

    pub fn tell(&self, event: Event) {
        // More than it can see to are as good as the last ones.
        let _ = self.events.try_send(event);
    }

    pub fn is_on(&self) -> bool {
        *self.process.borrow() != Process::Off
    }

    pub fn running(&self) -> Option<Runs> {
        match &*self.process.borrow() {
            Process::Up { running } => Some(running.clone()),
            Process::Off | Process::Down => None,
        }
    }

    fn admit(&self, order: Order) -> Result<Runs, Refused> {
        let running = self.running().ok_or(Refused::Silent)?;
        let mut disk = self.disk();
        match disk.fence.accept(order) {
            Ok(raised) => {
                disk.fence = raised;
                self.judge.obeyed(&self.name, order.token);
            }
            Err(stale) => {
                self.judge.count(|counts| counts.stale_orders += 1);
                return Err(Refused::Stale(stale.to_string()));
            }
        }
        Ok(running)
    }

    pub fn report(&self, order: Option<Order>) -> Result<Report, Refused> {
        let running = match order {
            Some(order) => {
                let running = self.admit(order)?;
                self.judge.looked(&self.name, order.token);
                running
            }
            None => self.running().ok_or(Refused::Silent)?,
        };
        let disk = self.disk();
        Ok(Report {
            role: self.role,
            running,
            since: self.clock.now(),
            trial: disk.trial.clone(),
            fell: disk.fell.clone(),
            staged: disk.programs.values().map(|(release, _)| release.clone()).collect(),
            free_bytes: FREE_BYTES,
            fixed: None,
        })
    }

    pub fn swap(&self, order: Order, request: &SwapRequest) -> Result<(), Refused> {
        let running = self.admit(order)?;
        let mut disk = self.disk();
        if running == request.to {
            return Ok(());
        }
        if let Some(open) = &disk.trial {
            let same = open.attempt == request.attempt && open.to == request.to;
            return if same { Ok(()) } else { Err(Refused::Other("something else is on trial here".to_owned())) };
        }
        if disk.fell.as_ref().is_some_and(|fell| request.attempt <= fell.attempt) {
            return Err(Refused::Other(format!("attempt {} is over here", request.attempt)));
        }
        if !disk.programs.contains_key(&request.to.release.program) {
            return Err(Refused::Other("this program does not lie here".to_owned()));
        }
        self.judge.swap(&self.name, order, request);
        let path = |runs: &Runs| format!("/{}", runs.release.program).into();
        disk.trial = Some(Trial {
            attempt: request.attempt,
            to: request.to.clone(),
            from: running.clone(),
            program: path(&request.to),
            previous: path(&running),
            installed: path(&disk.installed),
            until: self.clock.now() + SignedDuration::from_secs(request.seconds.into()),
            starts: 1,
        });
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_TIME).await;
            let _ = events.try_send(Event::Drain);
        });
        Ok(())
    }

    pub fn journal(&self, order: Order, lines: &Lines) -> Result<usize, Refused> {
        self.admit(order)?;
        let mut disk = self.disk();
        let here = disk.journals.entry(lines.run.clone()).or_default();
        if here.matches('\n').count() == lines.after {
            here.push_str(&lines.text);
        }
        Ok(here.matches('\n').count())
    }

    pub fn put_piece(&self, order: Order, program: &Digest, bytes: &Bytes) -> Result<Received, Refused> {
        self.admit(order)?;
        self.judge.stage(&self.name, order, program);
        self.receive(bytes)
    }

    /// Programs are small here: a piece is a whole one.
    pub fn receive(&self, bytes: &Bytes) -> Result<Received, Refused> {
        self.running().ok_or(Refused::Silent)?;
        let release = release(bytes);
        let about = Some(about(&release));
        self.disk().programs.insert(release.program.clone(), (release, bytes.clone()));
        Ok(Received { bytes: bytes.len() as u64, about })
    }

    pub fn program(&self, program: &Digest) -> Option<(Release, Bytes)> {
        self.disk().programs.get(program).cloned()
    }

    /// Nobody knows how long a process takes to come up.
    pub fn seconds(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least * 1000 + below(&*self.rng, (most - least) * 1000))
    }
}

/// A program of the simulation is the text of its version, and something that makes it differ.
pub fn release(program: &Bytes) -> Release {
    let text = String::from_utf8_lossy(program);
    let version = text.split(' ').next().unwrap_or_default();
    Release { version: version.into(), program: Digest::of_bytes(program) }
}

pub fn about(release: &Release) -> About {
    About {
        version: release.version.to_string(),
        kubernetes: evenkeel::KUBERNETES_VERSION.to_owned(),
        level: 1,
        level_min: 1,
    }
}
