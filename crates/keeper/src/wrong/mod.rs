//! What is wrong, and what to do now: facts become findings, findings become one answer.
//!
//! Facts are what somebody observed, each with its witness. Detectors turn them into findings, each under a stable
//! [`Code`]. Edges say which finding explains which other. What is left is ranked, and the first is the cause; the rest
//! is listed. Nothing here looks at the world or the clock: the same facts at the same time give the same answer.
//!
//! A node never judges itself. What it says of itself counts only for what nobody else can see: its disks, its clock, its
//! certificates, its processes.

mod answer;
mod code;
mod detect;
mod fact;
mod finding;
mod render;
mod runbook;
mod suppress;
mod table;
mod words;

pub use answer::{Answer, Apps, Cause, Confidence, Margin, Other, answer};
pub use code::{Class, Code, Place, Risk};
pub use fact::{
    API, Alarm, Answers, CLUSTER, EngineKind, FACTS_MAX, Fact, Facts, Missing, Name, RECORD, Refusal, Role, RunState,
    State, What, Write,
};
pub use finding::Finding;
pub use runbook::runbook;
pub use table::ALL;
