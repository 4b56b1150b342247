//! What must hold before a node is touched, after it, and while it is watched.
//!
//! Judged from here, by what the API and the node's own port say to others; a node is not the judge of itself.

use base::Chain;
use keeper::{NodeName, Outcome, Release, Role};
use view::Client;

use super::agents::Agents;
use super::survey::{Survey, Workloads};

/// What the gates look through.
pub struct Gates<'a> {
    pub client: &'a Client,
    pub agents: &'a Agents,
    pub before: &'a Workloads,
}

// === impl Gates ===

impl Gates<'_> {
    /// The node may be touched: everybody else is well, and enough servers stay.
    pub async fn hold(&self, node: &NodeName) -> Result<(), String> {
        let survey = self.survey().await?;
        if let Some(why) = survey.unwell(None).into_iter().next() {
            return Err(why);
        }
        let inventory = survey.inventory(jiff::Timestamp::UNIX_EPOCH);
        let server = inventory.nodes.get(node).is_some_and(|seen| seen.role == Role::Server);
        if server && 1 < inventory.servers() && inventory.margin() < 1 {
            return Err(format!(
                "one more server that stops would stop all changes: the margin is {}",
                inventory.margin()
            ));
        }
        self.workload().await
    }

    /// The node runs what it shall, and is well; so is everybody else.
    pub async fn platform(&self, node: &NodeName, release: &Release) -> Result<(), String> {
        let survey = self.survey().await?;
        let seen = survey.nodes.get(node).ok_or_else(|| format!("node {} is not in the cluster any more", node.0))?;
        let report = seen.report.as_ref().map_err(|why| format!("node {} says nothing: {why}", node.0))?;
        if report.running != *release {
            return Err(format!("node {} runs {}", node.0, told(&report.running)));
        }
        if report.trial.is_some() {
            return Err(format!("node {} has not confirmed what it runs", node.0));
        }
        survey.unwell(None).into_iter().next().map_or(Ok(()), Err)
    }

    /// What was ready before is ready again.
    pub async fn workload(&self) -> Result<(), String> {
        let now = Workloads::take(self.client).await.map_err(|error| Chain(&error).to_string())?;
        now.missing(self.before).map_or(Ok(()), Err)
    }

    async fn survey(&self) -> Result<Survey, String> {
        Survey::take(self.client, self.agents).await.map_err(|error| Chain(&error).to_string())
    }
}

/// A gate that is red may be green a moment later, until its time is over.
pub fn outcome(gate: Result<(), String>, late: bool) -> Outcome {
    match gate {
        Ok(()) => Outcome::Good,
        Err(why) if late => Outcome::Bad { why },
        Err(_) => Outcome::NotYet,
    }
}

/// A release, for people.
pub fn told(release: &Release) -> String {
    format!("{} ({})", release.version, release.program.short())
}
