//! The container runtime's side of a node: a CRI client, and the care of a containerd of our own. That care ([`child`]) is
//! for every process that outlives the agent.
//!
//! Knows nothing of pods or the API: verbs are CRI's own, types are compiled from CRI's description. The node declares
//! the port it needs; the adapter between the two lives in the composition root.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod archive;
pub mod child;
pub mod containerd;
pub mod cri;
pub mod images;
pub mod registries;
mod sys;

pub use cri::{Cri, CriError, v1};
