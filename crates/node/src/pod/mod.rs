//! One pod: its state machine (pure), the worker that performs the machine's effects, and the status shown of it.

pub mod adopt;
pub mod event;
pub mod fsm;
pub mod hooks;
pub mod jobs;
pub mod observe;
pub mod order;
pub mod record;
pub mod report;
pub mod resize;
pub mod slot;
pub mod start;
pub mod status;
pub mod view;
pub mod worker;

pub use event::{PodEffect, PodEvent, What};
pub use fsm::{Outcome, Pod};
pub use slot::{Exit, Role, Run, Slot, SlotState};

#[cfg(test)]
mod tests;
