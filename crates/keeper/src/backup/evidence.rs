//! What a proof found: one line per check, kept with the bundle and in the cluster.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Proofs that the cluster remembers.
pub const EVIDENCE_MAX: usize = 20;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    Failed,
    /// Nothing in the bundle to try it on.
    Skipped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub name: String,
    pub outcome: Outcome,
    pub said: String,
    pub millis: u64,
}

/// One restore into a scratch control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    pub at: Timestamp,
    /// The server or person who ran it.
    pub by: String,
    pub bundle: String,
    pub passed: bool,
    pub millis: u64,
    pub checks: Vec<Check>,
    /// Packets that the scratch control plane sent or received. None where it did not come to count them.
    pub packets: Option<u64>,
    pub not_covered: Vec<String>,
}

// === impl Evidence ===

impl Evidence {
    /// More that was looked at in the same proof.
    pub fn add(&mut self, checks: Vec<Check>) {
        self.millis += checks.iter().map(|check| check.millis).sum::<u64>();
        self.checks.extend(checks);
        self.passed &= self.failed().is_empty();
    }

    /// The names of the checks that failed.
    pub fn failed(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| check.outcome == Outcome::Failed);
        failed.map(|check| check.name.clone()).collect()
    }
}

/// The names that are beyond the history, oldest first; names end in a time and so sort by it.
pub fn surplus(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    let beyond = names.len().saturating_sub(EVIDENCE_MAX);
    names.truncate(beyond);
    names
}

#[cfg(test)]
mod tests {
    use super::{EVIDENCE_MAX, surplus};

    #[test]
    fn the_oldest_go() {
        let names: Vec<String> = (0..EVIDENCE_MAX + 2).rev().map(|at| format!("evidence-{at:04}")).collect();
        assert_eq!(surplus(names), ["evidence-0000", "evidence-0001"]);
        assert!(surplus(vec!["one".to_owned()]).is_empty());
    }
}
