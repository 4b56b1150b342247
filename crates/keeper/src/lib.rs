//! The cluster's own life: what it shall be, how it gets there, and how it comes back.
//!
//! A [`Generation`] says what every node shall run. A [`Plan`] is the ordered way there from what was observed, so
//! specific that its execution has no choices left. A [`Run`] carries a plan out and writes every intention and every
//! result into a [`Journal`] before anything depends on them, so that anybody can take a run over at any moment.
//!
//! [`backup`] decides about bundles: when one is due, which may go, and what a proof of one says. [`drift`] keeps the
//! ledger of what on a machine is not as its owner left it.
//!
//! Everything here is pure: a run takes inputs and gives effects; who performs them, and where the journal is durable,
//! is the business of ports.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod backup;
mod copies;
mod declaration;
mod digest;
pub mod drift;
mod fence;
mod generation;
mod goal;
mod inventory;
mod journal;
mod layer;
mod pace;
mod plan;
pub mod preflight;
pub mod replace;
mod run;
mod settings;
mod window;
pub mod wrong;

pub use copies::{Copies, Replica, ReplicaState};
pub use declaration::{Declaration, DeclarationError, Declared};
pub use digest::Digest;
pub use fence::{Fence, Order, StaleOrder, Token};
pub use generation::{Generation, NodeName, NodeTarget, ProposeError, Release, Role, Runs};
pub use goal::{Goal, Manifest};
pub use inventory::{Inventory, Observed};
pub use journal::{Draft, Entry, Journal, JournalError, Phase};
pub use layer::{CLAIM_LASTS, Claim, Held, Layer};
pub use pace::{Forecast, Seconds};
pub use plan::{Action, BAKE_SECONDS_MAX, Pace, Plan, PlanError, Step, StepId};
pub use run::{Attention, Effect, Input, Outcome, Run, Standing};
pub use settings::{Settings, SettingsError};
pub use window::{Verdict, Window, WindowError, Windows};
