//! What must hold before a node is touched, after it, and while it is watched.
//!
//! Judged from here, by what the API and the node's own port say to others; a node is not the judge of itself. What is wrong
//! with the node itself is told apart from what is wrong elsewhere: only the first is a reason to take its change back.

use base::Chain;
use keeper::{Copies, NodeName, Outcome, Role, Runs};

use super::ports::Parts;
use super::survey::{Survey, Workloads};

/// What the gates look through.
pub struct Gates<'a> {
    pub parts: &'a Parts,
    pub before: &'a Workloads,
}

/// Why a gate is red.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Red {
    /// The node's own change may be the reason.
    Own(String),
    /// Somebody else is not well.
    Elsewhere(String),
}

// === impl Gates ===

impl Gates<'_> {
    /// The node may be touched: everybody is well, and enough servers and copies of the state stay.
    pub async fn hold(&self, node: &NodeName) -> Result<(), Red> {
        let survey = self.survey().await?;
        if let Some(why) = survey.unwell(None).into_iter().next() {
            return Err(Red::Elsewhere(why));
        }
        let inventory = survey.inventory(jiff::Timestamp::UNIX_EPOCH);
        let server = inventory.nodes.get(node).is_some_and(|seen| seen.role == Role::Server);
        if server && 1 < inventory.servers() && inventory.margin() < 1 {
            return Err(Red::Elsewhere(format!(
                "one more server that stops would stop all changes: the margin is {}",
                inventory.margin()
            )));
        }
        self.copies().await?.all_well().map_err(Red::Elsewhere)?;
        let now = self.workloads().await?;
        now.missing(self.before).map_or(Ok(()), |why| Err(Red::Elsewhere(why)))
    }

    /// The node may be touched to bring back what it ran: it may be ill itself, and so may others for the same reason. What
    /// must stay is a majority of the copies of the state.
    pub async fn spare(&self, node: &NodeName) -> Result<(), Red> {
        self.copies().await?.spares(node).map_err(Red::Elsewhere)
    }

    /// The node runs what it shall, and is well; so is everybody else.
    pub async fn platform(&self, node: &NodeName, runs: &Runs) -> Result<(), Red> {
        let survey = self.survey().await?;
        let own = || {
            let seen = survey.nodes.get(node);
            let seen = seen.ok_or_else(|| format!("node {} is not in the cluster any more", node.0))?;
            let report = seen.report.as_ref().map_err(|why| format!("node {} says nothing: {why}", node.0))?;
            if report.running != *runs {
                return Err(format!("node {} runs {}", node.0, told(&report.running)));
            }
            if report.trial.is_some() {
                return Err(format!("node {} has not confirmed what it runs", node.0));
            }
            if seen.ready { Ok(()) } else { Err(format!("node {} is not ready", node.0)) }
        };
        own().map_err(Red::Own)?;
        if let Some(why) = survey.unwell(Some(node)).into_iter().next() {
            return Err(Red::Elsewhere(why));
        }
        self.copies().await?.all_well().map_err(Red::Elsewhere)
    }

    /// What was ready before is ready again.
    pub async fn workload(&self) -> Result<(), Red> {
        let now = self.workloads().await?;
        now.missing(self.before).map_or(Ok(()), |why| Err(Red::Own(why)))
    }

    async fn workloads(&self) -> Result<Workloads, Red> {
        Workloads::take(&self.parts.client).await.map_err(|error| Red::Elsewhere(Chain(&error).to_string()))
    }

    async fn survey(&self) -> Result<Survey, Red> {
        let survey = Survey::take(&self.parts.client, &*self.parts.agents).await;
        survey.map_err(|error| Red::Elsewhere(Chain(&error).to_string()))
    }

    async fn copies(&self) -> Result<Copies, Red> {
        let looked = self.parts.replicas.look().await;
        looked.map_err(|failure| Red::Elsewhere(Chain(failure.as_ref()).to_string()))
    }
}

/// A gate that is red may be green a moment later, until its time is over.
pub fn outcome(gate: Result<(), Red>, late: bool) -> Outcome {
    match gate {
        Ok(()) => Outcome::Good,
        Err(_) if !late => Outcome::NotYet,
        Err(Red::Own(why)) => Outcome::Bad { why },
        Err(Red::Elsewhere(why)) => Outcome::Blocked { why },
    }
}

/// What a node runs, for people. Settings are many: of two that differ, what differs is told elsewhere.
pub fn told(runs: &Runs) -> String {
    let Runs { release, settings } = runs;
    let settings = if settings.is_empty() { "" } else { ", with settings of the cluster file" };
    format!("{} ({}){settings}", release.version, release.program.short())
}

#[cfg(test)]
mod tests {
    use super::{Red, outcome};
    use keeper::Outcome;

    #[test]
    fn only_what_is_the_nodes_own_is_taken_back() {
        let (own, other) = (|| Err(Red::Own("ill".into())), || Err(Red::Elsewhere("ill".into())));
        assert_eq!((outcome(own(), false), outcome(other(), false)), (Outcome::NotYet, Outcome::NotYet));
        assert_eq!(outcome(own(), true), Outcome::Bad { why: "ill".into() });
        assert_eq!(outcome(other(), true), Outcome::Blocked { why: "ill".into() });
        assert_eq!(outcome(Ok(()), true), Outcome::Good);
    }
}
