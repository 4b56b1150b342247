//! Carries the effects of a run out: places in the journal, and verbs of nodes.
//!
//! Nothing here decides what comes next; what a node says is put into one of the few answers that the run understands. How
//! long a step has lasted is taken from the journal, so that it is the same for whoever takes over.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use base::Chain;
use futures::future::join_all;
use keeper::{
    Action, Digest, Draft, Effect, Forecast, Input, Journal, NodeName, Order, Outcome, Phase, Release, Runs, Standing,
    Step, Token, Verdict,
};
use tokio::time::Instant;
use tracing::{debug, info};

use super::gates::{Gates, outcome, told};
use super::ports::{Address, AgentError, Agents, Parts, Piece};
use super::propose::takes;
use super::records::{Armed, Records};
use super::survey::Survey;
use super::{Lines, PIECE_BYTES, RehearseRequest, Report, SwapRequest, windows};

/// Between looks at a node that is becoming another program.
const LOOK: Duration = Duration::from_millis(500);
/// What a sentence in the journal may be long.
const WHY_BYTES_MAX: usize = 2048;
/// Room for every place in a journal.
const ATTEMPT_BITS: u32 = 16;
/// A node goes back by itself before the coordinator calls the step failed.
const TRIAL_MARGIN_SECONDS: u32 = 30;

pub struct Performer<'a> {
    parts: &'a Parts,
    records: &'a Records,
    armed: &'a Armed,
    token: Token,
    forecast: &'a Forecast,
    /// No window was open at the last look: since when one is.
    opened: Option<Instant>,
    addresses: BTreeMap<NodeName, Address>,
    /// Lines of the journal that each node is known to have.
    copied: BTreeMap<NodeName, usize>,
}

/// What a look or a verb came to.
enum Answer {
    Is(Outcome),
    /// Nobody answered: perhaps it will.
    Silent(String),
    Refused,
}

impl From<AgentError> for Answer {
    fn from(error: AgentError) -> Answer {
        match error {
            AgentError::Stale(_) => Answer::Refused,
            AgentError::Silent { .. } => Answer::Silent(Chain(&error).to_string()),
            AgentError::Refused { .. } => Answer::Is(Outcome::Bad { why: error.to_string() }),
        }
    }
}

// === impl Performer ===

