//! Looks after the managed etcd: room, free pages, alarms, and who the members are. Every server looks; the one whose
//! member leads acts, so there is one at a time without a lease, which a full etcd could not renew.

mod copies;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use apiserver::HealthCheck;
use async_trait::async_trait;
use base::{Chain, Clock};
use store::etcd::{Alarm, AlarmKind, Member, MemberStatus, Members};
use tokio::sync::watch::Receiver;
use tracing::{info, warn};
use view::Drain;

pub use plan::NEAR_QUOTA_PERCENT;

use copies::Comparison;
use plan::{File, Observed, Step, Voter, fill_percent, next};

use super::managed::Managed;
use crate::wire::SystemClock;
use crate::wire::facts::course::{self, Note};

/// A look costs a few small requests.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// While something is to be done.
const LOOK_SOON: Duration = Duration::from_secs(5);

/// What the last look saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Hundredths of the quota that the fullest member has.
    pub fill_percent: u64,
    pub used_bytes: u64,
    pub quota_bytes: u64,
    pub alarms: Vec<Alarm>,
    /// Members that did not answer, by name.
    pub silent: Vec<String>,
    /// Why there was no look.
    pub failed: Option<String>,
}

/// The loop of one server.
pub struct Care {
    managed: Managed,
    members: Members,
    /// etcd's revision at the last look under an alarm: since then nothing was written, and everybody has read it.
    settled: Option<i64>,
    compacted: bool,
    /// Members that were defragmented since.
    rewritten: BTreeSet<u64>,
    /// etcd's count of elections at the last look.
    term: Option<u64>,
    comparison: Comparison,
}

/// One look at the cluster.
struct Look {
    members: Vec<Member>,
    statuses: BTreeMap<u64, MemberStatus>,
    alarms: Vec<Alarm>,
    /// This server's own member.
    own: MemberStatus,
}

// === impl Care ===

impl Care {
    pub fn new(managed: Managed) -> Result<Care> {
        let members = managed.members()?;
        Ok(Care {
            managed,
            members,
            settled: None,
            compacted: false,
            rewritten: BTreeSet::new(),
            term: None,
            comparison: Comparison::default(),
        })
    }

