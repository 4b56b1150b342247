//! One server's part in it: its files and its store take the keys of the phase, it says so, and one of the servers writes
//! every Secret anew once all encrypt with the new key.

use std::time::Duration;

use anyhow::{Context, Result};
use base::Clock;
use jiff::Timestamp;
use store::Store;
use tokio::time::Instant;
use tracing::info;
use view::{Client, Drain};

use super::record::Rekey;
use super::{TOLD, holders};
use crate::layout::Layout;
use crate::pki::{Opener, Phase, Role};
use crate::wire::rotation::claim::{Kept, Work};
use crate::wire::rotation::gather;
use crate::wire::rotation::judge::{Machine, Verdict, judge};
use crate::wire::rotation::look::{LOOK, Part, follow};
use crate::wire::rotation::record::Recorded;
use crate::wire::{SystemClock, backup, keys};

/// A write that a server began with the key before has ended, one way or the other, when so long all have said that they
/// encrypt with the new one: requests to an etcd are given up after 10 s by us and after 7 s by it.
const SETTLE: Duration = Duration::from_secs(20);

/// One server's part.
pub struct Rekeying {
    name: String,
    layout: Layout,
    store: Store,
    client: Client,
    /// Since when all encrypt with the new key, as this server sees it.
    settled: Option<Instant>,
    /// Values that this server has written anew. Among them is the record, so that the phase after is one look later.
    rewritten: usize,
}

impl Part for Rekeying {
    type Record = Rekey;
    const WHAT: &'static str = "the key of Secrets at rest";

    fn pause(&self, rekey: &Rekey, _: Timestamp) -> Option<Duration> {
        rekey.is_open().then_some(LOOK)
    }

    async fn turn(&mut self, recorded: &Recorded<Rekey>, layer: &mut Kept) -> Result<()> {
        let rekey = &recorded.rotation;
        self.take(rekey)?;
        let (name, now) = (rekey.work(), SystemClock.now());
        let work = Work { name: &name, by: &rekey.by };
        layer.keep(&self.client, work, rekey.is_open(), now).await?;
        if !rekey.is_open() {
            return Ok(());
        }
        gather::tell(&self.client, &self.name, TOLD, &rekey.told()).await?;
        let machines = gather::all(&self.client, now, |lease| rekey.reached(gather::told(lease, TOLD)?)).await?;
        let verdict = judge(rekey.phase, false, &holders(&machines));
        if verdict != Verdict::Decide {
            (self.settled, self.rewritten) = (None, 0);
        }
        match verdict {
            Verdict::Advance(phase) => self.write(rekey.clone().advanced(phase, now), recorded).await,
            Verdict::Decide if is_turn_of(&self.name, &machines) => self.rewrite(recorded).await,
            Verdict::Decide | Verdict::Wait(_) | Verdict::Paused | Verdict::Over => Ok(()),
        }
    }
}

// === impl Rekeying ===

impl Rekeying {
    pub fn new(name: &str, layout: &Layout, store: Store, client: Client) -> Rekeying {
        let (name, layout) = (name.to_owned(), layout.clone());
        Rekeying { name, layout, store, client, settled: None, rewritten: 0 }
    }

    pub async fn run(self, drain: Drain) {
        let client = self.client.clone();
        follow(self, client, drain).await;
    }

    /// First the files, then the store: what a bundle holds opens whatever the store wrote.
    fn take(&self, rekey: &Rekey) -> Result<()> {
        let have = keys::read(&self.layout)?.context("this server has no encryption keys any more")?;
        let secret = || Ok(Opener::secret(&backup::kit::proof_secret(&self.layout)?)?);
        let ring = rekey.ring(&have, secret)?;
        if (ring.seals_with(), ring.ids()) != (have.seals_with(), have.ids()) {
            info!(key = rekey.key, phase = ?rekey.phase, "keys of Secrets at rest");
            keys::write(&self.layout, &ring)?;
        }
        self.store.set_keyring(ring);
        Ok(())
    }

    /// Everything under the new key, and looked at once more before anybody lets the old one go.
    async fn rewrite(&mut self, recorded: &Recorded<Rekey>) -> Result<()> {
        if self.settled.get_or_insert_with(Instant::now).elapsed() < SETTLE {
            return Ok(());
        }
        let written = self.store.reencrypt().await.context("write every Secret anew")?;
        self.rewritten += written;
        if written > 0 {
            // Looked at once more before the key before goes, and then there is nothing left to write.
            return Ok(());
        }
        let mut next = recorded.rotation.clone();
        next.rewritten = self.rewritten;
        info!(values = next.rewritten, key = next.key, "every Secret was written anew");
        self.write(next.advanced(Phase::Finish, SystemClock.now()), recorded).await
    }

    async fn write(&self, next: Rekey, recorded: &Recorded<Rekey>) -> Result<()> {
        match Recorded::write(&self.client, &next, Some(recorded)).await {
            Err(error) if !error.is_conflict() => Err(error).context("record the next phase"),
            _ => Ok(()),
        }
    }
}

/// One writes for all: the first by name of those that are there.
fn is_turn_of(own: &str, machines: &[Machine]) -> bool {
    let there = machines.iter().filter(|one| one.role == Role::Server && (one.live || one.name == own));
    there.map(|one| one.name.as_str()).min() == Some(own)
}
