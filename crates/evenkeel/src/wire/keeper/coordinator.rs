//! The coordinator: whoever holds the lease `kube-system/evenkeel-keeper` drives the open run, under a token that is
//! greater than that of everybody before.
//!
//! All that matters is in the journal. A coordinator that ends anywhere is replaced by the next, which begins by looking.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::{Gvr, Key};
use base::Chain;
use jiff::{SignedDuration, Timestamp};
use keeper::{Action, Effect, Forecast, Generation, Input, Phase, Plan, Run, Standing, Step, Token};
use reconcile::{Leader, LeaderConfig};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use view::{Client, Drain, View, Watched};

use super::perform::Performer;
use super::ports::Parts;
use super::records::{Armed, LABEL, NAMESPACE, Records, Wish, config_maps};
use super::survey::Survey;
use super::{api as server, layers, propose};

const LEASE: &str = "evenkeel-keeper";
/// The claim on the layer is renewed well before it ends.
const CLAIM_AGAIN: Duration = Duration::from_secs(300);
/// A claim without its run is one whose run is about to be armed, unless it is older.
const CLAIM_ALONE_MAX: SignedDuration = SignedDuration::from_secs(60);
const TOKEN: &str = "evenkeel.dev/token";
/// Somebody else renews the lease between reading and writing it; not for ever.
const TOKEN_TRIES_MAX: u32 = 5;
/// What may be different soon is looked at again.
const LOOK: Duration = Duration::from_secs(1);
/// Nothing was told; it is looked at all the same.
const IDLE: Duration = Duration::from_secs(60);
/// A node that said nothing has come further by then.
const UNSETTLED: Duration = Duration::from_secs(3);
/// Who gave the lease away leaves it to others for so long.
const HANDOVER: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(2);

pub struct Coordinator {
    parts: Parts,
    records: Records,
    leading: watch::Receiver<bool>,
    news: View,
    /// Cancelled to give the lease away.
    term: Drain,
    /// The token under which this server gave the lease away last: where nobody took it, it goes on itself.
    handed: AtomicU64,
}

/// Who drives, if anybody does.
pub async fn holder(client: &Client) -> Result<Option<String>> {
    match client.get(&leases(), &Key::new(NAMESPACE, LEASE)).await {
        Ok(lease) => {
            let holder = lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty());
            Ok(holder.map(str::to_owned))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error).context("look who coordinates"),
    }
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

// === impl Coordinator ===

impl Coordinator {
    pub async fn run(parts: Parts, drain: Drain) {
        let mut handed = 0;
        while !drain.is_cancelled() {
            handed = Coordinator::stand(parts.clone(), handed, &drain).await;
            if !drain.is_cancelled() {
                drain.run_until_cancelled(tokio::time::sleep(HANDOVER)).await;
            }
        }
    }

    /// Waits for the lease, and has it until it is lost or given away.
    async fn stand(parts: Parts, handed: u64, drain: &Drain) -> u64 {
        let term = drain.child_token();
        let config = LeaderConfig::new(LEASE, &parts.name);
        let (leader, leading) = Leader::new(config, parts.client.clone(), parts.clock.clone());
        let records = Watched::all(config_maps(), &[]).in_namespace(NAMESPACE).with_labels(LABEL);
        let nodes = Watched::all(Gvr::new("", "v1", "nodes"), &[]);
        let news = View::start(&parts.client, vec![records, nodes], &term);
        let records = Records { client: parts.client.clone() };
        let handed = AtomicU64::new(handed);
        let mut coordinator = Coordinator { parts, records, leading, news, term: term.clone(), handed };
        tokio::join!(leader.run(term.clone()), term.run_until_cancelled(coordinator.lead()));
        coordinator.handed.into_inner()
    }

