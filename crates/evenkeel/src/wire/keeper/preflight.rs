//! What is looked at before a run may be armed: what is asked of whom. What is made of it is decided in
//! [`keeper::preflight`].

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use api::{Gvr, Tree};
use base::Chain;
use keeper::preflight::{self, Budget, Finding};
use keeper::{Generation, Inventory, Plan};
use view::{Client, ListOptions};

use super::gates::told;
use super::ports::Parts;
use super::program::{About, LEVEL};
use super::releases::RESERVE_BYTES;
use super::survey::Survey;
use crate::KUBERNETES_VERSION;

/// What is judged.
pub struct Preflight<'a> {
    pub survey: &'a Survey,
    pub inventory: &'a Inventory,
    pub current: &'a Generation,
    pub plan: &'a Plan,
    pub about: &'a About,
    /// Format of what is stored now.
    pub level: u32,
    pub program_bytes: u64,
}

// === impl Preflight ===

impl Preflight<'_> {
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.survey.unwell(None).into_iter().map(|why| Finding::blocks("NODE_NOT_WELL", why)));
        found.extend(self.drift());
        found.extend(self.disks());
        found.extend(self.levels());
        found.extend(preflight::of_kubernetes(KUBERNETES_VERSION, &self.about.kubernetes));
        let changed = self.plan.steps.iter().filter_map(|step| step.node.as_ref());
        let delicate = changed.filter(|node| self.inventory.nodes.get(node).is_some_and(|seen| seen.delicate));
        let delicate: BTreeSet<&str> = delicate.map(|node| node.0.as_str()).collect();
        found.extend(delicate.into_iter().map(|node| {
            Finding::notes(
                "LOCAL_DATA",
                format!("pods on {node} keep data there; they go on while its program is replaced"),
            )
        }));
        if self.inventory.servers() == 1 {
            let sentence = "there is one server: while it starts again the API does not answer, pods go on";
            found.push(Finding::notes("ONE_SERVER", sentence.to_owned()));
        }
        found
    }

    /// Nodes that run what nobody declared.
    fn drift(&self) -> Vec<Finding> {
        let differs = self.inventory.nodes.iter().filter_map(|(name, seen)| {
            let target = self.current.nodes.get(name)?;
            (target.runs != seen.runs).then(|| {
                let (runs, shall) = (told(&seen.runs), told(&target.runs));
                let what = format!("node {} runs {runs}, and generation {} says {shall}", name.0, self.current.number);
                Finding::notes("DRIFT_PROGRAM", format!("{what}: it was changed by hand, or a run was left half done"))
            })
        });
        differs.collect()
    }

    fn disks(&self) -> Vec<Finding> {
        let wanted = 2 * self.program_bytes + RESERVE_BYTES;
        let mut found = Vec::new();
        for (name, seen) in &self.survey.nodes {
            let Ok(report) = &seen.report else { continue };
            if report.free_bytes < wanted {
                let (free, wanted) = (report.free_bytes >> 20, wanted >> 20);
                found.push(Finding::blocks(
                    "DISK_FULL",
                    format!("node {} has {free} MiB free; {wanted} are needed", name.0),
                ));
            }
            if let Some(why) = &report.fixed {
                found.push(Finding::blocks("PROGRAM_FIXED", format!("node {}: {why}", name.0)));
            }
        }
        found
    }

    fn levels(&self) -> Vec<Finding> {
        let About { version, level, level_min, .. } = self.about;
        if self.level < *level_min || *level < self.level {
            let sentence = format!(
                "what is stored has format {}, and {version} reads {level_min} to {level}: take a release between",
                self.level
            );
            return vec![Finding::blocks("FORMAT", sentence)];
        }
        if LEVEL < *level {
            let sentence = format!("{version} can store in format {level}; that begins with `evenkeel finalise`");
            return vec![Finding::notes("FORMAT_LATER", sentence)];
        }
        Vec::new()
    }
}

/// What the whole cluster says: its machines, the copies of its state, its budgets.
pub async fn of_cluster(parts: &Parts) -> Result<Vec<Finding>> {
    let (seen, copies, budgets) = tokio::join!(parts.machines.look(), parts.replicas.look(), budgets(&parts.client));
    let mut found = seen.context("look at the cluster")?;
    match copies {
        Ok(copies) => found.extend(preflight::of_copies(&copies)),
        Err(failure) => found.push(Finding::blocks("QUORUM_AT_RISK", Chain(failure.as_ref()).to_string())),
    }
    found.extend(preflight::of_budgets(&budgets?));
    Ok(found)
}

async fn budgets(client: &Client) -> Result<Vec<Budget>> {
    let budgets = Gvr::new("policy", "v1", "poddisruptionbudgets");
    let page = client.list(&budgets, &ListOptions::default()).await.context("list the disruption budgets")?;
    let budget = |object: &Tree| {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let count = |field: &str| object["status"][field].as_u64().unwrap_or_default();
        let name = format!("{}/{}", text("namespace"), text("name"));
        Budget { name, pods: count("expectedPods"), needed: count("desiredHealthy") }
    };
    Ok(page.items.iter().map(|item| budget(&item.tree())).collect())
}
