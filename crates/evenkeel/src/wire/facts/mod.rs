//! Where the facts of `keeper::wrong` come from: this machine, the cluster's record, and the doors of the others.
//!
//! Everything runs at once and everything has a deadline: what does not answer in time is itself a fact. Nothing here
//! judges, and nothing here is needed by anything that runs.

mod access;
mod around;
mod cluster;
pub mod course;
mod local;
mod members;
pub mod notice;
mod paths;
mod reach;
pub mod refused;
mod serve;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use base::Clock;
use keeper::wrong::{Fact, Facts, Name, What};

use self::access::{Access, Record};
use self::around::{Around, Found};
use self::reach::Target;
use super::SystemClock;
use crate::layout::Layout;
use crate::pki::{self, Kubeconfig, Lineage};

pub use local::{PROBE_COMMAND, Restored, node_name, tell_disk};
pub use serve::{FactsPath, NodeFacts};

/// Longest wait for one answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(700);
/// How the reason begins where an API said nothing at all.
pub const NO_ANSWER: &str = "no answer";
/// The facts of one machine, as another one reads them.
pub const FACTS_PATH: &str = "/v1-evenkeel/facts";
/// Digits that name a cluster.
const CLUSTER_DIGITS: usize = 8;
/// The port of the API where nothing says otherwise.
const API_PORT: u16 = 6443;

/// Whom to ask, and as whom.
pub struct Look {
    pub layout: Layout,
    pub config: PathBuf,
    /// The way in: None on a machine that has none.
    pub access: Option<Kubeconfig>,
    /// The program that tries the disks, where this process is to end.
    pub prober: Option<PathBuf>,
}

impl Look {
    /// Everything that can be known from here.
    pub async fn whole(&self) -> Result<Facts> {
        let access = self.access.as_ref().map(Access::new).transpose()?;
        // A machine that only joined asks the servers what they say of themselves, and has no way to the record.
        let witness = if access.is_none() { Access::of_node(&self.layout) } else { None };
        let from = node_name(&self.layout);
        let record = async {
            match &access {
                Some(access) => access.record(&from).await,
                None => Record::default(),
            }
        };
        let asks = access.as_ref().or(witness.as_ref());
        let (mut facts, record, found) = self.look(&from, asks, record).await;
        facts.facts.extend(self.foreign_target());
        facts.absorb(record.facts);
        for other in found.said {
            facts.absorb(other);
        }
        Ok(reach::named(facts, &found.names))
    }

    /// What this machine says when another asks: of itself, and whom it reaches.
    pub async fn own(&self) -> Facts {
        let access = self.access.as_ref().and_then(|access| Access::new(access).ok());
        let from = node_name(&self.layout);
        let record = async {
            match &access {
                Some(access) => access.nodes().await,
                None => Record::default(),
            }
        };
        let (mut facts, _, found) = self.look(&from, None, record).await;
        facts.facts.extend(reach::addresses(&from, &found.names));
        facts
    }

    /// This machine, and those around it, each of which says to whoever `asks` what it sees.
    async fn look(
        &self,
        from: &Name,
        asks: Option<&Access>,
        record: impl Future<Output = Record>,
    ) -> (Facts, Record, Found) {
        let around = Around { own: from, layout: &self.layout, access: asks };
        let own = local::facts(&self.layout, &self.config, self.prober.as_deref());
        let (own, (record, mut found)) = tokio::join!(own, around.look(record));
        let mut facts = Facts { cluster: self.cluster(), from: from.clone(), facts: own, ..Facts::default() };
        facts.facts.append(&mut found.facts);
        (facts, record, found)
    }

    /// The cluster this machine belongs to, else the one that is asked.
    fn cluster(&self) -> Name {
        let own = self.own_authority();
        let asked = self.access.as_ref().map(|access| access.ca_pem.clone());
        let lineage = self.lineage();
        own.or(asked).map_or_else(|| "unknown".into(), |pem| short(&lineage, &pem))
    }

    /// Of a server, else what a machine that joined was given.
    fn own_authority(&self) -> Option<String> {
        let folders = [self.layout.server_tls(), self.layout.agent_tls()];
        folders.iter().find_map(|folder| pki::read(&folder.join("server-ca.crt")).ok().flatten())
    }

    /// Authorities that this cluster had before.
    fn lineage(&self) -> Lineage {
        let folders = [self.layout.server_tls(), self.layout.agent_tls()];
        let found = folders.iter().find(|folder| folder.join("server-ca.crt").exists());
        found.and_then(|folder| Lineage::of(folder).ok()).unwrap_or_default()
    }

    /// A kubeconfig of another cluster than this machine's.
    fn foreign_target(&self) -> Option<Fact> {
        let (own, lineage, asked) = (self.own_authority()?, self.lineage(), &self.access.as_ref()?.ca_pem);
        let (node, wanted) = (node_name(&self.layout), short(&Lineage::default(), asked).to_string());
        (!lineage.is_one(&own, asked)).then(|| fact(&node, "cluster", What::OtherTarget { wanted }))
    }
}

fn short(lineage: &Lineage, ca_pem: &str) -> Name {
    lineage.cluster(ca_pem).chars().take(CLUSTER_DIGITS).collect::<String>().into()
}

/// How the routes of this machine are, compared with what the cluster's record says of others.
fn as_recorded(layout: &Layout, own: &str, targets: &[Target]) -> Option<Fact> {
    let unrouted = local::unrouted(layout, targets.iter().filter(|target| target.node != own))?;
    Some(fact(own, own, unrouted))
}

/// A fact of now.
fn fact(by: &str, about: &str, what: What) -> Fact {
    Fact { by: by.into(), about: about.into(), at: SystemClock.now(), what }
}
