//! The cluster's names, served on the node: pods ask an address that is always near and never leaves the machine.
//!
//! The address (`10.43.0.10`) is put on the node's bridge as a host address. Pods route everything through the bridge, so
//! their packets arrive there without translation; programs of the node reach it as a local address. No rule is
//! involved, and a Service of the same address is left out of the rules.
//!
//! Answers about the cluster come from the view ([`Zone`], pure); everything else is forwarded ([`Forwarder`]). While the API
//! is away the last view keeps answering.

mod cache;
mod forward;
mod serve;
mod upstream;
mod zone;

pub use forward::Forwarder;
pub use serve::serve;
pub use zone::{ADDRESSES, Answer, SERVICE, Zone};
