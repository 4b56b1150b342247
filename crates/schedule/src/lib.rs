//! Which node a pod runs on: queue, filter, score, preempt, bind. Pure: knows no clock, no client, no task.
//!
//! The scheduler keeps compact rows of nodes and pods of its own, brought up to date from the snapshot at each plan, and
//! remembers the bindings it has asked for until they are seen.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod cache;
mod filter;
mod message;
mod preempt;
mod queue;
mod row;
mod rules;
mod scheduler;
mod score;
mod volumes;

#[cfg(test)]
mod tests;

pub use scheduler::{Config, Scheduler, Watch};
