//! New authorities for a cluster that goes on meanwhile (docs/adr/0023).
//!
//! One Secret holds how far it is; every server follows it, each phase can be repeated, and any server takes the next
//! step once all machines that live have taken the one before. Nodes say what they trust on their own object, servers
//! on their lease. The key of Secrets at rest changes by the same means ([`encryption`]).

mod act;
mod claim;
pub mod encryption;
mod follow;
mod gather;
mod judge;
mod look;
mod path;
mod publish;
mod record;
mod wishes;

pub use follow::Rotating;
pub use path::{Authorities, PATH, Shown, ShownMachine};
pub use record::catch_up;
pub use wishes::WishPath;

/// What a machine trusts and who signs for it, as it says itself.
pub const TRUST: &str = "evenkeel.io/trust";
