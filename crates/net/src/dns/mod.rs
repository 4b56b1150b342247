//! The cluster's names, served on the node: pods ask an address that is always near and never leaves the machine.
//!
//! The address (`10.43.0.10`) is put on the node's bridge as a host address. Pods route everything through the bridge, so
//! their packets arrive there without translation; programs of the node reach it as a local address. No rule is
//! involved, and a Service of the same address is left out of the rules.
//!
//! Answers about the cluster come from the view ([`Zone`], pure); everything else is forwarded ([`Forwarder`]). While the API
//! is away the last view keeps answering.
//!
//! A process of its own serves them ([`run`]), so that names outlive the agent. The agent binds the sockets ([`bind`]),
//! gives them to that process and keeps duplicates ([`exchange`]): neither's end closes the port.

mod cache;
mod control;
mod forward;
mod serve;
mod socket;
mod upstream;
mod zone;

pub use control::{Serving, exchange};
pub use forward::Forwarder;
pub use serve::{run, serve};
pub use socket::{bind, put_addresses};
pub use upstream::Upstreams;
pub use zone::{ADDRESSES, Answer, SERVICE, Zone};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use view::Watched;

/// All that names are made of.
pub fn watched() -> Vec<Watched> {
    vec![Watched::of::<Service>(&[ADDRESSES]), Watched::of::<EndpointSlice>(&[SERVICE, ADDRESSES])]
}
