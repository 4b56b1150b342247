//! Drift: what on a machine is not as its owner left it.
//!
//! Owners say what they keep ([`Look::wanted`]), collectors say what is ([`Look::seen`]), and the [`Ledger`] remembers
//! every difference: since when, who was logged in, and how it ended. A difference counts once two looks in a row saw it,
//! so that an owner's own change between its write and its word is none. Pure: no clock, no files.

mod compare;
mod ledger;
mod session;

pub use compare::{Kind, Look, State, Thing, compare};
pub use ledger::{Closing, How, LINES_MAX, Ledger, Line, News, REPAIRS_MAX};
pub use session::{Session, who};

use serde::{Deserialize, Serialize};

/// What becomes of a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is told; nothing is written.
    #[default]
    Report,
    /// What can be put back is put back.
    Repair,
}
