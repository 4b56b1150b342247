//! The one task that makes bundles, stores them, and has them proven: by schedule where this server leads, and when asked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::{Chain, Clock};
use jiff::{SignedDuration, Timestamp};
use keeper::backup::{BundleName, Evidence, Facts, Retention, Schedule, Size, findings};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};
use view::Drain;

use super::apps::{AppStatus, Apps};
use super::make::{Made, Openers, make};
use super::prove::{Proof, empty};
use super::record::{LastBundle, LastProof, Proven, Records, Status, TargetStatus};
use super::targets::{self, Folder, Target};
use crate::layout::Layout;
use crate::wire::SystemClock;

/// The schedule is looked at this often: the clock may have been set, another server may have been the leader.
const LOOK: Duration = Duration::from_secs(60);
/// A bundle or a proof that failed is tried again after this, and not at the next look.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// A bundle that failed its proof is replaced at once, and the new one proven after this.
const PROOF_AGAIN: SignedDuration = SignedDuration::from_mins(30);
/// Orders that wait; more are refused.
const ORDERS_MAX: usize = 4;

/// What somebody asks for.
pub enum Order {
    Make(oneshot::Sender<Result<Status, String>>),
    /// Of a bundle by name, or of the newest.
    Prove(Option<BundleName>, oneshot::Sender<Result<Evidence, String>>),
}

/// What the operator chose.
pub struct Config {
    pub layout: Layout,
    pub schedule: Schedule,
    pub proofs: Schedule,
    pub retention: Retention,
    pub recipients: Vec<String>,
    pub targets: Vec<Arc<dyn Target>>,
    /// What applications have to keep.
    pub apps: Apps,
    /// This server's name.
    pub by: String,
}

/// The task.
pub struct Backups {
    config: Config,
    store: store::Store,
    records: Records,
    leading: watch::Receiver<bool>,
    orders: mpsc::Receiver<Order>,
    started: Timestamp,
    /// When the last try of each failed.
    failed: Option<Timestamp>,
    proof_failed: Option<Timestamp>,
}

/// The way to ask the task, and its end of it.
pub fn orders() -> (mpsc::Sender<Order>, mpsc::Receiver<Order>) {
    mpsc::channel(ORDERS_MAX)
}

/// What is due.
enum Due {
    Bundle,
    Proof,
    Later(Duration),
}

// === impl Backups ===

impl Backups {
    pub fn new(
        config: Config,
        store: store::Store,
        records: Records,
        leading: watch::Receiver<bool>,
        orders: mpsc::Receiver<Order>,
    ) -> Backups {
        let started = SystemClock.now();
        Backups { config, store, records, leading, orders, started, failed: None, proof_failed: None }
    }

    pub async fn run(mut self, drain: Drain) {
        if let Err(failure) = empty(&self.config.layout.scratch()) {
            warn!(error = %Chain(failure.as_ref()), "the folder for proofs was not emptied");
        }
        while drain.run_until_cancelled(self.turn()).await.is_some() {}
    }

