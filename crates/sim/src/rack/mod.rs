//! A rack that is changed while everything goes wrong: the keeper's coordinator on three servers and an agent, people who
//! upgrade and go back, and machines, links and messages that fail from a seed.
//!
//! The [`judge`] holds every order against what is durable at that moment. In the end everything is whole again, somebody
//! sees to what needs a person, and within bounded time every node runs what the newest generation says.

mod build;
mod judge;
mod life;
mod machine;
mod person;
mod trouble;
mod wires;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base::Rng;
use keeper::{Attention, Release, Standing};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use self::judge::{CONFIG_MAPS, Counts, Judge};
use self::machine::Machine;
use self::person::{Person, Wish};
use self::wires::Net;
pub use self::wires::Wires;
use crate::record::Record;
use crate::server::SimServer;
use crate::world::{Weather, below, seconds};

/// Changes of one seed, one after the other.
const CHANGES: u64 = 3;
/// Trouble goes on this long with each change, or until it is over.
const TROUBLE: Duration = Duration::from_secs(900);
/// Everything is whole again: what was begun is over after this, with a person who sees to it.
const PATIENCE: Duration = Duration::from_secs(3000);
const LOOK: Duration = Duration::from_secs(5);
/// With nothing in the way, one upgrade of these ends well.
const ATTEMPTS_MAX: u32 = 10;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub counts: Counts,
    /// Changes that were armed, those of them that ended where they began, and coordinators that took one over.
    pub changes: u32,
    pub returned: u32,
    pub takeovers: u32,
    /// Entries of all journals.
    pub entries: u32,
    /// What people asked of runs.
    pub asked: u32,
    pub virtual_seconds: u64,
}

/// A machine, and how it is brought into trouble.
struct Place {
    machine: Arc<Machine>,
    server: Option<Arc<Mutex<SimServer>>>,
    power: watch::Sender<bool>,
    /// The program that does not get well on it.
    bad: watch::Sender<Option<Release>>,
}

struct Rack {
    record: Arc<Record>,
    judge: Arc<Judge>,
    net: Arc<Net>,
    places: Vec<Place>,
    people: Vec<Person>,
    weather: Weather,
    rng: Arc<dyn Rng>,
    report: Report,
}

/// Runs one seed.
///
/// # Errors
/// When an order was given that should not have been, or the rack does not arrive.
pub async fn run(seed: u64) -> Result<Report> {
    let began = Instant::now();
    let mut rack = Rack::new(seed)?;
    rack.heal().await;
    while rack.people[0].deploy().await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
    for number in 0..CHANGES {
        rack.change(number).await.with_context(|| format!("change {number}"))?;
    }
    rack.report.counts = rack.judge.counts();
    rack.report.virtual_seconds = began.elapsed().as_secs();
    Ok(rack.report)
}

// === impl Rack ===

impl Rack {
    /// Somebody changes what the rack is; it arrives, or is what it was.
    async fn change(&mut self, number: u64) -> Result<()> {
        self.heal().await;
        let wish = if number > 0 && below(&*self.rng, 3) == 0 {
            Wish::Back
        } else {
            Wish::Upgrade(format!("0.1.{} of change {number}", number + 1).into())
        };
        if let (Wish::Upgrade(program), 0) = (&wish, below(&*self.rng, 4)) {
            let at = self.any();
            self.places[at].bad.send_replace(Some(machine::release(program)));
        }
        if !self.arm(&wish).await? {
            return Ok(());
        }
        self.report.changes += 1;
        let generation = self.judge.newest().context("a run was armed")?;
        self.net.calm(false);
        let began = Instant::now();
        while began.elapsed() < TROUBLE && !self.standing(generation).is_some_and(|standing| standing.is_over()) {
            let pause = seconds(&*self.rng, 0, self.weather.trouble_seconds_max);
            tokio::time::sleep(pause).await;
            self.trouble(generation).await;
            self.judge.verdict()?;
        }
        self.heal().await;
        self.bring_to_its_end(generation).await?;
        self.sum_up(generation)?;
        self.bring_along().await?;
        self.judge.verdict()?;
        self.arrive().await
    }

    /// Who was replaced after its part was done does not run what it shall: somebody upgrades the rest.
    async fn bring_along(&mut self) -> Result<()> {
        let replaced = self.judge.counts().replaced;
        if replaced == self.report.counts.replaced {
            return Ok(());
        }
        self.report.counts.replaced = replaced;
        // One that ends where it began leaves them as they were.
        for attempt in 0..ATTEMPTS_MAX {
            let program = format!("0.1.9 after {replaced} were replaced, {attempt}");
            self.arm(&Wish::Upgrade(program.into())).await?;
            let generation = self.judge.newest().context("a run was armed")?;
            self.bring_to_its_end(generation).await?;
            if self.standing(generation) == Some(Standing::Finished) {
                return Ok(());
            }
        }
        bail!("nodes were replaced, and {ATTEMPTS_MAX} upgrades did not bring them along")
    }

