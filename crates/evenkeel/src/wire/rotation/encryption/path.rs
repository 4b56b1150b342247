//! `/v1-evenkeel/encryption`: which key Secrets at rest are under, and `?wish=rotate|cancel`: another one, or not.

use async_trait::async_trait;
use base::Clock;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use view::Client;

use super::act::{cancel, rotate};
use super::record::Rekey;
use super::{TOLD, holders};
use crate::layout::Layout;
use crate::pki::{Phase, Role};
use crate::wire::rotation::ShownMachine;
use crate::wire::rotation::act::WishError;
use crate::wire::rotation::gather;
use crate::wire::rotation::judge::{Verdict, judge};
use crate::wire::rotation::record::Recorded;
use crate::wire::rotation::wishes::Wished;
use crate::wire::{SystemClock, keys};

pub const PATH: &str = "/v1-evenkeel/encryption";

/// How it stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub cluster: String,
    /// The key that this server encrypts with, and all that it can decrypt with.
    pub key: Option<u32>,
    pub opens: Vec<u32>,
    /// Of the last change, open or over; None where there never was one.
    pub next: Option<u32>,
    pub phase: Option<Phase>,
    pub since: Option<Timestamp>,
    pub by: Option<String>,
    pub rewritten: usize,
    /// True where the last change was taken back.
    pub withdrawn: bool,
    pub servers: Vec<ShownMachine>,
    /// Servers that have not come along, silent ones too.
    pub waiting: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    Rotate,
    /// Back to the key before, while no server encrypts with the new one.
    Cancel,
}

/// The key on this server's disk, and its cluster.
pub struct Encryption {
    pub layout: Layout,
    pub cluster: String,
}

// === impl Shown ===

impl Shown {
    pub fn is_open(&self) -> bool {
        self.phase.is_some_and(|phase| phase != Phase::Done)
    }
}

// === impl Encryption ===

#[async_trait]
impl Wished for Encryption {
    const PATH: &'static str = PATH;
    const WORDS: &'static str = "rotate or cancel";
    type Wish = Wish;
    type Shown = Shown;

    async fn show(&self, client: &Client) -> anyhow::Result<Shown> {
        let ring = keys::read(&self.layout)?;
        let recorded = Recorded::<Rekey>::read(client).await?;
        let rekey = recorded.map(|recorded| recorded.rotation);
        let reached = |lease: &api::Tree| rekey.as_ref()?.reached(gather::told(lease, TOLD)?);
        let mut machines = gather::all(client, SystemClock.now(), reached).await?;
        machines.retain(|machine| machine.role == Role::Server);
        let waiting = match rekey.as_ref().map(|rekey| judge(rekey.phase, false, &holders(&machines))) {
            Some(Verdict::Wait(names)) => names,
            _ => Vec::new(),
        };
        Ok(Shown {
            cluster: self.cluster.clone(),
            key: ring.as_ref().and_then(store::Keyring::seals_with),
            opens: ring.map(|ring| ring.ids()).unwrap_or_default(),
            next: rekey.as_ref().map(|rekey| rekey.key),
            phase: rekey.as_ref().map(|rekey| rekey.phase),
            since: rekey.as_ref().map(|rekey| rekey.since),
            by: rekey.as_ref().map(|rekey| rekey.by.clone()),
            rewritten: rekey.as_ref().map(|rekey| rekey.rewritten).unwrap_or_default(),
            withdrawn: rekey.is_some_and(|rekey| rekey.withdrawn),
            servers: machines.into_iter().map(ShownMachine::from).collect(),
            waiting,
        })
    }

    async fn grant(&self, wish: Wish, by: &str, client: &Client) -> Result<(), WishError> {
        let now = SystemClock.now();
        match wish {
            Wish::Rotate => rotate(by, client, &self.layout, now).await,
            Wish::Cancel => cancel(client, now).await,
        }
    }
}
