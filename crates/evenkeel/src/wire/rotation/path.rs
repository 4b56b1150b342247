//! `/v1-evenkeel/authorities`: how far a rotation is, and `?wish=start|pause|resume|finish|tokens`.

use std::sync::Arc;

use async_trait::async_trait;
use base::Clock;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use view::Client;

use super::act::{self, Wish, WishError};
use super::gather;
use super::judge::{Machine, Verdict, judge, locked_out};
use super::record::{Recorded, Rotation};
use super::wishes::Wished;
use crate::pki::{Phase, Role, ServerPki};
use crate::wire::SystemClock;

pub const PATH: &str = "/v1-evenkeel/authorities";

/// How a rotation stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub cluster: String,
    /// Of the last rotation, open or over; none where there never was one.
    pub number: Option<u64>,
    pub phase: Option<Phase>,
    pub paused: bool,
    pub since: Option<Timestamp>,
    pub machines: Vec<ShownMachine>,
    /// Machines that are there and have not come along.
    pub waiting: Vec<String>,
    /// True where only a person takes the next step.
    pub decide: bool,
    /// Machines that would be out after the end.
    pub locked_out: Vec<String>,
    /// Until then tokens hold that an earlier key signed; None where that is not decided yet.
    pub tokens_until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownMachine {
    pub name: String,
    pub role: Role,
    pub reached: Option<Phase>,
    pub live: bool,
}

pub struct Authorities(pub Arc<ServerPki>);

// === impl Shown ===

impl Shown {
    pub fn is_open(&self) -> bool {
        self.phase.is_some_and(|phase| phase != Phase::Done)
    }

    fn of(cluster: &str, recorded: Option<&Recorded<Rotation>>, machines: Vec<Machine>) -> Shown {
        let rotation = recorded.map(|recorded| &recorded.rotation);
        let phase = rotation.map(|rotation| rotation.succession.phase);
        let paused = rotation.is_some_and(|rotation| rotation.paused && rotation.is_open());
        // What is waited for is shown of one that is paused, too.
        let verdict = phase.map(|phase| judge(phase, false, &machines));
        let open = phase.is_some_and(|phase| phase != Phase::Done);
        Shown {
            cluster: cluster[..12].to_owned(),
            number: rotation.map(|rotation| rotation.succession.number),
            phase,
            paused,
            since: rotation.map(|rotation| rotation.since),
            waiting: match &verdict {
                Some(Verdict::Wait(names)) => names.clone(),
                _ => Vec::new(),
            },
            decide: verdict == Some(Verdict::Decide),
            locked_out: if open { locked_out(&machines) } else { Vec::new() },
            tokens_until: rotation.and_then(|rotation| rotation.succession.tokens_until),
            machines: machines.into_iter().map(ShownMachine::from).collect(),
        }
    }
}

impl From<Machine> for ShownMachine {
    fn from(machine: Machine) -> ShownMachine {
        let Machine { name, role, reached, live } = machine;
        ShownMachine { name, role, reached, live }
    }
}

// === impl Authorities ===

#[async_trait]
impl Wished for Authorities {
    const PATH: &'static str = PATH;
    const WORDS: &'static str = "start, pause, resume, finish or tokens";
    type Wish = Wish;
    type Shown = Shown;

    async fn show(&self, client: &Client) -> anyhow::Result<Shown> {
        let (now, current) = (SystemClock.now(), self.0.current());
        let recorded = Recorded::<Rotation>::read(client).await?;
        let succession = recorded.as_ref().map(|recorded| &recorded.rotation.succession);
        let machines = gather::machines(client, succession, now).await?;
        Ok(Shown::of(&current.cluster, recorded.as_ref(), machines))
    }

    async fn grant(&self, wish: Wish, by: &str, client: &Client) -> Result<(), WishError> {
        act::grant(wish, by, client, &self.0, SystemClock.now()).await
    }
}