impl<'a> Performer<'a> {
    pub fn new(
        parts: &'a Parts,
        records: &'a Records,
        armed: &'a Armed,
        token: Token,
        forecast: &'a Forecast,
    ) -> Performer<'a> {
        let (addresses, copied) = (BTreeMap::new(), BTreeMap::new());
        Performer { parts, records, armed, token, forecast, opened: None, addresses, copied }
    }

    /// Gives a draft its place in the journal: first in the store, then on every disk that can be reached.
    pub async fn append(&mut self, journal: &Journal, draft: Draft, by: Option<&str>) -> Result<Input> {
        let armed = matches!(draft.phase, Phase::Armed { .. }).then_some(self.armed.by.as_str());
        let actor = by.or(armed).unwrap_or(&self.parts.name);
        let draft = Draft { phase: shortened(draft.phase), ..draft };
        let entry = journal.entry(draft, actor, self.token, self.parts.clock.now());
        if !self.records.append(&entry).await? {
            return Ok(Input::Refused);
        }
        info!(entry = entry.sequence, phase = ?entry.phase, step = ?entry.step, node = ?entry.node, "journal");
        let mut whole = journal.clone();
        if whole.accept(entry.clone()).is_ok() {
            self.copy(&whole).await?;
        }
        Ok(Input::Appended(entry))
    }

    /// The journal on every node's disk, as far as nodes answer.
    async fn copy(&mut self, journal: &Journal) -> Result<()> {
        if self.addresses.is_empty() {
            let survey = Survey::take(&self.parts.client, &*self.parts.agents).await?;
            self.addresses = survey.nodes.into_iter().map(|(name, seen)| (name, seen.address)).collect();
        }
        let sequence = journal.entries().len() as u64;
        let order = Order { token: self.token, generation: self.armed.plan.to, sequence };
        let known = |name: &NodeName| self.copied.get(name).copied().unwrap_or_default();
        let copies = self.addresses.iter().map(|(name, address)| {
            let sending = send(&*self.parts.agents, address, order, journal, known(name));
            async move { (name.clone(), sending.await) }
        });
        for (name, copied) in join_all(copies).await {
            match copied {
                Ok(count) => drop(self.copied.insert(name, count)),
                Err(error) => debug!(node = %name.0, error = %Chain(&error), "the journal is not copied"),
            }
        }
        Ok(())
    }

    /// Answers what the run is to be told.
    pub async fn perform(&mut self, journal: &Journal, effect: Effect) -> Result<Input> {
        let (order, step, answer) = match effect {
            Effect::Probe(order, step) => (order, step.clone(), self.probe(journal, order, &step).await?),
            Effect::Apply(order, step) => (order, step.clone(), self.apply(journal, order, &step).await?),
            Effect::Check(order, step) => (order, step.clone(), self.check(journal, order, &step).await?),
            Effect::Undo(order, step) => (order, step.clone(), self.undo(journal, order, &step).await?),
            Effect::Append(_) | Effect::Wait | Effect::StandDown | Effect::Ended => anyhow::bail!("no verb of a node"),
        };
        debug!(step = step.id.0, token = order.token.0, "performed");
        Ok(match answer {
            Answer::Is(answer) => Input::Answer { step: step.id, answer },
            Answer::Refused => Input::Refused,
            Answer::Silent(why) if self.late(journal, &step) => {
                Input::Answer { step: step.id, answer: Outcome::Bad { why } }
            }
            Answer::Silent(why) => {
                debug!(%why, "not yet");
                // Who moved has another address.
                self.addresses.clear();
                Input::Answer { step: step.id, answer: Outcome::NotYet }
            }
        })
    }

    async fn probe(&mut self, journal: &Journal, order: Order, step: &Step) -> Result<Answer> {
        let there = |there| Answer::Is(if there { Outcome::Present } else { Outcome::Absent });
        Ok(match &step.action {
            Action::Stage { release } => match self.report(order, step).await? {
                Ok(report) => there(report.staged.contains(release)),
                Err(answer) => answer,
            },
            Action::Swap { to, .. } => match self.settled(order, step, None).await? {
                Ok(report) if report.running == *to => there(true),
                Ok(report) => match fell(&report, attempt(order.generation, journal, step)) {
                    Some(why) if !returning(self.armed, journal) => Answer::Is(Outcome::Bad { why }),
                    _ => there(false),
                },
                Err(answer) => answer,
            },
            Action::Backup => there(self.records.saved(&self.armed.run()).await?.is_some()),
            Action::Finalise { level } => there(*level <= self.records.level().await?),
            Action::Rehearse { .. }
            | Action::HoldCheck
            | Action::VerifyPlatform
            | Action::VerifyWorkload
            | Action::Bake { .. } => there(false),
        })
    }

    async fn apply(&mut self, journal: &Journal, order: Order, step: &Step) -> Result<Answer> {
        Ok(match &step.action {
            Action::Stage { release } => self.stage(order, step, release).await?,
            Action::Swap { to, .. } => match self.held(journal, step).await {
                Outcome::Good => self.swap(journal, order, step, to).await?,
                judged => Answer::Is(judged),
            },
            Action::Backup => match self.parts.backup.save(&self.armed.run()).await {
                Ok(saved) => {
                    self.records.note_saved(&self.armed.run(), &saved).await?;
                    Answer::Is(Outcome::Good)
                }
                Err(failure) => Answer::Is(Outcome::Bad { why: format!("no backup could be made: {failure:#}") }),
            },
            Action::Finalise { level } => {
                self.records.raise_level(*level).await?;
                Answer::Is(Outcome::Good)
            }
            Action::Rehearse { .. }
            | Action::HoldCheck
            | Action::VerifyPlatform
            | Action::VerifyWorkload
            | Action::Bake { .. } => Answer::Is(Outcome::Good),
        })
    }

    async fn check(&mut self, journal: &Journal, order: Order, step: &Step) -> Result<Answer> {
        let (node, is_late) = (step.node.clone(), self.late(journal, step));
        let judged = match (&step.action, &node) {
            (Action::Rehearse { runs }, Some(_)) => return self.rehearse(step, runs).await,
            (Action::HoldCheck, Some(node)) => match self.window(node).await? {
                Verdict::Open => {
                    // The time in which none was open is not the step's.
                    let opened = self.opened.map_or(u64::MAX, |at| at.elapsed().as_secs());
                    let gates = self.gates();
                    outcome(gates.hold(node).await, is_late && u64::from(step.deadline_seconds) < opened)
                }
                Verdict::Later(_) => {
                    self.opened = Some(Instant::now());
                    Outcome::NotYet
                }
                verdict @ Verdict::Never => Outcome::Blocked { why: format!("{verdict} for node {}", node.0) },
            },
            (Action::VerifyPlatform, Some(node)) => {
                outcome(self.gates().platform(node, &self.target(node)).await, is_late)
            }
            (Action::VerifyWorkload, Some(_)) => outcome(self.gates().workload().await, is_late),
            (Action::Bake { seconds }, Some(node)) => {
                let gates = self.gates();
                let gate = match gates.platform(node, &self.target(node)).await {
                    Ok(()) => gates.workload().await,
                    red => red,
                };
                match outcome(gate, is_late) {
                    Outcome::Good if self.elapsed(journal) < u64::from(*seconds) => Outcome::NotYet,
                    judged => judged,
                }
            }
            _ => {
                return Ok(match self.probe(journal, order, step).await? {
                    Answer::Is(Outcome::Present) => Answer::Is(Outcome::Good),
                    Answer::Is(Outcome::Absent) => Answer::Is(Outcome::Bad { why: "it is not there".to_owned() }),
                    answer => answer,
                });
            }
        };
        Ok(Answer::Is(judged))
    }

    /// Whether the node may be begun now, by the windows that were declared.
    async fn window(&self, node: &NodeName) -> Result<Verdict> {
        if self.armed.now.is_some() {
            return Ok(Verdict::Open);
        }
        let windows = windows::declared(&self.parts.client).await?;
        Ok(windows.allow(self.parts.clock.now(), takes(self.forecast, node)))
    }

    /// Seconds since something was written: what is done now began then.
    fn elapsed(&self, journal: &Journal) -> u64 {
        let last = journal.entries().last().map(|entry| entry.at);
        let seconds = last.map(|at| self.parts.clock.now().duration_since(at).as_secs()).unwrap_or_default();
        u64::try_from(seconds).unwrap_or_default()
    }

    fn late(&self, journal: &Journal, step: &Step) -> bool {
        u64::from(step.deadline_seconds) < self.elapsed(journal)
    }

    fn gates(&self) -> Gates<'_> {
        Gates { parts: self.parts, before: &self.armed.before }
    }

    /// Looks once more, in the last moment: since the step that looked, the lease may have changed hands because a server
    /// was lost.
    async fn held(&self, journal: &Journal, step: &Step) -> Outcome {
        match &step.node {
            Some(node) => outcome(self.gates().hold(node).await, self.late(journal, step)),
            None => Outcome::Good,
        }
    }

    async fn undo(&mut self, journal: &Journal, order: Order, step: &Step) -> Result<Answer> {
        let Action::Swap { from, .. } = &step.action else { return Ok(Answer::Is(Outcome::Good)) };
        if let Some(node) = &step.node
            && let Err(red) = self.gates().spare(node).await
        {
            return Ok(Answer::Is(outcome(Err(red), self.late(journal, step))));
        }
        match self.report(order, step).await? {
            // A machine that was replaced since has only what it was installed with.
            Ok(report) if report.running != *from && !report.staged.contains(&from.release) => {
                match self.stage(order, step, &from.release).await? {
                    Answer::Is(Outcome::Good) => {}
                    answer => return Ok(answer),
                }
            }
            Ok(_) => {}
            Err(answer) => return Ok(answer),
        }
        self.swap(journal, order, step, from).await
    }

    /// Whether the node's program, which lies there by now, would start with its settings.
    async fn rehearse(&mut self, step: &Step, runs: &Runs) -> Result<Answer> {
        let Some(address) = self.address(step).await? else { return Ok(gone(step)) };
        let request = RehearseRequest { program: Some(runs.release.program.clone()), settings: runs.settings.clone() };
        let asked = self.parts.agents.rehearse(&address, &request).await;
        Ok(asked.map_or_else(Answer::from, |()| Answer::Is(Outcome::Good)))
    }

    /// What the node shall run, as the plan says.
    fn target(&self, node: &NodeName) -> Runs {
        let swap = self.armed.plan.steps.iter().find_map(|step| match &step.action {
            Action::Swap { to, .. } if step.node.as_ref() == Some(node) => Some(to.clone()),
            _ => None,
        });
        swap.expect("a plan verifies the nodes that it swaps")
    }

    /// Has the node become `to`, on trial, and waits for what comes of it.
    async fn swap(&mut self, journal: &Journal, order: Order, step: &Step, to: &Runs) -> Result<Answer> {
        let Some(address) = self.address(step).await? else { return Ok(gone(step)) };
        let lines = send(&*self.parts.agents, &address, order, journal, 0).await;
        if let Err(error) = lines {
            return Ok(error.into());
        }
        let attempt = attempt(order.generation, journal, step);
        let seconds = step.deadline_seconds.saturating_sub(TRIAL_MARGIN_SECONDS).max(TRIAL_MARGIN_SECONDS);
        let request = SwapRequest { to: to.clone(), attempt, seconds };
        if let Err(error) = self.parts.agents.swap(&address, order, &request).await {
            return Ok(error.into());
        }
        Ok(match self.settled(order, step, Some(to)).await? {
            Ok(report) if report.running == *to => Answer::Is(Outcome::Good),
            Ok(report) => {
                let why = fell(&report, attempt).unwrap_or_else(|| format!("it still runs {}", told(&report.running)));
                Answer::Is(Outcome::Bad { why })
            }
            Err(answer) => answer,
        })
    }

    /// The node's report once no trial is open, and what was wished for runs or fell; the last one when time is over.
    async fn settled(&mut self, order: Order, step: &Step, wanted: Option<&Runs>) -> Result<Result<Report, Answer>> {
        let deadline = Instant::now() + Duration::from_secs(u64::from(step.deadline_seconds));
        loop {
            let report = self.report(order, step).await?;
            let over = deadline <= Instant::now();
            match report {
                Ok(report) if report.trial.is_none() => return Ok(Ok(report)),
                Ok(_) if over => {
                    let why = "the node has not settled on what it runs in time".to_owned();
                    return Ok(Err(Answer::Is(Outcome::Bad { why })));
                }
                Err(Answer::Silent(why)) if over => return Ok(Err(Answer::Is(Outcome::Bad { why }))),
                // It drains, or starts.
                Ok(_) => {}
                Err(Answer::Silent(_)) if wanted.is_some() => {}
                Err(answer) => return Ok(Err(answer)),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Brings the program to the node: from this machine, or over it from a node that has it.
    async fn stage(&mut self, order: Order, step: &Step, release: &Release) -> Result<Answer> {
        let program = &release.program;
        if let Err(failure) = self.fetch(program).await {
            let why = format!("no server has the program any more: {failure:#}");
            return Ok(Answer::Is(Outcome::Bad { why }));
        }
        let Some(address) = self.address(step).await? else { return Ok(gone(step)) };
        let size = self.parts.programs.size(program)?;
        let mut offset = 0;
        loop {
            let bytes = self.parts.programs.piece(program, offset)?;
            let piece = Piece { program: program.clone(), size, offset, bytes };
            let sent = self.parts.agents.put_piece(&address, order, piece).await;
            match sent {
                Ok(received) if received.about.is_some() => return Ok(Answer::Is(Outcome::Good)),
                Ok(received) if received.bytes == offset => {
                    let why = format!("it takes no more than {offset} bytes of the program");
                    return Ok(Answer::Is(Outcome::Bad { why }));
                }
                Ok(received) => offset = received.bytes,
                Err(error) => return Ok(error.into()),
            }
        }
    }

    /// Has the program lie on this machine.
    async fn fetch(&self, program: &Digest) -> Result<()> {
        if self.parts.programs.lies_here(program).is_some() {
            return Ok(());
        }
        let survey = Survey::take(&self.parts.client, &*self.parts.agents).await?;
        let has = |report: &Report| report.staged.iter().any(|release| release.program == *program);
        let source = survey.nodes.values().find(|seen| seen.report.as_ref().is_ok_and(has));
        let address = &source.ok_or_else(|| anyhow::anyhow!("it lies on no node that answers"))?.address;
        let mut offset = 0;
        loop {
            let bytes = self.parts.agents.piece(address, program, offset).await?;
            let end = offset + bytes.len() as u64;
            // Its size is known with the last piece, which is a short one.
            let size = if bytes.len() < PIECE_BYTES { end } else { end + 1 };
            let received =
                self.parts.programs.receive(&Piece { program: program.clone(), size, offset, bytes }).await?;
            if received.about.is_some() {
                return Ok(());
            }
            anyhow::ensure!(offset < received.bytes, "it is not whole on node {}", address.node);
            offset = received.bytes;
        }
    }

    async fn report(&mut self, order: Order, step: &Step) -> Result<Result<Report, Answer>> {
        let Some(address) = self.address(step).await? else { return Ok(Err(gone(step))) };
        Ok(self.parts.agents.report(&address, Some(order)).await.map_err(Answer::from))
    }

    async fn address(&mut self, step: &Step) -> Result<Option<Address>> {
        let Some(node) = &step.node else { return Ok(None) };
        if !self.addresses.contains_key(node) {
            let survey = Survey::take(&self.parts.client, &*self.parts.agents).await?;
            self.addresses = survey.nodes.into_iter().map(|(name, seen)| (name, seen.address)).collect();
        }
        Ok(self.addresses.get(node).cloned())
    }
}

/// Sends what a node lacks of the journal; it says how many lines it has.
async fn send(
    agents: &dyn Agents,
    address: &Address,
    order: Order,
    journal: &Journal,
    known: usize,
) -> Result<usize, AgentError> {
    let lines = |after: usize| Lines {
        run: journal.run().to_owned(),
        after,
        text: journal.entries().iter().skip(after).map(keeper::Entry::line).collect(),
    };
    let have = agents.journal(address, order, &lines(known)).await?;
    if have < journal.entries().len() { agents.journal(address, order, &lines(have)).await } else { Ok(have) }
}

fn gone(step: &Step) -> Answer {
    let node = step.node.as_ref().map(|node| node.0.as_str()).unwrap_or_default();
    Answer::Silent(format!("node {node} is not in the cluster"))
}

/// What fell back is not tried again for the same intention, or the same wish to go back. Unlike that of any other run.
fn attempt(generation: u64, journal: &Journal, step: &Step) -> u64 {
    let counts = |entry: &&keeper::Entry| match entry.phase {
        Phase::Intend => entry.step == Some(step.id),
        Phase::Back { .. } | Phase::Resumed => true,
        _ => false,
    };
    let sequence = journal.entries().iter().filter(counts).map(|entry| entry.sequence).max().unwrap_or_default();
    generation << ATTEMPT_BITS | sequence
}

fn fell(report: &Report, attempt: u64) -> Option<String> {
    let fell = report.fell.as_ref().filter(|fell| fell.attempt == attempt)?;
    Some(format!("the node went back to what ran before: {}", fell.why))
}

fn returning(armed: &Armed, journal: &Journal) -> bool {
    matches!(Standing::of(&armed.plan, journal), Standing::Returning { .. })
}

/// A sentence that fits into an entry.
fn shortened(phase: Phase) -> Phase {
    let cut = |mut why: String| {
        let end = (0..=WHY_BYTES_MAX.min(why.len())).rev().find(|at| why.is_char_boundary(*at)).unwrap_or_default();
        why.truncate(end);
        why
    };
    match phase {
        Phase::Failed { why } => Phase::Failed { why: cut(why) },
        Phase::Paused { why } => Phase::Paused { why: cut(why) },
        Phase::Back { why } => Phase::Back { why: cut(why) },
        Phase::Stuck { why } => Phase::Stuck { why: cut(why) },
        phase => phase,
    }
}
