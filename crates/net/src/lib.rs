//! A node's network: pod links and addresses, service translation, names.
//!
//! One agent per node owns all of it. What it decides is pure (rules as text, answers from an index, addresses from
//! records); what it does is netlink, `nft -f -` and sockets, each behind one module. It speaks to no other engine:
//! services and nodes come from a view, sandboxes through the port [`LiveSandboxes`].
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod address;
mod agent;
mod cleanup;
pub mod cni;
pub mod config;
mod detector;
pub mod dns;
mod echo;
mod kept;
pub mod link;
mod peers;
pub mod service;
mod sys;
mod vip;

pub use agent::{Agent, AgentError, LiveSandboxes, NetStatus};
pub use cleanup::{CleanupError, cleanup};
pub use config::{Config, DnsConfig, PodNetwork};
pub use kept::Kept;
pub use peers::{Echoes, NarrowPath, PathReport, Underlay, burst};
pub use vip::{Vip, VipStatus, VirtualAddress};
