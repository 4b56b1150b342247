//! What the keeper reaches beside the API. Who coordinates decides and records; what happens on machines happens behind
//! these, so that the same coordinator works on a rack and in the simulation.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use base::Clock;
use bytes::Bytes;
use keeper::preflight::Finding;
use keeper::{Copies, Digest, Order, Release};
use view::{Client, ClientError};

use super::program::About;
use super::records::Saved;
use super::{Lines, Received, RehearseRequest, Report, SwapRequest};

/// What it is made of.
#[derive(Clone)]
pub struct Parts {
    /// Name of this server's node.
    pub name: String,
    /// Which cluster this is: the hash of its authority.
    pub cluster: String,
    pub clock: Arc<dyn Clock>,
    pub client: Client,
    pub agents: Arc<dyn Agents>,
    pub programs: Arc<dyn Programs>,
    pub replicas: Arc<dyn Replicas>,
    pub machines: Arc<dyn Machines>,
    pub backup: Arc<dyn Backup>,
}

/// Where a node's agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its certificate must say so.
    pub node: String,
    pub host: String,
    pub port: u16,
}

/// Why a node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another coordinator has taken over.
    #[error("{0}")]
    Stale(String),
    #[error("{node} does not answer")]
    Silent {
        node: String,
        #[source]
        source: ClientError,
    },
    #[error("{node}: {why}")]
    Refused { node: String, why: String },
}

/// A piece of a program on its way to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub program: Digest,
    /// Of the whole.
    pub size: u64,
    pub offset: u64,
    pub bytes: Bytes,
}

/// The nodes' own verbs. Each answers within a bounded time, and may be repeated.
#[async_trait]
pub trait Agents: Send + Sync {
    /// With an order, looking raises the node's fence.
    async fn report(&self, at: &Address, order: Option<Order>) -> Result<Report, AgentError>;
    async fn swap(&self, at: &Address, order: Order, request: &SwapRequest) -> Result<(), AgentError>;
    /// A look that changes nothing: Ok where the node's program would start with these settings.
    async fn rehearse(&self, at: &Address, request: &RehearseRequest) -> Result<(), AgentError>;
    /// Answers how many lines of the journal the node has then.
    async fn journal(&self, at: &Address, order: Order, lines: &Lines) -> Result<usize, AgentError>;
    async fn put_piece(&self, at: &Address, order: Order, piece: Piece) -> Result<Received, AgentError>;
    async fn piece(&self, at: &Address, program: &Digest, offset: u64) -> Result<Bytes, AgentError>;
}

/// The programs that lie on this machine.
#[async_trait]
pub trait Programs: Send + Sync {
    fn lies_here(&self, program: &Digest) -> Option<Release>;
    fn size(&self, program: &Digest) -> Result<u64>;
    fn piece(&self, program: &Digest, offset: u64) -> Result<Bytes>;
    /// Takes a piece where it fits at the end of what is here; a repeated piece changes nothing.
    async fn receive(&self, piece: &Piece) -> Result<Received>;
    /// What one of them says of itself.
    async fn about(&self, program: &Digest) -> Result<About>;
}

/// The copies of the state, each asked by itself.
#[async_trait]
pub trait Replicas: Send + Sync {
    async fn look(&self) -> Result<Copies>;
}

/// What the machines of the cluster say that stands in a change's way.
#[async_trait]
pub trait Machines: Send + Sync {
    async fn look(&self) -> Result<Vec<Finding>>;
}

/// Makes a bundle of the cluster before it is changed.
#[async_trait]
pub trait Backup: Send + Sync {
    async fn save(&self, run: &str) -> Result<Saved>;
}
