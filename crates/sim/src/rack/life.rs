//! The life of a machine: it gets power, starts what it shall run, is killed, drains for another program, and goes on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::{Gvr, Key};
use base::{Clock, Rng};
use evenkeel::coordination::Fell;
use jiff::Timestamp;
use keeper::{Release, Runs};
use tokio::sync::{Mutex, mpsc, watch};
use view::{Client, Drain};

use super::machine::{Event, Machine, Process};
use crate::kubelet::Kubelet;
use crate::server::{Shared, SimServer};

/// A program that was started so often and never got well does not.
const STARTS_MAX: u32 = 3;
const LOOK: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_secs(1);

/// What a machine needs to live.
pub struct Life {
    pub machine: Arc<Machine>,
    pub number: u8,
    pub shared: Arc<Shared>,
    /// The server in it, where it is one.
    pub server: Option<Arc<Mutex<SimServer>>>,
    /// Its node agent's way to the servers.
    pub client: Client,
    pub rng: Arc<dyn Rng>,
    /// While false the machine has no power.
    pub power: watch::Receiver<bool>,
    /// Where this program does not get well.
    pub bad: watch::Receiver<Option<Release>>,
}

// === impl Life ===

impl Life {
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while self.power.wait_for(|on| *on).await.is_ok() {
            self.machine.process.send_replace(Process::Down);
            // What was told to the process before has ended with it.
            while events.try_recv().is_ok() {}
            tokio::time::sleep(self.machine.seconds(1, 4)).await;
            let running = self.choose();
            let event = self.live(&running, &mut events).await;
            let on = event != Event::Off && *self.power.borrow();
            self.machine.judge.away(&self.machine.name, true);
            self.machine.process.send_replace(if on { Process::Down } else { Process::Off });
            if let Some(server) = &self.server {
                server.lock().await.kill();
            }
        }
    }

    /// What the machine starts: the program on trial while it may be tried, else the installed one.
    fn choose(&self) -> Runs {
        let now = self.machine.clock.now();
        let mut disk = self.machine.disk();
        let installed = disk.installed.clone();
        let Some(trial) = &mut disk.trial else { return installed };
        if now < trial.until && trial.starts <= STARTS_MAX {
            trial.starts += 1;
            return trial.to.clone();
        }
        drop(disk);
        self.give_up("its time was over before it was well");
        installed
    }

    fn give_up(&self, why: &str) {
        let mut disk = self.machine.disk();
        if let Some(trial) = disk.trial.take() {
            let (attempt, runs, at) = (trial.attempt, trial.to, self.machine.clock.now());
            disk.fell = Some(Fell { attempt, runs, why: why.to_owned(), at });
            self.machine.judge.count(|counts| counts.fell += 1);
            self.machine.judge.settled(&self.machine.name);
        }
    }

    /// One life of the process; answers what ended it.
    async fn live(&mut self, running: &Runs, events: &mut mpsc::Receiver<Event>) -> Event {
        let began = self.machine.clock.now();
        if let Some(server) = &self.server {
            while let Err(error) = server.lock().await.start(&self.shared).await {
                tracing::debug!(error = %format!("{error:#}"), machine = self.machine.name, "did not start");
                tokio::time::sleep(AGAIN).await;
                if !*self.power.borrow() {
                    return Event::Off;
                }
            }
        }
        let drain = Drain::new();
        let kubelet = Kubelet {
            name: self.machine.name.clone(),
            number: self.number,
            client: self.client.clone(),
            clock: self.machine.clock.clone(),
            rng: self.rng.clone(),
        };
        tokio::spawn(kubelet.run(drain.clone()));
        self.machine.process.send_replace(Process::Up { running: running.clone() });
        self.machine.judge.away(&self.machine.name, false);
        tracing::debug!(machine = self.machine.name, version = %running.release.version, "up");
        let event = tokio::select! { biased;
            event = events.recv() => event.unwrap_or(Event::Off),
            () = self.try_it(running, began) => Event::Kill,
        };
        tracing::debug!(machine = self.machine.name, ?event, "down");
        drain.cancel();
        event
    }

    /// Confirms what is on trial once it is well; returns where it is given up. With nothing on trial there is no end.
    async fn try_it(&self, running: &Runs, began: Timestamp) {
        let open = || self.machine.disk().trial.clone().filter(|trial| trial.to == *running);
        while let Some(trial) = open() {
            if trial.until <= self.machine.clock.now() {
                self.give_up("it was not well when its time was over");
                return;
            }
            if self.well(running, began).await.is_ok() {
                let mut disk = self.machine.disk();
                disk.installed = trial.to;
                disk.trial = None;
                self.machine.judge.settled(&self.machine.name);
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        std::future::pending().await
    }

    async fn well(&self, running: &Runs, began: Timestamp) -> Result<()> {
        ensure!(self.bad.borrow().as_ref() != Some(&running.release), "it does not get well here");
        let lease = Gvr::new("coordination.k8s.io", "v1", "leases");
        let lease = self.client.get(&lease, &Key::new("kube-node-lease", &self.machine.name)).await?;
        let renewed: Timestamp = lease["spec"]["renewTime"].as_str().context("no renewal")?.parse()?;
        ensure!(began <= renewed, "its node has not spoken since it started");
        Ok(())
    }
}
