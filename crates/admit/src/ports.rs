//! What the stages need of the world: reads, time, randomness, configuration, webhooks.

use std::ops::RangeInclusive;
use std::sync::Arc;

use api::{Kind, Object, Registry, Status, Tree};
use async_trait::async_trait;
use base::{Clock, Rng, SmolStr, format_smolstr};
use ipnet::IpNet;

use crate::{Place, User};

/// Everything that one pass over the stages may ask.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    pub reader: &'a dyn Reader,
    pub registry: &'a Registry,
    pub clock: &'a dyn Clock,
    pub rng: &'a dyn Rng,
    pub config: &'a Config,
    pub hooks: &'a dyn Webhooks,
}

/// Reads of committed state. A stage that decides by what it read puts the version it saw as a guard into the batch.
pub trait Reader: Send + Sync {
    fn get(&self, place: &Place) -> Option<Arc<Object>>;
    /// In key order.
    fn list(&self, storage: &str, namespace: Option<&str>) -> Vec<Arc<Object>>;
}

/// What the cluster's operator chose; the same on every server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Used while no `ServiceCIDR` object exists; also the content of the bootstrap `kubernetes` object.
    pub service_cidrs: Vec<IpNet>,
    pub node_ports: RangeInclusive<u16>,
    /// Ranges out of which nodes get their pod ranges; empty where the network is external.
    pub pod_cidrs: Vec<IpNet>,
    /// Prefix length of one node's range, for IPv4 and IPv6.
    pub node_mask_v4: u8,
    pub node_mask_v6: u8,
    /// Pod Security level enforced in namespaces without a label; `privileged` enforces nothing.
    pub pod_security_default: SmolStr,
    /// Namespaces that Pod Security never looks at, unless labelled.
    pub pod_security_exempt: Vec<SmolStr>,
}

/// Mutating and validating admission by others. The built-in plugins run before the webhooks of the same stage.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Returns the object, changed or not, and warnings for the client.
    async fn mutate(&self, review: &Review<'_>, object: Tree) -> Result<(Tree, Vec<String>), Status>;
    /// `object` is None for a deletion. Returns warnings for the client.
    async fn validate(&self, review: &Review<'_>, object: Option<&Tree>) -> Result<Vec<String>, Status>;
}

/// What an admission review says beside the object.
#[derive(Clone, Copy)]
pub struct Review<'a> {
    pub user: &'a User,
    pub kind: &'a Kind,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub operation: Operation,
    pub dry_run: bool,
    pub old: Option<&'a Tree>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// Nobody else is asked.
pub struct NoWebhooks;

// === impl Config ===

impl Default for Config {
    fn default() -> Config {
        let net = |text: &str| text.parse().expect("a literal range");
        Config {
            service_cidrs: vec![net("10.43.0.0/16")],
            node_ports: 30000..=32767,
            pod_cidrs: vec![net("10.42.0.0/16")],
            node_mask_v4: 24,
            node_mask_v6: 64,
            pod_security_default: "privileged".into(),
            pod_security_exempt: vec!["kube-system".into()],
        }
    }
}

// === impl Operation ===

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

// === impl NoWebhooks ===

#[async_trait]
impl Webhooks for NoWebhooks {
    async fn mutate(&self, _: &Review<'_>, object: Tree) -> Result<(Tree, Vec<String>), Status> {
        Ok((object, Vec::new()))
    }

    async fn validate(&self, _: &Review<'_>, _: Option<&Tree>) -> Result<Vec<String>, Status> {
        Ok(Vec::new())
    }
}

/// The storage of a built-in kind, as `Kind::storage` spells it. The core group is empty: `/pods`.
pub fn storage_of(group: &str, resource: &str) -> SmolStr {
    format_smolstr!("{group}/{resource}")
}
