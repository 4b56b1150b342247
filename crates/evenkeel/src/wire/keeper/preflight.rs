//! What is looked at before a run may be armed. Each finding has a code, says what is the case, and blocks or not.

use std::collections::BTreeSet;

use keeper::{Generation, Inventory, Plan};
use serde::{Deserialize, Serialize};

use super::gates::told;
use super::program::{About, LEVEL};
use super::releases::RESERVE_BYTES;
use super::survey::Survey;

/// Something that was found, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub code: String,
    pub blocks: bool,
    pub sentence: String,
}

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
        found.extend(self.survey.unwell(None).into_iter().map(|why| blocks("NODE_NOT_WELL", why)));
        found.extend(self.drift());
        found.extend(self.disks());
        found.extend(self.levels());
        let changed = self.plan.steps.iter().filter_map(|step| step.node.as_ref());
        let delicate = changed.filter(|node| self.inventory.nodes.get(node).is_some_and(|seen| seen.delicate));
        let delicate: BTreeSet<&str> = delicate.map(|node| node.0.as_str()).collect();
        found.extend(delicate.into_iter().map(|node| {
            notes("LOCAL_DATA", format!("pods on {node} keep data there; they go on while its program is replaced"))
        }));
        if self.inventory.servers() == 1 {
            let sentence = "there is one server: while it starts again the API does not answer, pods go on";
            found.push(notes("ONE_SERVER", sentence.to_owned()));
        }
        found
    }

    /// Nodes that run what nobody declared.
    fn drift(&self) -> Vec<Finding> {
        let differs = self.inventory.nodes.iter().filter_map(|(name, seen)| {
            let target = self.current.nodes.get(name)?;
            (target.release != seen.release).then(|| {
                let (runs, shall) = (told(&seen.release), told(&target.release));
                let what = format!("node {} runs {runs}, and generation {} says {shall}", name.0, self.current.number);
                notes("DRIFT_PROGRAM", format!("{what}: it was changed by hand, or a run was left half done"))
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
                found.push(blocks("DISK_FULL", format!("node {} has {free} MiB free; {wanted} are needed", name.0)));
            }
            if let Some(why) = &report.fixed {
                found.push(blocks("PROGRAM_FIXED", format!("node {}: {why}", name.0)));
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
            return vec![blocks("FORMAT", sentence)];
        }
        if LEVEL < *level {
            let sentence = format!("{version} can store in format {level}; that begins with `evenkeel finalise`");
            return vec![notes("FORMAT_LATER", sentence)];
        }
        Vec::new()
    }
}

fn blocks(code: &str, sentence: String) -> Finding {
    Finding { code: code.to_owned(), blocks: true, sentence }
}

fn notes(code: &str, sentence: String) -> Finding {
    Finding { code: code.to_owned(), blocks: false, sentence }
}
