//! One server's part in a rotation: it makes its own files and certificates what the phase says, tells of it, and takes
//! the next step for all where everybody has.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::Clock;
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::info;
use view::{Client, Drain};

use super::claim::{Kept, Work};
use super::judge::{Machine, Verdict, is_turn_of, judge, may_be_away};
use super::look::{LOOK, Part, follow};
use super::record::{Recorded, Rotation};
use super::{TRUST, gather, publish};
use crate::layout::Layout;
use crate::pki::{Phase, ServerPki};
use crate::wire::SystemClock;
use crate::wire::etcd::Managed;
use crate::wire::join::retarget;

/// Between two looks at whether tokens of the key before are over: the clock may have been set.
const TOKENS_LOOK: Duration = Duration::from_secs(3600);

/// What a server needs for it.
pub struct Rotating {
    pub name: String,
    pub layout: Layout,
    pub pki: Arc<ServerPki>,
    pub server: ::apiserver::Server,
    pub client: Client,
    pub etcd: Option<Managed>,
    /// What is in effect: the certificates that are shown, and whom they are checked against.
    pub effect: watch::Receiver<String>,
}

impl Part for Rotating {
    type Record = Rotation;
    const WHAT: &'static str = "the cluster's authorities";

    fn pause(&self, rotation: &Rotation, now: Timestamp) -> Option<Duration> {
        if rotation.is_open() {
            return Some(LOOK);
        }
        let left = rotation.succession.tokens_until.filter(|until| now < *until)?.duration_since(now);
        // A moment late, so that it is surely over.
        Some((Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1)).min(TOKENS_LOOK))
    }

    async fn turn(&mut self, recorded: &Recorded<Rotation>, layer: &mut Kept) -> Result<()> {
        let succession = &recorded.rotation.succession;
        if self.pki.succeed(succession, SystemClock.now())? {
            info!(number = succession.number, phase = ?succession.phase, "authorities");
        }
        if self.pki.retire(succession, SystemClock.now())? {
            info!("no token holds any more that an earlier key signed");
        }
        let current = self.pki.current();
        self.server.token_keys().replace(&current.signing_keys).context("service-account keys")?;
        retarget(&self.layout.token(), &current.server.pem)?;
        publish::publish(&self.client, &current).await?;
        if !recorded.rotation.is_open() {
            return self.hold(recorded, layer, false).await;
        }
        let machines = gather::machines(&self.client, Some(succession), SystemClock.now()).await?;
        let verdict = judge(succession.phase, recorded.rotation.paused, &machines);
        self.hold(recorded, layer, verdict != Verdict::Decide).await?;
        if *self.effect.borrow() == current.trust() && self.etcd_follows(succession.phase, &machines).await? {
            gather::tell(&self.client, &self.name, TRUST, &current.trust()).await?;
        }
        self.go_on(recorded, &machines).await
    }
}

// === impl Rotating ===

impl Rotating {
    pub async fn run(self, drain: Drain) {
        let client = self.client.clone();
        follow(self, client, drain).await;
    }

    /// Others are kept from the control plane while machines change, and not while a person takes time to decide.
    async fn hold(&self, recorded: &Recorded<Rotation>, layer: &mut Kept, at_work: bool) -> Result<()> {
        let (name, by) = (recorded.rotation.work(), recorded.rotation.by.as_str());
        layer.keep(&self.client, Work { name: &name, by }, at_work, SystemClock.now()).await
    }

    /// True where this server's etcd trusts what it should. It reads that at its start: once the old authority is out,
    /// it is started again, when the others can do without it.
    async fn etcd_follows(&self, phase: Phase, machines: &[Machine]) -> Result<bool> {
        let Some(etcd) = self.etcd.as_ref().filter(|_| phase == Phase::Finish) else { return Ok(true) };
        if etcd.is_current()? {
            return Ok(etcd.answers().await);
        }
        if is_turn_of(&self.name, machines) {
            let (others, answering) = etcd.others_that_answer().await?;
            if may_be_away(others, answering.len()) {
                info!("etcd starts again, to trust the new authority alone");
                etcd.start_again(&answering).await?;
            }
        }
        Ok(false)
    }

    /// Whoever sees first that a phase is over begins the next one.
    async fn go_on(&self, recorded: &Recorded<Rotation>, machines: &[Machine]) -> Result<()> {
        let rotation = &recorded.rotation;
        let Verdict::Advance(phase) = judge(rotation.succession.phase, rotation.paused, machines) else {
            return Ok(());
        };
        match Recorded::write(&self.client, &rotation.clone().advanced(phase, SystemClock.now()), Some(recorded)).await
        {
            Err(error) if !error.is_conflict() => Err(error).context("record the next phase"),
            _ => Ok(()),
        }
    }
}