    fn standing(&self, generation: u64) -> Option<Standing> {
        let kept = self.judge.run(generation)?;
        let mut journal = keeper::Journal::new(&format!("run-{generation}"), generation);
        kept.journal.into_iter().try_for_each(|entry| journal.accept(entry)).ok()?;
        Some(Standing::of(&kept.plan, &journal))
    }

    async fn arm(&mut self, wish: &Wish) -> Result<bool> {
        let began = Instant::now();
        let before = self.judge.newest();
        let bake = below(&*self.rng, 40);
        loop {
            let at = usize::try_from(below(&*self.rng, 2)).expect("a small number");
            let outcome = self.people[at].arm(wish, bake).await;
            if before < self.judge.newest() {
                return Ok(true);
            }
            match outcome {
                Ok(_) => return Ok(false),
                // There may be nothing to go back to.
                Err(error) if matches!(wish, Wish::Back) && format!("{error:#}").contains("409") => return Ok(false),
                Err(error) if PATIENCE < began.elapsed() => return Err(error.context("it cannot be armed")),
                Err(error) => tracing::debug!(error = %format!("{error:#}"), "not armed"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A person sees to what needs one, and perhaps it is another one than before.
    async fn bring_to_its_end(&mut self, generation: u64) -> Result<()> {
        let began = Instant::now();
        loop {
            let standing = self.standing(generation).ok_or_else(|| anyhow!("the run is gone"))?;
            let wish = match &standing {
                Standing::Finished | Standing::Returned => return Ok(()),
                Standing::Paused => Some(Attention::Resume),
                Standing::Stuck { .. } if below(&*self.rng, 3) == 0 => {
                    Some(Attention::Back { why: "it is not worth it".to_owned() })
                }
                Standing::Stuck { .. } => {
                    // What was wrong with the program there is seen to.
                    self.places.iter().for_each(|place| drop(place.bad.send_replace(None)));
                    Some(Attention::Resume)
                }
                Standing::Running { .. } | Standing::Returning { .. } => None,
            };
            ensure!(began.elapsed() < PATIENCE, "after {} s it is {standing:?}", PATIENCE.as_secs());
            if let Some(wish) = wish {
                let at = usize::try_from(below(&*self.rng, 2)).expect("a small number");
                if self.people[at].ask(&wish).await.is_ok() {
                    self.report.asked += 1;
                }
            }
            tokio::time::sleep(LOOK * 2).await;
        }
    }

    /// Every node runs what the newest generation says, and nothing of the work is left.
    async fn arrive(&self) -> Result<()> {
        let began = Instant::now();
        while let Err(error) = self.arrived().await {
            if PATIENCE < began.elapsed() {
                return Err(error.context("it does not arrive"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn arrived(&self) -> Result<()> {
        let status = self.people[0].status().await?;
        ensure!(status["asked"].as_array().is_some_and(Vec::is_empty), "wishes are left: {}", status["asked"]);
        ensure!(self.record.keys(CONFIG_MAPS, "kube-system/evenkeel-layer").is_empty(), "the layer is still claimed");
        for Place { machine, .. } in &self.places {
            let target = &status["generation"]["nodes"][&machine.name]["runs"];
            let running = machine.running().with_context(|| format!("{} is down", machine.name))?;
            ensure!(serde_json::to_value(&running)? == *target, "{} runs {running:?}, not {target}", machine.name);
            let disk = machine.disk();
            ensure!(
                disk.trial.is_none() && disk.installed == running,
                "{} has {} installed",
                machine.name,
                disk.installed.release.version
            );
        }
        Ok(())
    }

    fn sum_up(&mut self, generation: u64) -> Result<()> {
        let kept = self.judge.run(generation).context("the run is gone")?;
        let run = format!("run-{generation}");
        kept.replays(&run).map_err(|why| anyhow!(why))?;
        let text = kept.text();
        for place in &self.places {
            let disk = place.machine.disk();
            let copy = disk.journals.get(&run).map(String::as_str).unwrap_or_default();
            ensure!(text.starts_with(copy), "{} has another journal of {run}", place.machine.name);
        }
        self.report.takeovers += kept.takeovers();
        self.report.entries += u32::try_from(kept.journal.len()).unwrap_or(u32::MAX);
        self.report.returned += u32::from(self.standing(generation) == Some(Standing::Returned));
        Ok(())
    }
}
