//! How the loops are doing: one watched value per loop, for `/readyz?verbose` and `evenkeel status`.

use jiff::Timestamp;
use tokio::sync::watch;

/// One loop, as of its last turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoopStatus {
    pub name: &'static str,
    /// Every stream the loop reads has had its first list.
    pub synced: bool,
    /// This process may act: it holds the lease, and the loop has seen what was done before.
    pub leading: bool,
    /// Keys waiting for a worker, and with one.
    pub waiting: usize,
    pub busy: usize,
    pub turns: u64,
    pub errors: u64,
    /// Keys whose last turn failed, and the last thing that went wrong with one.
    pub failing: usize,
    pub last_error: Option<String>,
    pub last_turn: Option<Timestamp>,
}

/// Reads the status of every loop of a driver. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pub(crate) loops: Vec<watch::Receiver<LoopStatus>>,
}

// === impl LoopStatus ===

impl LoopStatus {
    /// True where nothing is waiting and nothing is wrong.
    pub fn is_idle(&self) -> bool {
        self.synced && self.waiting == 0 && self.busy == 0
    }
}

// === impl Health ===

impl Health {
    pub fn read(&self) -> Vec<LoopStatus> {
        self.loops.iter().map(|status| status.borrow().clone()).collect()
    }

    /// The status of one loop, to be waited on.
    pub fn of(&self, name: &str) -> Option<watch::Receiver<LoopStatus>> {
        self.loops.iter().find(|status| status.borrow().name == name).cloned()
    }

    /// Both drivers' loops in one.
    #[must_use]
    pub fn and(mut self, other: Health) -> Health {
        self.loops.extend(other.loops);
        self
    }
}