    /// Drives whenever it leads. Ends with the term.
    async fn lead(&mut self) {
        loop {
            if self.leading.wait_for(|leading| *leading).await.is_err() {
                return;
            }
            if let Err(failure) = self.term().await {
                warn!(error = %Chain(failure.as_ref()), "the keeper begins anew");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// As long as it leads.
    async fn term(&self) -> Result<()> {
        let token = self.token().await.context("take a token")?;
        info!(token = token.0, "this server coordinates");
        let mut news = self.news.subscribe();
        let mut leading = self.leading.clone();
        while *leading.borrow() {
            let pause = match self.open_run().await? {
                Some(armed) => {
                    self.drive(&armed, token).await?;
                    self.records.prune().await?;
                    continue;
                }
                None if self.settle().await? => IDLE,
                None => UNSETTLED,
            };
            tokio::select! {
                _ = news.changed() => {}
                _ = leading.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// A number that grows with every coordinator, kept beside the lease: only its holder can raise it.
    async fn token(&self) -> Result<Token> {
        let leases = leases();
        let key = Key::new(NAMESPACE, LEASE);
        for _ in 0..TOKEN_TRIES_MAX {
            let mut lease = self.parts.client.get(&leases, &key).await?;
            if lease["spec"]["holderIdentity"] != json!(self.parts.name) {
                bail!("another server holds the lease");
            }
            let last = lease["metadata"]["annotations"][TOKEN].as_str().and_then(|text| text.parse::<u64>().ok());
            let next = last.unwrap_or_default() + 1;
            lease["metadata"]["annotations"][TOKEN] = json!(next.to_string());
            match self.parts.client.update(&leases, &key, None, &lease).await {
                Ok(_) => return Ok(Token(next)),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the lease changes all the time")
    }

    /// The newest run, unless it is over.
    async fn open_run(&self) -> Result<Option<Armed>> {
        let Some(newest) = self.records.runs().await?.pop() else { return Ok(None) };
        let journal = self.records.journal(&newest).await?;
        Ok(Some(newest).filter(|run| !Standing::of(&run.plan, &journal).is_over()))
    }

    /// Between runs: the target is what the cluster was brought to, with the nodes it has. False where that is not known.
    async fn settle(&self) -> Result<bool> {
        let generations = self.records.generations().await?;
        let newest = self.records.runs().await?.pop();
        if let Some(armed) = &newest {
            self.forget_wishes(armed).await?;
        }
        if let Some(armed) = newest
            && Standing::of(&armed.plan, &self.records.journal(&armed).await?) == Standing::Returned
            && let Some(next) = as_before(&generations, &armed.plan)
        {
            info!(generation = next.number, as_before = armed.plan.from, "the cluster is what it was");
            self.records.propose(&next).await?;
            return Ok(false);
        }
        self.free_the_layer().await?;
        let survey = Survey::take(&self.parts.client, &*self.parts.agents).await?;
        if let Some(next) = server::observed(&self.parts.cluster, generations.last(), &survey) {
            info!(generation = next.number, nodes = next.nodes.len(), "the cluster's nodes as they are");
            return Ok(self.records.propose(&next).await?);
        }
        let known = generations.last().map(|newest| newest.nodes.keys().collect::<Vec<_>>());
        Ok(known.is_some_and(|known| survey.nodes.keys().eq(known)))
    }

    /// What was asked of a run in its last moment, or arrived after it, is not asked any more.
    async fn forget_wishes(&self, armed: &Armed) -> Result<()> {
        for name in self.records.wishes(&armed.run()).await?.into_keys() {
            self.records.forget(&name).await?;
        }
        Ok(())
    }

    /// No run is open: what one holds, it left behind.
    async fn free_the_layer(&self) -> Result<()> {
        let now = self.parts.clock.now();
        let held = layers::held(&self.parts.client, now).await?.filter(|held| held.work.starts_with(propose::RUN));
        match held.filter(|held| CLAIM_ALONE_MAX < now.duration_since(held.since)) {
            Some(held) => layers::release(&self.parts.client, &held.work).await,
            None => Ok(()),
        }
    }

    /// Others are told of this run as long as it is open. Who works elsewhere all the same is named, and the run's own
    /// gates see what he does.
    async fn claim_the_layer(&self, armed: &Armed, forecast: &Forecast) -> Result<()> {
        let now = self.parts.clock.now();
        let claim = propose::claim(&armed.run(), &armed.by, now, forecast);
        if let Err(held) = layers::claim(&self.parts.client, &claim, now).await? {
            warn!(%held, "two layers are changed at once");
        }
        Ok(())
    }

    /// Until the run is over or somebody else's.
    async fn drive(&self, armed: &Armed, token: Token) -> Result<()> {
        let journal = self.records.journal(armed).await?;
        info!(run = armed.run(), entries = journal.entries().len(), "driving");
        let forecast = propose::forecast(&self.records, &armed.plan).await?;
        self.claim_the_layer(armed, &forecast).await?;
        let mut claimed = Instant::now();
        let mut performer = Performer::new(&self.parts, &self.records, armed, token, &forecast);
        let mut run = Run::new(armed.plan.clone(), journal, token);
        let mut inputs = VecDeque::from([Input::Look]);
        let mut asked: VecDeque<(String, Wish)> = VecDeque::new();
        let (mut news, mut leading) = (self.news.subscribe(), self.leading.clone());
        while *leading.borrow_and_update() {
            if CLAIM_AGAIN <= claimed.elapsed() {
                self.claim_the_layer(armed, &forecast).await?;
                claimed = Instant::now();
            }
            self.wishes(armed, &mut asked, &mut inputs).await?;
            let Some(input) = inputs.pop_front() else { bail!("the run says nothing") };
            let mut effects = Vec::new();
            run = run.step(input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Append(draft) => {
                        let wish = matches!(draft.phase, Phase::Paused { .. } | Phase::Resumed | Phase::Back { .. });
                        let wish = if wish && draft.node.is_none() { asked.pop_front() } else { None };
                        let by = wish.as_ref().map(|(_, wish)| wish.by.as_str());
                        inputs.push_back(performer.append(run.journal(), draft, by).await?);
                        if let Some((name, _)) = wish {
                            self.records.forget(&name).await?;
                        }
                    }
                    Effect::Apply(_, step) | Effect::Undo(_, step) if self.is_for_others(&step, token).await? => {
                        info!("another server takes over while this one is touched");
                        self.handed.store(token.0, Ordering::Relaxed);
                        self.term.cancel();
                        return Ok(());
                    }
                    Effect::Probe(..) | Effect::Apply(..) | Effect::Check(..) | Effect::Undo(..) => {
                        inputs.push_back(performer.perform(run.journal(), effect).await?);
                    }
                    Effect::Wait => {
                        tokio::select! {
                            _ = news.changed() => {}
                            _ = leading.changed() => {}
                            () = tokio::time::sleep(LOOK) => {}
                        }
                        inputs.push_back(Input::Look);
                    }
                    Effect::StandDown => bail!("another server coordinates"),
                    Effect::Ended => {
                        layers::release(&self.parts.client, &armed.run()).await?;
                        info!(run = armed.run(), "over");
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Nobody replaces the program he runs in, where somebody else can see to it.
    async fn is_for_others(&self, step: &Step, token: Token) -> Result<bool> {
        let own = step.node.as_ref().is_some_and(|node| node.0 == self.parts.name);
        let handed = self.handed.load(Ordering::Relaxed);
        let left_alone = 0 < handed && token.0 == handed + 1;
        if !own || left_alone || !matches!(step.action, Action::Swap { .. }) {
            return Ok(false);
        }
        let survey = Survey::take(&self.parts.client, &*self.parts.agents).await?;
        Ok(1 < survey.inventory(Timestamp::UNIX_EPOCH).servers_ready())
    }

    /// Passes on what was asked and is new to this coordinator.
    async fn wishes(
        &self,
        armed: &Armed,
        asked: &mut VecDeque<(String, Wish)>,
        inputs: &mut VecDeque<Input>,
    ) -> Result<()> {
        for (name, wish) in self.records.wishes(&armed.run()).await? {
            if asked.iter().all(|(known, _)| *known != name) {
                inputs.push_back(Input::Asked(wish.wish.clone()));
                asked.push_back((name, wish));
            }
        }
        Ok(())
    }
}

/// What a run that went back had made the target is what it was before it. None once that is so.
fn as_before(generations: &[Generation], plan: &Plan) -> Option<Generation> {
    let numbered = |number| generations.iter().find(|generation| generation.number == number);
    generations.last()?.without(numbered(plan.from)?, numbered(plan.to)?)
}
