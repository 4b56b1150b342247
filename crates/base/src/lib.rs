//! The words every other crate shares: revisions, clocks, randomness, limits, error chains.
//!
//! Knows nothing of Kubernetes, performs no IO and never reads the time itself: time and randomness are ports.

mod chain;
pub mod limits;
mod revision;
mod world;

pub use chain::Chain;
pub use revision::{ParseRevisionError, Revision};
pub use smol_str::{SmolStr, format_smolstr};
pub use world::{Clock, ManualClock, Rng, SeededRng};
