//! Node pressure: what runs short, which conditions the node shows for it, and which pod has to leave.
//!
//! Decisions are pure (`decide`, `rank`, `local`); `monitor` looks at the machine, asks them and does what they say.

pub mod decide;
pub mod local;
pub mod meter;
pub mod monitor;
pub mod rank;
pub mod threshold;
pub mod usage;

pub use threshold::{Threshold, defaults, parse};

/// What a node tells of running short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    Memory,
    Disk,
    Pid,
}

/// What is measured. In the order in which shortages are dealt with: memory kills first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

impl Condition {
    pub const ALL: [Condition; 3] = [Condition::Memory, Condition::Disk, Condition::Pid];

    pub fn name(self) -> &'static str {
        match self {
            Condition::Memory => "MemoryPressure",
            Condition::Disk => "DiskPressure",
            Condition::Pid => "PIDPressure",
        }
    }

    /// The taint that the control plane makes of it.
    pub fn taint(self) -> &'static str {
        match self {
            Condition::Memory => "node.kubernetes.io/memory-pressure",
            Condition::Disk => "node.kubernetes.io/disk-pressure",
            Condition::Pid => "node.kubernetes.io/pid-pressure",
        }
    }
}

impl Signal {
    pub const ALL: [Signal; 6] = [
        Signal::MemoryAvailable,
        Signal::NodeFsAvailable,
        Signal::NodeFsInodesFree,
        Signal::ImageFsAvailable,
        Signal::ImageFsInodesFree,
        Signal::PidAvailable,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory.available",
            Signal::NodeFsAvailable => "nodefs.available",
            Signal::NodeFsInodesFree => "nodefs.inodesFree",
            Signal::ImageFsAvailable => "imagefs.available",
            Signal::ImageFsInodesFree => "imagefs.inodesFree",
            Signal::PidAvailable => "pid.available",
        }
    }

    pub fn condition(self) -> Condition {
        match self {
            Signal::MemoryAvailable => Condition::Memory,
            Signal::PidAvailable => Condition::Pid,
            Signal::NodeFsAvailable
            | Signal::NodeFsInodesFree
            | Signal::ImageFsAvailable
            | Signal::ImageFsInodesFree => Condition::Disk,
        }
    }

    /// The resource, as events and messages name it.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => "ephemeral-storage",
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }

    /// Bytes are written with binary suffixes, counts without.
    pub fn is_bytes(self) -> bool {
        matches!(self, Signal::MemoryAvailable | Signal::NodeFsAvailable | Signal::ImageFsAvailable)
    }
}
