//! Another key for Secrets at rest, in a cluster that goes on meanwhile (docs/adr/0033).
//!
//! The same record, the same followers and the same judge as of a rotation of the authorities, with two differences: only
//! servers take part, and one that is silent is waited for, because it could not read its state any more. What a person
//! decides there is here the rewriting of every Secret.

mod act;
mod follow;
mod path;
mod record;

pub use follow::Rekeying;
pub use path::{Encryption, PATH, Shown};

use super::judge::Machine;
use crate::pki::Role;

/// How far a server has gone along, on its lease.
const TOLD: &str = "evenkeel.io/encryption";

/// The machines that hold the key. None of them can be left behind.
fn holders(machines: &[Machine]) -> Vec<Machine> {
    let servers = machines.iter().filter(|machine| machine.role == Role::Server);
    servers.map(|machine| Machine { live: true, ..machine.clone() }).collect()
}