    pub async fn run(mut self, drain: Drain) {
        loop {
            let pause = match self.round().await {
                Ok(true) => LOOK_SOON,
                Ok(false) => LOOK_EVERY,
                Err(failure) => {
                    let text = Chain(failure.as_ref()).to_string();
                    warn!(error = %text, "etcd was not looked after");
                    self.managed.seen.send_modify(|seen| seen.failed = Some(text));
                    LOOK_SOON
                }
            };
            if drain.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// One look and at most one step. True where the next look should be soon.
    async fn round(&mut self) -> Result<bool> {
        let look = self.look().await?;
        self.count_elections(look.own.raft_term);
        self.managed.note_others(look.members.iter().flat_map(|member| member.client_urls.clone()).collect())?;
        let observed = look.observed(self.managed.quota());
        let observed = Observed { compacted: self.compacted, rewritten: self.rewritten.clone(), ..observed };
        self.managed.seen.send_replace(look.seen(&observed));
        let full = !observed.no_space.is_empty();
        if !full {
            (self.settled, self.compacted) = (None, false);
            self.rewritten.clear();
        }
        if look.own.leader != look.own.id {
            self.comparison = Comparison::default();
            return Ok(full);
        }
        if let Some(step) = next(&observed) {
            self.act(step, &look).await?;
            return Ok(true);
        }
        self.compare(&look).await;
        Ok(full || self.comparison.is_open())
    }

    async fn compare(&mut self, look: &Look) {
        let found = self.comparison.look(&self.members, &look.members, &look.statuses, look.own.revision).await;
        let layout = self.managed.layout();
        if let Some(found) = found.filter(|found| !found.is_empty() || !course::odd(layout).is_empty()) {
            course::note(layout, Note::Odd { at: SystemClock.now(), members: found.into_iter().collect() });
        }
    }

    /// Each election has a number of its own.
    fn count_elections(&mut self, term: u64) {
        let more = self.term.replace(term).map_or(0, |before| term.saturating_sub(before));
        if let Ok(count @ 1..) = u32::try_from(more) {
            course::note(self.managed.layout(), Note::Elections { at: SystemClock.now(), count });
        }
    }

    async fn look(&self) -> Result<Look> {
        let own = self.members.status(&self.managed.own_url()).await?;
        let members = self.members.list().await?;
        let asked = members.iter().filter_map(|member| Some((member.id, member.client_urls.first()?)));
        let asked = asked.map(|(id, url)| async move { (id, self.members.status(url).await) });
        let answers = futures::future::join_all(asked).await;
        let statuses = answers.into_iter().filter_map(|(id, status)| Some((id, status.ok()?))).collect();
        Ok(Look { members, statuses, alarms: self.members.alarms().await?, own })
    }

    async fn act(&mut self, step: Step, look: &Look) -> Result<()> {
        match step {
            // Two looks at the same revision: what was written before the alarm has reached every server's memory.
            Step::Compact if self.settled != Some(look.own.revision) => self.settled = Some(look.own.revision),
            Step::Compact => {
                info!(revision = look.own.revision, "etcd is full: forgetting its history");
                self.members.compact(look.own.revision).await?;
                self.compacted = true;
            }
            Step::Defragment(id) => {
                let Some((name, url)) = look.address(id) else { return Ok(()) };
                info!(member = name, "giving free pages of etcd back");
                let start = Instant::now();
                self.members.defragment(url).await?;
                let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                let note = Note::CleanUp { at: SystemClock.now(), millis, member: name.to_owned() };
                course::note(self.managed.layout(), note);
                self.rewritten.insert(id);
            }
            Step::MoveLeader { to } => {
                let Some((name, _)) = look.address(to) else { return Ok(()) };
                info!(to = name, "handing over the lead of etcd");
                self.members.move_leader(&self.managed.own_url(), to).await?;
                // The next leader's to do; should the lead come back, it is not handed on for it again.
                self.rewritten.insert(look.own.id);
            }
            Step::Disarm(member) => {
                info!("etcd has room again: taking writes");
                self.members.disarm(Alarm { member, kind: AlarmKind::NoSpace }).await?;
            }
        }
        Ok(())
    }
}

// === impl Look ===

impl Look {
    fn observed(&self, quota: u64) -> Observed {
        let file = |id: u64| {
            let status = self.statuses.get(&id)?;
            Some(File { bytes: status.db_bytes, used_bytes: status.db_used_bytes })
        };
        let voters = self.members.iter().filter(|member| !member.learner);
        let full = self.alarms.iter().filter(|alarm| alarm.kind == AlarmKind::NoSpace);
        Observed {
            voters: voters.map(|member| Voter { id: member.id, file: file(member.id) }).collect(),
            leader: self.own.leader,
            quota,
            no_space: full.map(|alarm| alarm.member).collect(),
            compacted: false,
            rewritten: BTreeSet::new(),
        }
    }

    fn seen(&self, observed: &Observed) -> Seen {
        let silent = self.members.iter().filter(|member| !self.statuses.contains_key(&member.id));
        Seen {
            fill_percent: fill_percent(observed),
            used_bytes: self.statuses.values().map(|status| status.db_used_bytes).max().unwrap_or(0),
            quota_bytes: observed.quota,
            alarms: self.alarms.clone(),
            silent: silent.map(|member| member.name.clone()).collect(),
            failed: None,
        }
    }

    fn address(&self, id: u64) -> Option<(&str, &str)> {
        let member = self.members.iter().find(|member| member.id == id)?;
        Some((&member.name, member.client_urls.first()?))
    }
}

/// What `/readyz?verbose` says of the managed etcd. Informative: a full or broken one shows in `store-read` and in writes.
pub struct MemberCheck(pub Receiver<Seen>);

#[async_trait]
impl HealthCheck for MemberCheck {
    fn name(&self) -> &str {
        "etcd"
    }

    fn is_informative(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<(), String> {
        match self.0.borrow().trouble() {
            Some(trouble) => Err(trouble),
            None => Ok(()),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// What a person should know, in a sentence.
    pub fn trouble(&self) -> Option<String> {
        let mib = |bytes: u64| bytes >> 20;
        if let Some(failed) = &self.failed {
            return Some(failed.clone());
        }
        if self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
            return Some("a member's data differs from the others'".to_owned());
        }
        if self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace) {
            let (used, quota) = (mib(self.used_bytes), mib(self.quota_bytes));
            return Some(format!(
                "it is full and takes no writes: {used} of {quota} MiB are in use; where that stays, give it more: \
                 --etcd-arg=quota-backend-bytes=BYTES"
            ));
        }
        if NEAR_QUOTA_PERCENT <= self.fill_percent {
            let quota = mib(self.quota_bytes);
            return Some(format!("its file has {} % of the {quota} MiB at which writes stop", self.fill_percent));
        }
        (!self.silent.is_empty()).then(|| format!("no answer from the members {}", self.silent.join(", ")))
    }
}
