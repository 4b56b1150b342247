//! From what somebody wishes to a plan with all that stands in its way, and from the plan that was shown to an armed run.

use admit::User;
use anyhow::{Context, Result};
use base::Chain;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use keeper::preflight::{self, Finding};
use keeper::{
    Action, Claim, Digest, Forecast, Generation, Goal, Journal, Layer, Manifest, NodeName, NodeTarget, Pace, Plan,
    ProposeError, Release, Role, Runs, Seconds, Standing, Verdict,
};

use super::api::{Keeper, Proposal, Refusal, Shown, earlier, finalised};
use super::preflight::{Preflight, of_cluster};
use super::program::About;
use super::records::{Armed, Records};
use super::survey::{Survey, Workloads};
use super::trust::Keys;
use super::{RehearseRequest, layers, windows};

/// A run's claim on its layer, by the name of the run.
pub const RUN: &str = "run-";

/// The generation that is wished for, and the program that it brings, if it is one.
struct Target {
    to: Generation,
    program: Option<Program>,
    /// What is to be known about it.
    findings: Vec<Finding>,
}

struct Program {
    release: Release,
    about: About,
    bytes: u64,
    signer: Option<String>,
}

// === impl Keeper ===

impl Keeper {
    pub(super) async fn plan(&self, proposal: &Proposal) -> Result<Shown, Refusal> {
        self.no_other().await?;
        let (survey, generations) = (self.survey().await?, self.records.generations().await?);
        let level = self.records.level().await?;
        let current = generations.last().cloned();
        let current = current.context("the keeper has not looked at this cluster yet; try again in a moment")?;
        let inventory = survey.inventory(self.parts.clock.now());
        let Target { to, program, mut findings } = self.target(&proposal.goal, &current, &generations, level).await?;
        let pace = proposal.bake_seconds.map_or_else(Pace::default, Pace::even);
        let plan = Plan::new(&current, &to, &inventory, pace).map_err(|error| Refusal::Guard(error.to_string()))?;
        let forecast = forecast(&self.records, &plan).await?;
        if let Some(Program { about, bytes, signer, .. }) = &program {
            let (survey, current) = (&survey, &current);
            let program_bytes = *bytes;
            let preflight =
                Preflight { survey, inventory: &inventory, current, plan: &plan, about, level, program_bytes };
            findings.extend(preflight.findings());
            findings.extend(of_cluster(&self.parts).await?);
            if signer.is_none() {
                let sentence =
                    "nobody vouches for this program, because no release key is trusted: evenkeel release trust";
                findings.push(Finding::notes("UNSIGNED", sentence));
            }
        }
        findings.extend(self.rehearsed(&survey, &plan).await);
        findings.extend(self.layer().await?);
        findings.extend(self.window(proposal, &plan, &forecast).await?);
        preflight::waive(&mut findings, &proposal.waived);
        let (head, name) = (self.head(&survey), plan.digest());
        let (about, signer) = program.map_or((None, None), |program| (Some(program.about), program.signer));
        Ok(Shown { head, from: current, to, plan, name, forecast, findings, about, signer })
    }

    async fn target(
        &self,
        goal: &Goal,
        current: &Generation,
        generations: &[Generation],
        level: u32,
    ) -> Result<Target, Refusal> {
        match goal {
            Goal::Upgrade { program, manifest } => {
                let program = self.program(program, manifest.as_ref()).await?;
                let target = |target: &NodeTarget| {
                    let runs = Runs { release: program.release.clone(), settings: target.runs.settings.clone() };
                    NodeTarget { role: target.role, runs }
                };
                let nodes = current.nodes.iter().map(|(name, node)| (name.clone(), target(node))).collect();
                let to = Generation { nodes, ..current.child() };
                Ok(Target { to, program: Some(program), findings: Vec::new() })
            }
            Goal::Apply { declared, program, manifest } => {
                let program = match program {
                    Some(program) => Some(self.program(program, manifest.as_ref()).await?),
                    None => None,
                };
                let nodes = declared.nodes(current, program.as_ref().map(|program| &program.release));
                let nodes = nodes.map_err(|error| Refusal::Guard(error.to_string()))?;
                let findings = declared.missing(current).map(|(name, role)| not_joined(name, role)).collect();
                Ok(Target { to: Generation { nodes, ..current.child() }, program, findings })
            }
            Goal::Back => {
                let newest = self.newest().await?;
                let earlier = earlier(generations, newest.as_ref(), level)?;
                let to = Generation { nodes: earlier.nodes.clone(), ..current.child() };
                Ok(Target { to, program: None, findings: Vec::new() })
            }
            Goal::Finalise => Ok(Target { to: finalised(current, level)?, program: None, findings: Vec::new() }),
        }
    }

