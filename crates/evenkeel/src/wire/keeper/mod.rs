//! The keeper at work: what drives [`keeper::Run`], and the small verbs of every node that it drives.
//!
//! - Every node ([`node`]): receives programs, runs another one on trial, keeps a copy of the journal. It accepts orders
//!   whose token is not older than what it has seen, and goes back by itself when a program on trial does not get well.
//! - One server at a time ([`coordinator`]): holds the lease, performs the effects of a run, writes every intention and
//!   result as an object whose place can be taken once.
//! - The command line ([`api`]): looks, arms, asks. Nothing depends on it staying there.

mod agents;
pub mod api;
mod backup;
pub mod boot;
mod confirm;
pub mod coordinator;
mod copies;
mod gates;
pub mod home;
mod journals;
mod keeping;
pub mod layers;
mod machines;
pub mod node;
mod perform;
pub mod ports;
mod preflight;
mod program;
mod propose;
pub mod records;
pub mod rehearse;
mod releases;
pub(super) mod survey;
mod trial;
pub mod trust;
pub mod watch;
mod windows;

use std::collections::BTreeMap;

use jiff::Timestamp;
use keeper::{Digest, Order, Release, Role, Runs, Settings};
use serde::{Deserialize, Serialize};

pub use agents::NodePorts;
pub use confirm::Confirm;
pub use copies::OfEtcd;
pub use home::{Fell, Home};
pub use journals::Journals;
pub use keeping::Keeping;
pub use machines::OfFacts;
pub use ports::Parts;
pub use program::About;
pub use trial::Trial;

/// Below this lie the paths of nodes, on the kubelet API's port, and those of servers.
pub const PATH: &str = "/v1-evenkeel/keeper/";
/// The order under which a node is asked, as JSON.
const ORDER: &str = "x-evenkeel-order";
/// What a caller must be permitted of a node.
const SUBRESOURCE: &str = "keeper";
/// A program travels in pieces of this size.
pub const PIECE_BYTES: usize = 4 << 20;
const _: () = assert!(PIECE_BYTES < ::node::EXTENSION_BYTES_MAX);

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub role: Role,
    pub running: Runs,
    /// Since when.
    pub since: Timestamp,
    /// What is running is not confirmed yet, or about to be replaced.
    pub trial: Option<Trial>,
    /// What was tried last and did not get well.
    pub fell: Option<Fell>,
    /// Programs that lie on this node, whole.
    pub staged: Vec<Release>,
    pub free_bytes: u64,
    /// Why the program of this machine could not be replaced, if so.
    pub fixed: Option<String>,
}

/// Have this program run, with these settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwapRequest {
    pub to: Runs,
    /// Place of the intention in the journal: what fell back is tried again only when it is intended again.
    pub attempt: u64,
    pub seconds: u32,
}

/// Say whether a program of this node would start with these settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearseRequest {
    /// One that lies there; else the one that runs there.
    pub program: Option<Digest>,
    pub settings: Settings,
}

/// A piece of a program arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// Of it that lie here now; the next piece begins there.
    pub bytes: u64,
    /// Once it is whole and was looked at.
    pub about: Option<About>,
}

/// Further lines of a run's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lines {
    pub run: String,
    /// How many come before them.
    pub after: usize,
    pub text: String,
}

/// The parts of a query.
pub fn query(text: Option<&str>) -> BTreeMap<&str, &str> {
    text.unwrap_or_default().split('&').filter_map(|part| part.split_once('=')).collect()
}

/// The order in a request's head.
fn order(headers: &http::HeaderMap) -> Option<Order> {
    serde_json::from_slice(headers.get(ORDER)?.as_bytes()).ok()
}

/// The name of what is stored, by content, from a query.
fn digest(text: Option<&&str>) -> Option<Digest> {
    text.and_then(|text| Digest::parse(text))
}
