//! A process that outlives the agent: started once, adopted ever after, watched, stopped on request only.
//!
//! It runs in a session and a cgroup of its own, without a parent-death signal, its output in a file. A starting agent
//! finds it again by what the last one wrote down (pid and start time) and only starts one where there is none. What is
//! particular about a kind of child (its settings, when it is well, how one takes over from another) is a [`Kind`];
//! containerd is one, and whoever puts a node together brings others.

mod cgroup;
mod process;
mod record;
mod supervise;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use process::{StartError, StopError, end_unrecorded, stop};
pub use record::{edition, end_for_another, running};
pub use supervise::{Status, Supervised};

pub use crate::sys::{Identity, Process};

/// Longest wait from the start of a child until it is well.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time a child gets to end before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Size at which a log is put aside; one old file is kept.
pub const LOG_BYTES_MAX: u64 = 32 << 20;
/// How often the log of a running child is looked at.
pub const LOG_LOOK: Duration = Duration::from_secs(600);
/// How often a running child is asked whether it still answers.
pub const ASK_EVERY: Duration = Duration::from_secs(15);
/// How often in a row it may stay silent: long enough for people to see it, short enough that nobody need do anything.
pub const SILENCES_MAX: u32 = 3;

/// How a child is started. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its folder is put first in the child's search path, so that programs beside it go with it.
    pub program: PathBuf,
    /// Seen by everybody on the machine: no secrets.
    pub arguments: Vec<OsString>,
    /// Made before the start.
    pub folders: Vec<PathBuf>,
    /// Written before the start, readable by nobody else. A running child that was started with others is replaced.
    pub files: Vec<(PathBuf, String)>,
    /// What else a running child must have been started with to stay.
    pub edition: String,
    /// Its output.
    pub log: PathBuf,
    /// The last part of the cgroup it is moved to; unique per instance of ours on one machine.
    pub cgroup: String,
}

/// A child that runs, and what it was started as.
#[derive(Debug)]
pub struct Known {
    pub process: Process,
    pub edition: String,
}

/// How a child makes room for the one that replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Both would want the same files or ports: it ends first.
    AfterEnd,
    /// It goes on until the new one is well, and stays where that does not come about.
    Beside,
}

/// What is particular about one kind of child.
pub trait Kind: Send + Sync + 'static {
    /// For people, in logs and errors.
    fn name(&self) -> &'static str;

    /// Where it is written down which process it is.
    fn record(&self) -> PathBuf;

    fn replacement(&self) -> Replacement {
        Replacement::AfterEnd
    }

    /// What the child is to be started as; asked before every start.
    fn wanted(&self) -> impl Future<Output = Result<Spec, Box<dyn Error + Send + Sync>>> + Send;

    /// The process of a child that no record tells of.
    fn stray(&self) -> impl Future<Output = Option<u32>> + Send {
        async { None }
    }

    /// How long one that was found may take until it is well: it has been before. One that does not is replaced.
    fn found_timeout(&self) -> Duration {
        READY_TIMEOUT
    }

    fn ask_every(&self) -> Duration {
        ASK_EVERY
    }

    /// Whether a child that was well still answers, for those that can tell. Bounded by the kind: a process that exists
    /// is not always one that works.
    fn answers(&self, _child: &Known) -> impl Future<Output = bool> + Send {
        async { true }
    }

    /// Returns when the child, started or found, is well. `before` goes on until then. The wait is bounded outside.
    fn ready(&self, child: &Known, before: Option<&Known>) -> impl Future<Output = ()> + Send;
}
