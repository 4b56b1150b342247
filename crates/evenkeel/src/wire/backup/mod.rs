//! Backups that prove themselves: bundles by schedule, kept in several places, restored into a scratch control plane.
//!
//! [`Backups`] is the one task that makes and proves; [`Paths`] is how the command line and the other servers reach it;
//! [`Peers`] fetches what another server made, and what lies sealed beside it. What is decided is decided in `keeper::backup`.

pub mod apps;
pub mod bundle;
pub mod contents;
pub mod kit;
pub mod make;
mod paths;
mod peers;
pub mod prove;
mod record;
mod run;
pub mod scratch;
pub mod signed;
pub mod targets;
mod wiring;

pub use paths::{BACKUP_PATH, BUNDLES_PATH, Listing, PROVE_PATH, Paths};
pub use peers::Peers;
pub use record::{Records, Status};
pub use run::{Backups, Config};
pub use wiring::{Me, Wiring};
