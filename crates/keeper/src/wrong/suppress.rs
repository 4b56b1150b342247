//! Which finding explains which other: edges as data.

use super::finding::Finding;

/// Where an edge holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Cause and effect are on one node.
    Node,
    /// Wherever they are.
    Anywhere,
}

/// A cause, what it explains, and where.
pub type Edge = (&'static str, Scope, &'static [&'static str]);

/// What a machine that does not work brings with it on that machine.
const OF_A_MACHINE: &[&str] = &[
    "NODE_NOT_READY",
    "NODE_PRESSURE",
    "POD_NOT_READY",
    "QUORUM_AT_RISK",
    "API_DOWN",
    "RUNTIME_DOWN",
    "CLOCK_SKEW",
    "PACKET_LOSS",
    "DRAIN_BLOCKED",
];
/// What a disk that does not take writes brings with it on its machine.
const OF_A_DISK: &[&str] = &[
    "STORE_SLOW_DISK",
    "NODE_PRESSURE",
    "NODE_NOT_READY",
    "API_DOWN",
    "AGENT_HUNG",
    "AGENT_DEAD",
    "RUNTIME_DOWN",
    "CERT_EXPIRING",
    "QUORUM_AT_RISK",
    "DISK_FAILING",
    "POD_NOT_READY",
    "CRASH_LOOP",
];
/// What a control plane that takes no changes brings with it everywhere.
const OF_A_STANDSTILL: &[&str] =
    &["LOOP_FAILING", "LEADER_FLAPPING", "STUCK_FINALIZER", "BACKUP_FAILED", "POD_NOT_READY"];

pub const EDGES: &[Edge] = &[
    ("QUORUM_LOST", Scope::Anywhere, OF_A_STANDSTILL),
    ("QUORUM_LOST", Scope::Anywhere, &["API_DOWN", "NODE_DOWN", "AGENT_HUNG", "AGENT_DEAD", "NODE_NOT_READY"]),
    ("SERVERS_STOPPED", Scope::Anywhere, OF_A_STANDSTILL),
    ("SERVERS_STOPPED", Scope::Anywhere, &["API_DOWN", "NODE_DOWN", "AGENT_HUNG", "AGENT_DEAD", "NODE_NOT_READY"]),
    ("SWITCH_DOWN", Scope::Anywhere, OF_A_STANDSTILL),
    (
        "SWITCH_DOWN",
        Scope::Anywhere,
        &["QUORUM_LOST", "SERVERS_STOPPED", "QUORUM_AT_RISK", "NODE_PARTITIONED", "NODE_DOWN", "NODE_NOT_READY"],
    ),
    (
        "SWITCH_DOWN",
        Scope::Anywhere,
        &["NIC_FLAP", "ONE_WAY_PARTITION", "PATH_CUT", "PACKET_LOSS", "API_DOWN", "UPSTREAM_NAMES_DOWN"],
    ),
    ("NODE_PARTITIONED", Scope::Anywhere, OF_A_STANDSTILL),
    (
        "NODE_PARTITIONED",
        Scope::Anywhere,
        &["QUORUM_LOST", "SERVERS_STOPPED", "QUORUM_AT_RISK", "NODE_DOWN", "NODE_NOT_READY", "API_DOWN"],
    ),
    ("NODE_PARTITIONED", Scope::Anywhere, &["UPSTREAM_NAMES_DOWN", "REGISTRY_DOWN", "ONE_WAY_PARTITION"]),
    ("NODE_PARTITIONED", Scope::Anywhere, &["PATH_CUT", "NIC_FLAP"]),
    ("ONE_WAY_PARTITION", Scope::Anywhere, &["QUORUM_AT_RISK", "LEADER_FLAPPING", "LOOP_FAILING"]),
    ("PATH_CUT", Scope::Anywhere, &["QUORUM_AT_RISK", "LEADER_FLAPPING", "LOOP_FAILING"]),
    ("DISK_FULL", Scope::Node, OF_A_DISK),
    ("DISK_FULL", Scope::Anywhere, OF_A_STANDSTILL),
    ("INODES_FULL", Scope::Node, OF_A_DISK),
    ("DISK_READONLY", Scope::Node, OF_A_DISK),
    ("DISK_READONLY", Scope::Anywhere, OF_A_STANDSTILL),
    ("DISK_HANG", Scope::Node, OF_A_DISK),
    ("DISK_HANG", Scope::Anywhere, OF_A_STANDSTILL),
    (
        "DISK_FAILING",
        Scope::Node,
        &["STORE_SLOW_DISK", "NODE_NOT_READY", "API_DOWN", "STORE_CORRUPT", "QUORUM_AT_RISK"],
    ),
    ("STORE_FULL", Scope::Anywhere, OF_A_STANDSTILL),
    ("STORE_SLOW_DISK", Scope::Anywhere, &["LEADER_FLAPPING", "DEFRAG_STALL"]),
    ("STORE_CORRUPT", Scope::Node, &["QUORUM_AT_RISK", "API_DOWN"]),
    ("CLOCK_JUMP", Scope::Node, &["CLOCK_SKEW", "CERT_EXPIRED", "CERT_EXPIRING", "NODE_NOT_READY"]),
    ("CERT_EXPIRED", Scope::Node, &["CERT_EXPIRING", "NODE_NOT_READY", "AGENT_DEAD", "API_DOWN", "QUORUM_AT_RISK"]),
    ("SERVER_STOPPED", Scope::Node, &["API_DOWN", "AGENT_DEAD", "CERT_EXPIRING", "NODE_NOT_READY", "QUORUM_AT_RISK"]),
    ("API_DOWN", Scope::Anywhere, &["LOOP_FAILING"]),
    ("NODE_DOWN", Scope::Node, OF_A_MACHINE),
    ("AGENT_HUNG", Scope::Node, OF_A_MACHINE),
    ("AGENT_DEAD", Scope::Node, OF_A_MACHINE),
    ("ADDRESS_CHANGED", Scope::Node, &["NODE_DOWN", "NODE_NOT_READY", "QUORUM_AT_RISK", "API_DOWN"]),
    ("RUNTIME_DOWN", Scope::Node, &["NODE_NOT_READY", "POD_NOT_READY", "CRASH_LOOP", "REGISTRY_DOWN", "NODE_PRESSURE"]),
    (
        "RULES_LOST",
        Scope::Node,
        &["NAMES_DOWN", "UPSTREAM_NAMES_DOWN", "POD_NOT_READY", "CRASH_LOOP", "DRIFT_FIREWALL"],
    ),
    ("NAMES_DOWN", Scope::Node, &["UPSTREAM_NAMES_DOWN", "POD_NOT_READY", "CRASH_LOOP"]),
    ("UPSTREAM_NAMES_DOWN", Scope::Node, &["REGISTRY_DOWN"]),
    ("NODE_PRESSURE", Scope::Node, &["NODE_NOT_READY", "POD_NOT_READY"]),
    ("NIC_FLAP", Scope::Node, &["PACKET_LOSS", "NODE_NOT_READY"]),
    ("NIC_FLAP", Scope::Anywhere, &["LEADER_FLAPPING"]),
    ("PACKET_LOSS", Scope::Anywhere, &["LEADER_FLAPPING"]),
    ("CPU_STARVED", Scope::Anywhere, &["LEADER_FLAPPING"]),
    ("CPU_STARVED", Scope::Node, &["STORE_SLOW_DISK"]),
    ("LEADER_FLAPPING", Scope::Anywhere, &["LOOP_FAILING"]),
    ("ALL_RESTARTED", Scope::Anywhere, &["POD_NOT_READY", "NODE_NOT_READY", "CRASH_LOOP", "LEADER_FLAPPING"]),
    ("WEBHOOK_DEAD", Scope::Anywhere, &["LOOP_FAILING"]),
    ("UPGRADE_STUCK", Scope::Anywhere, &["VERSION_SKEW", "DRAIN_BLOCKED"]),
    ("UPGRADE_HALF_DONE", Scope::Anywhere, &["VERSION_SKEW"]),
    ("BACKUP_UNRESTORABLE", Scope::Anywhere, &["BACKUP_FAILED"]),
];

/// A wrong target makes every other finding a finding about the wrong thing.
const ABOVE_ALL: &str = "WRONG_CLUSTER";

/// Whether one finding explains another.
pub fn explains(cause: &Finding, effect: &Finding) -> bool {
    let same_node = cause.node.is_some() && cause.node == effect.node;
    let holds = |(from, scope, effects): &Edge| {
        *from == cause.code.name && effects.contains(&effect.code.name) && (*scope == Scope::Anywhere || same_node)
    };
    (cause.code.name == ABOVE_ALL && effect.code.name != ABOVE_ALL) || EDGES.iter().any(holds)
}

/// What nothing else explains.
pub fn unexplained(findings: Vec<Finding>) -> Vec<Finding> {
    let explained = |effect: &Finding| findings.iter().any(|cause| explains(cause, effect));
    findings.iter().filter(|finding| !explained(finding)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::{EDGES, Scope};
    use crate::wrong::table::ALL;

    #[test]
    fn edges_name_codes_and_never_run_in_a_circle() {
        let known = |name: &str| ALL.iter().any(|code| code.name == name);
        for (from, scope, effects) in EDGES {
            assert!(known(from) && effects.iter().all(|name| known(name)), "{from} {scope:?} {effects:?}");
            assert!(!effects.contains(from), "{from} explains itself");
        }
        for (from, ..) in EDGES {
            let mut reached = vec![*from];
            let mut at = 0;
            while let Some(next) = reached.get(at).copied() {
                for (_, _, effects) in EDGES.iter().filter(|(cause, ..)| *cause == next) {
                    assert!(!effects.contains(from), "{from} explains {next}, which explains {from}");
                    let news: Vec<&str> = effects.iter().filter(|name| !reached.contains(name)).copied().collect();
                    reached.extend(news);
                }
                at += 1;
            }
        }
        assert!(EDGES.iter().any(|(_, scope, _)| *scope == Scope::Node));
    }
}
