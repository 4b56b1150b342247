//! The table of codes, one file per area. The order of [`ALL`] is the rank among codes of one class: causes before
//! symptoms, the whole before its parts.

pub mod disk;
pub mod drift;
pub mod network;
pub mod node;
pub mod people;
pub mod store;
pub mod time;
pub mod workload;

use super::code::Code;

/// Every code.
pub static ALL: &[&Code] = &[
    &people::WRONG_CLUSTER,
    &people::CONFIG_BAD,
    &store::SERVERS_STOPPED,
    &store::QUORUM_LOST,
    &network::SWITCH_DOWN,
    &network::NODE_PARTITIONED,
    &disk::DISK_READONLY,
    &disk::DISK_HANG,
    &disk::DISK_FULL,
    &disk::INODES_FULL,
    &disk::DISK_FAILING,
    &store::STORE_FULL,
    &store::STORE_CORRUPT,
    &time::CLOCK_JUMP,
    &time::CERT_EXPIRED,
    &node::SERVER_STOPPED,
    &node::API_DOWN,
    &node::NODE_DOWN,
    &node::AGENT_HUNG,
    &node::AGENT_DEAD,
    &node::ADDRESS_CHANGED,
    &node::RUNTIME_DOWN,
    &network::ONE_WAY_PARTITION,
    &network::PATH_CUT,
    &network::VIP_DUPLICATE,
    &network::NAMES_DOWN,
    &network::UPSTREAM_NAMES_DOWN,
    &network::RULES_LOST,
    &network::CONNTRACK_FULL,
    &store::QUORUM_AT_RISK,
    &workload::WEBHOOK_DEAD,
    &workload::VOLUME_STUCK,
    &node::ALL_RESTARTED,
    &node::NODE_NOT_READY,
    &node::NODE_PRESSURE,
    &people::UPGRADE_STUCK,
    &people::UPGRADE_HALF_DONE,
    &store::OLD_MEMBER,
    &node::NODE_IMPOSTOR,
    &store::LEADER_FLAPPING,
    &disk::STORE_SLOW_DISK,
    &network::NIC_FLAP,
    &network::PACKET_LOSS,
    &network::MTU_MISMATCH,
    &time::CLOCK_SKEW,
    &time::CERT_EXPIRING,
    &node::CPU_STARVED,
    &node::LOOP_FAILING,
    &workload::REGISTRY_DOWN,
    &workload::CRASH_AFTER_CHANGE,
    &workload::CRASH_LOOP,
    &workload::DRAIN_BLOCKED,
    &workload::STUCK_FINALIZER,
    &store::BACKUP_UNRESTORABLE,
    &store::BACKUP_FAILED,
    &people::VERSION_SKEW,
    &drift::DRIFT_FIREWALL,
    &drift::DRIFT_CERTIFICATE,
    &drift::DRIFT_SYSCTL,
    &drift::DRIFT_FILE,
    &drift::DRIFT_UNIT,
    &workload::POD_NOT_READY,
    &store::DEFRAG_STALL,
    &time::CA_EXPIRING,
    &store::RESTORED,
    &drift::DRIFT_MANIFEST,
    &people::ONE_ADMINISTRATOR,
];
