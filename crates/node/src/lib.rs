//! The node agent: one worker per pod over a runtime port, and the kubelet HTTP API.
//!
//! A pod is a pure state machine (`pod::fsm`) and a worker that performs its effects; volumes, probes, images and logs
//! are modules of their own that know no state. Containers outlive the agent: it adopts what it finds.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod admission;
mod agent;
mod cgroup;
mod collect;
mod config;
mod context;
mod counts;
mod dispatch;
mod events;
mod images;
mod lease;
pub mod limits;
mod lister;
mod logs;
mod machine;
mod objects;
pub mod pod;
mod pods;
pub mod pressure;
pub mod probes;
mod reclaim;
mod register;
pub mod runtime;
mod server;
pub mod spec;
mod stream;
mod volumes;

pub use agent::{Agent, AgentError};
pub use cgroup::Cgroups;
pub use config::{Config, Ports};
pub use server::{EXTENSION_BYTES_MAX, Extension};
pub use volumes::mounts;
