//! Backups: when one is due, which may go, what a proof found, and what somebody should know about them. Pure.

mod evidence;
mod findings;
mod name;
mod retention;
mod schedule;

pub use evidence::{Check, EVIDENCE_MAX, Evidence, Outcome, surplus};
pub use findings::{Facts, Finding, SHRUNK_PERCENT, Size, findings};
pub use name::BundleName;
pub use retention::{Held, Retention};
pub use schedule::{FIRST_AFTER, Schedule, ScheduleError};