    /// A program that has arrived here, once somebody whom the cluster trusts vouches for it.
    async fn program(&self, program: &Digest, manifest: Option<&Manifest>) -> Result<Program, Refusal> {
        let programs = &self.parts.programs;
        let release = programs.lies_here(program).context("the program has not arrived whole")?;
        let about = programs.about(program).await?;
        let keys = Keys::read(&self.parts.client).await?;
        let checked = keys.check(manifest, program, &about.version);
        let signer = checked.map_err(|error| Refusal::Guard(error.to_string()))?;
        Ok(Program { release, about, bytes: programs.size(program)?, signer })
    }

    /// Nodes whose program would not start with what it is to be told. A program that is yet to come is asked once it is
    /// there.
    async fn rehearsed(&self, survey: &Survey, plan: &Plan) -> Vec<Finding> {
        let swaps = plan.steps.iter().filter_map(|step| match (&step.node, &step.action) {
            (Some(node), Action::Swap { from, to }) if from.release == to.release => Some((node, &to.settings)),
            _ => None,
        });
        let asked = swaps.filter(|(_, settings)| !settings.is_empty()).map(|(node, settings)| async move {
            let seen = survey.nodes.get(node)?;
            let request = RehearseRequest { program: None, settings: settings.clone() };
            let refused = self.parts.agents.rehearse(&seen.address, &request).await.err()?;
            Some(Finding::blocks("SETTINGS", format!("node {}", Chain(&refused))))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Whoever is at another layer comes first. What a run left that is over is nobody's.
    async fn layer(&self) -> Result<Option<Finding>> {
        let held =
            layers::held(&self.parts.client, self.parts.clock.now()).await?.filter(|held| !held.work.starts_with(RUN));
        Ok(held.map(|held| Finding::blocks("LAYER", keeper::Held { held }.to_string())))
    }

    /// When the first node could be begun.
    async fn window(&self, proposal: &Proposal, plan: &Plan, forecast: &Forecast) -> Result<Option<Finding>> {
        let windows = windows::declared(&self.parts.client).await?;
        let first = plan.steps.iter().find(|step| step.action == Action::HoldCheck);
        let Some(node) = first.and_then(|step| step.node.as_ref()) else { return Ok(None) };
        let verdict = windows.allow(self.parts.clock.now(), takes(forecast, node));
        Ok(match (&verdict, &proposal.now) {
            (Verdict::Open, _) => None,
            (_, Some(why)) => Some(Finding::notes("WINDOW", format!("it begins at once ({why}), though {verdict}"))),
            (Verdict::Later(_), None) => {
                let sentence = format!("no node is begun before {verdict}; --now REASON begins at once");
                Some(Finding::notes("WINDOW", sentence))
            }
            (Verdict::Never, None) => {
                Some(Finding::blocks("WINDOW", format!("{verdict} for node {}; --now REASON begins at once", node.0)))
            }
        })
    }

    /// What an armed run waits for that no person is asked about.
    pub(super) async fn waits(&self, armed: &Armed, journal: &Journal) -> Result<Option<String>> {
        let Standing::Running { step: Some(step), .. } = Standing::of(&armed.plan, journal) else { return Ok(None) };
        let step = armed.plan.step(step).filter(|step| step.action == Action::HoldCheck);
        let Some(node) = step.and_then(|step| step.node.as_ref()) else { return Ok(None) };
        if armed.now.is_some() {
            return Ok(None);
        }
        let forecast = forecast(&self.records, &armed.plan).await?;
        let verdict =
            windows::declared(&self.parts.client).await?.allow(self.parts.clock.now(), takes(&forecast, node));
        Ok((verdict != Verdict::Open).then(|| format!("node {} is not begun yet: {verdict}", node.0)))
    }

    pub(super) async fn arm(&self, proposal: &Proposal, user: &User) -> Result<Shown, Refusal> {
        let shown = self.plan(proposal).await?;
        if proposal.shown.as_ref().is_some_and(|name| *name != shown.name) {
            let why = "the cluster is not what it was when the plan was shown; look at the plan again";
            return Err(Refusal::Guard(why.to_owned()));
        }
        if let Some(finding) = shown.findings.iter().find(|finding| finding.blocks) {
            return Err(Refusal::Guard(format!("{}: {}", finding.code, finding.sentence)));
        }
        if shown.plan.steps.is_empty() {
            return Ok(shown);
        }
        shown.to.follows(Some(&shown.from)).map_err(|error: ProposeError| Refusal::Guard(error.to_string()))?;
        let before = Workloads::take(&self.parts.client).await.context("look at the workloads")?;
        let by = format!("{} ({})", proposal.by, user.name);
        self.claim(&shown, &by).await?;
        let (waived, now) = (proposal.waived.clone(), proposal.now.clone());
        let armed = Armed { plan: shown.plan.clone(), by, at: self.parts.clock.now(), before, waived, now };
        if !self.records.arm(&shown.to, &armed).await.context("arm the run")? {
            self.no_other().await?;
            let error = ProposeError::Overtaken { proposed: shown.to.number, current: shown.to.number };
            return Err(Refusal::Guard(error.to_string()));
        }
        Ok(shown)
    }

    /// One layer at a time: from here on others are told of this run.
    async fn claim(&self, shown: &Shown, by: &str) -> Result<(), Refusal> {
        let (client, now) = (&self.parts.client, self.parts.clock.now());
        if let Some(held) = layers::held(client, now).await?.filter(|held| held.work.starts_with(RUN)) {
            layers::release(client, &held.work).await?;
        }
        let claim = claim(&format!("{RUN}{}", shown.to.number), by, now, &shown.forecast);
        layers::claim(client, &claim, now).await?.map_err(|held| Refusal::Guard(held.to_string()))
    }
}

fn not_joined(name: &NodeName, role: Role) -> Finding {
    let (node, role) = (&name.0, role.word());
    let how = format!("evenkeel {role} --server URL --token TOKEN, with a token of `evenkeel token create`");
    Finding::notes("NOT_JOINED", format!("node {node} is declared and has not joined: there, {how}; then apply again"))
}

/// A run's claim: what it changes is the control plane.
pub fn claim(run: &str, by: &str, now: Timestamp, forecast: &Forecast) -> Claim {
    let expected = now.checked_add(span(forecast.whole.p95)).ok();
    Claim { expected, ..Claim::new(Layer::ControlPlane, run, by, now) }
}

/// How long a plan takes, by what the same steps took here.
pub async fn forecast(records: &Records, plan: &Plan) -> Result<Forecast> {
    let mut history = Vec::new();
    for armed in records.runs().await? {
        let journal = records.journal(&armed).await?;
        history.push((armed.plan, journal));
    }
    Ok(Forecast::of(plan, history.iter().map(|(plan, journal)| (plan, journal))))
}

/// What a node's own part takes at worst, with the way back.
pub fn takes(forecast: &Forecast, node: &NodeName) -> SignedDuration {
    let Seconds { p95, .. } = forecast.nodes.get(node).copied().unwrap_or_default();
    span(p95)
}

fn span(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
}
