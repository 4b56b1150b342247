//! The driver of every loop: it says *that* a key is to be looked at, asks the plan, performs it, and looks again.
//!
//! A plan is pure and knows none of this. The driver owns the queue (each key once, one worker per key), fences the next
//! look behind the last write, performs steps with slow start, backs off from errors, records events, and acts only
//! while its process holds the lease. Nothing else in the project loops on errors.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod driver;
mod events;
mod leader;
mod leadership;
mod office;
mod perform;
mod queue;
mod runner;
mod status;

pub use driver::{Decide, Driver, Enqueue, Failed, Loop};
pub use events::{Recorder, RecorderHandle};
pub use leader::{Leader, LeaderConfig};
pub use leadership::{Leadership, Tenure};
pub use queue::Queue;
pub use status::{Health, LoopStatus};