    /// Waits for what comes first and does it.
    async fn turn(&mut self) {
        let pause = match self.due().await {
            Due::Bundle => return self.scheduled_bundle().await,
            Due::Proof => return self.scheduled_proof().await,
            Due::Later(pause) => pause,
        };
        tokio::select! {
            Some(order) = self.orders.recv() => match order {
                Order::Make(answer) => drop(answer.send(self.bundle().await.map_err(|error| format!("{error:#}")))),
                Order::Prove(name, answer) => {
                    drop(answer.send(self.proof(name).await.map_err(|error| format!("{error:#}"))));
                }
            },
            _ = self.leading.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    async fn due(&self) -> Due {
        if !*self.leading.borrow() {
            return Due::Later(LOOK);
        }
        let status = match self.records.status().await {
            Ok(status) => status,
            Err(failure) => {
                warn!(error = %Chain(failure.as_ref()), "whether a backup is due is not known");
                return Due::Later(LOOK);
            }
        };
        let now = SystemClock.now();
        let after = |due: Option<Timestamp>, failed: Option<Timestamp>| {
            due.map(|due| failed.map_or(due, |failed| due.max(failed + AGAIN)))
        };
        let bundle =
            after(self.config.schedule.due(status.last_bundle.as_ref().map(|last| last.at), self.started), self.failed);
        // The first proof follows the first bundle at once.
        let first = status.last_bundle.is_some().then_some(self.started);
        let proof = match (&status.last_proof, &self.config.proofs) {
            (None, Schedule::Every(_) | Schedule::Cron { .. }) => first,
            (Some(last), Schedule::Every(_) | Schedule::Cron { .. }) if !last.passed => Some(last.at + PROOF_AGAIN),
            (last, proofs) => proofs.due(last.as_ref().map(|last| last.at), self.started),
        };
        let proof = after(proof.filter(|_| status.last_bundle.is_some()), self.proof_failed);
        let left =
            |due: Option<Timestamp>| due.map(|due| Duration::try_from(due.duration_since(now)).unwrap_or_default());
        match (left(bundle), left(proof)) {
            (Some(Duration::ZERO), _) => Due::Bundle,
            (_, Some(Duration::ZERO)) => Due::Proof,
            (one, other) => Due::Later(one.into_iter().chain(other).min().unwrap_or(LOOK).min(LOOK)),
        }
    }

    async fn scheduled_bundle(&mut self) {
        let made = self.bundle().await;
        self.failed = made.is_err().then(|| SystemClock.now());
        if let Err(failure) = made {
            error!(error = %Chain(failure.as_ref()), "no backup was made");
        }
    }

    async fn scheduled_proof(&mut self) {
        let proof = self.proof(None).await;
        self.proof_failed = proof.is_err().then(|| SystemClock.now());
        match proof {
            Ok(evidence) if !evidence.passed => self.scheduled_bundle().await,
            Ok(_) => {}
            Err(failure) => error!(error = %Chain(failure.as_ref()), "no backup was proven"),
        }
    }

    /// Makes a bundle, stores it wherever it can be, and notes what came of it.
    async fn bundle(&self) -> Result<Status> {
        let mut status = self.records.status().await?;
        let outcome = self.store_bundle(&mut status).await;
        status.failure = outcome.as_ref().err().map(|failure| format!("{failure:#}"));
        self.note(&mut status).await?;
        outcome.map(|()| status)
    }

    async fn store_bundle(&self, status: &mut Status) -> Result<()> {
        let made = self.make().await?;
        let name = BundleName::new(made.at, made.manifest.revision);
        status.targets = self.spread(&name, &made.bytes).await;
        status.apps = self.applications(&name, &status.targets).await;
        let reached = status.targets.iter().filter(|target| target.error.is_none()).count();
        ensure!(reached > 0, "no target took the bundle: {}", errors(&status.targets));
        let size = Size { objects: made.manifest.objects, bytes: made.bytes.len() as u64 };
        info!(%name, objects = size.objects, bytes = size.bytes, targets = reached, "a backup was made");
        status.before = status.last_bundle.take().map(|last| last.size);
        let (revision, missing) = (made.manifest.revision, made.manifest.missing);
        status.last_bundle = Some(LastBundle { name, at: made.at, revision, size, missing });
        Ok(())
    }

    async fn make(&self) -> Result<Made> {
        let (store, layout) = (self.store.clone(), self.config.layout.clone());
        let openers = self.openers()?;
        tokio::task::spawn_blocking(move || {
            let mut snapshot = Vec::new();
            store.export(&mut snapshot)?;
            make(&layout, &openers, &snapshot)
        })
        .await?
    }

    /// Every target; where none takes it, the data folder's own.
    async fn spread(&self, name: &BundleName, bytes: &[u8]) -> Vec<TargetStatus> {
        let mut reached = Vec::new();
        for target in &self.config.targets {
            reached.push(self.keep(target.as_ref(), name, bytes).await);
        }
        if reached.iter().all(|target| target.error.is_some()) {
            reached.push(self.keep(&Folder::new(self.config.layout.backups()), name, bytes).await);
        }
        reached
    }

    /// What applications keep goes where the bundle went.
    async fn applications(&self, name: &BundleName, reached: &[TargetStatus]) -> Vec<AppStatus> {
        let well = |target: &&TargetStatus| target.error.is_none();
        let names: Vec<&str> = reached.iter().filter(well).map(|target| target.name.as_str()).collect();
        let mut targets = self.all_targets();
        targets.retain(|target| names.contains(&target.name().as_str()));
        let taken = async {
            let openers = self.openers()?;
            self.config.apps.take(name, &openers, &targets).await
        };
        taken.await.unwrap_or_else(|failure| {
            let error = Some(format!("{failure:#}"));
            vec![AppStatus { name: "every application".to_owned(), bytes: 0, measured: None, error }]
        })
    }

    fn openers(&self) -> Result<Openers> {
        Openers::recipients(&self.config.recipients).context("--backup-recipient")?.with_standing(&self.config.layout)
    }

    async fn keep(&self, target: &dyn Target, name: &BundleName, bytes: &[u8]) -> TargetStatus {
        let at = SystemClock.now();
        let kept = async {
            targets::keep(target, name, bytes).await?;
            targets::prune(target, &self.config.retention, at)
                .await
                .context("the bundle is there, old ones were not removed")
        };
        let error = kept.await.err().map(|failure| format!("{failure:#}"));
        if let Some(error) = &error {
            warn!(target = target.name(), %error, "a target of backups failed");
        }
        TargetStatus { name: target.name(), kind: target.kind().to_owned(), offsite: target.is_offsite(), at, error }
    }

    /// Proves a bundle and notes what came of it.
    async fn proof(&self, name: Option<BundleName>) -> Result<Evidence> {
        let (name, bytes, target) = self.fetch(name).await?;
        let mut evidence = self.prove(&name, &bytes).await?;
        evidence.add(self.config.apps.prove(&name, target.as_ref()).await.context("prove what applications keep")?);
        let outcome = if evidence.passed { "passed" } else { "failed" };
        info!(%name, outcome, millis = evidence.millis, failed = evidence.failed().join(", "), "a backup was proven");
        for target in self.all_targets() {
            if let Err(failure) = targets::note_proof(target.as_ref(), &name, &evidence).await {
                warn!(target = target.name(), error = %Chain(failure.as_ref()), "evidence was not kept beside its bundle");
            }
        }
        self.records.add(&evidence).await?;
        let mut status = self.records.status().await?;
        status.last_proof = Some(LastProof {
            bundle: name.to_string(),
            at: evidence.at,
            passed: evidence.passed,
            failed: evidence.failed(),
        });
        if evidence.passed {
            status.proven_bundle = Some(Proven { name: name.to_string(), at: evidence.at });
        }
        self.note(&mut status).await?;
        Ok(evidence)
    }

    async fn prove(&self, name: &BundleName, bytes: &[u8]) -> Result<Evidence> {
        let (scratch, secret) = (self.config.layout.scratch(), self.config.layout.proof_key());
        empty(&scratch)?;
        let bundle = scratch.join("bundle");
        std::fs::write(&bundle, bytes).with_context(|| format!("write {}", bundle.display()))?;
        let plane = scratch.join("plane");
        let proof = Proof {
            bundle: &bundle,
            name: name.to_string(),
            secret: &secret,
            scratch: plane,
            by: self.config.by.clone(),
        };
        let evidence = proof.run().await;
        std::fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
        evidence
    }

    /// The named bundle, or the newest, from the first target that gives it.
    async fn fetch(&self, name: Option<BundleName>) -> Result<(BundleName, Vec<u8>, Arc<dyn Target>)> {
        let mut newest: Option<(BundleName, Arc<dyn Target>)> = None;
        for target in self.all_targets() {
            let Ok(stored) = targets::bundles(target.as_ref()).await else { continue };
            let wanted =
                stored.into_iter().map(|one| one.name).filter(|one| name.as_ref().is_none_or(|name| name == one));
            if let Some(found) = wanted.max()
                && newest.as_ref().is_none_or(|(known, _)| *known < found)
            {
                newest = Some((found, target));
            }
        }
        let Some((found, target)) = newest else {
            let which = name.map_or("there is no bundle yet".to_owned(), |name| format!("no target holds {name}"));
            bail!("{which}; evenkeel backup list shows what there is");
        };
        let bytes = target.get(&found.to_string()).await?;
        Ok((found, bytes, target))
    }

    fn all_targets(&self) -> Vec<Arc<dyn Target>> {
        all(&self.config.targets, &self.config.layout)
    }

    /// Draws the findings and writes the status.
    async fn note(&self, status: &mut Status) -> Result<()> {
        let last = status.last_bundle.as_ref();
        let facts = Facts {
            // The kit is one.
            people: self.config.recipients.len() + 1,
            kit_on_server: self.config.layout.recovery_kit().exists(),
            offsite: self.config.targets.iter().any(|target| target.is_offsite()),
            last: last.map(|last| last.size),
            before: status.before,
            missing: last.map(|last| last.missing.clone()).unwrap_or_default(),
            failure: status.failure.clone(),
            failed_targets: failed(&status.targets),
            failed_apps: status.apps.iter().filter_map(|app| Some((app.name.clone(), app.error.clone()?))).collect(),
            proven: status.proven_bundle.is_some(),
            failed_checks: status.last_proof.as_ref().map(|proof| proof.failed.clone()).unwrap_or_default(),
        };
        status.schedule = self.config.schedule.to_string();
        status.overdue_after = last.and_then(|last| self.config.schedule.overdue_after(last.at, self.started));
        status.findings = findings(&facts);
        self.records.write_status(status).await
    }
}

/// The targets that were chosen, and the data folder's own, where bundles lie that none of them took.
pub fn all(chosen: &[Arc<dyn Target>], layout: &Layout) -> Vec<Arc<dyn Target>> {
    let own: Arc<dyn Target> = Arc::new(Folder::new(layout.backups()));
    let mut all = chosen.to_vec();
    if all.iter().all(|target| target.name() != own.name()) {
        all.push(own);
    }
    all
}

fn failed(targets: &[TargetStatus]) -> Vec<(String, String)> {
    targets.iter().filter_map(|target| Some((target.name.clone(), target.error.clone()?))).collect()
}

fn errors(targets: &[TargetStatus]) -> String {
    let told = failed(targets).into_iter().map(|(name, why)| format!("{name}: {why}"));
    told.collect::<Vec<_>>().join("; ")
}
