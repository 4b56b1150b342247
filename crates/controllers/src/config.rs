//! What the loops are told from outside the API: addresses, certificates, grace periods, and the kinds served now.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Key, Registry};
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};

use crate::certificates::Signer;
use crate::cleanup::Missed;

/// Settings of the control plane. The default is what a cluster gets that says nothing.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pod ranges, at most one per family: `10.42.0.0/16`. Empty: nodes get no range.
    pub cluster_cidrs: Vec<SmolStr>,
    pub node_mask_v4: u8,
    pub node_mask_v6: u8,
    /// PEM of the server CA, published in every namespace as ConfigMap `kube-root-ca.crt`.
    pub root_ca: String,
    /// A node whose lease is older than this is `Unknown`.
    pub node_grace: SignedDuration,
    pub event_ttl: SignedDuration,
    /// Finished pods kept in the whole cluster before the oldest go.
    pub terminated_pods_max: usize,
    /// Folder on every node under which `local-path` volumes lie; None switches the provisioner off.
    pub local_path: Option<SmolStr>,
    /// Whether `type: LoadBalancer` Services get node addresses.
    pub service_load_balancer: bool,
}

/// Given to every plan. Rebuilt by the composition root when a CRD changes the registry; cheap to clone.
#[derive(Clone)]
pub struct Ctx {
    pub config: Arc<Config>,
    /// Kinds served now.
    pub registry: Arc<Registry>,
    /// When this process began to see the cluster. What happened to leases before is not held against nodes.
    pub started: Timestamp,
    pub missed: Arc<Missed>,
    /// Where pods' resource usage comes from; None where nothing measures it.
    pub usage: Option<Arc<dyn Usage>>,
    /// Who signs approved certificate requests; None where nobody holds the authorities.
    pub signer: Option<Arc<dyn Signer>>,
}

/// Measured usage of running pods.
pub trait Usage: Send + Sync {
    /// Per container and resource name (`cpu` in milli cores, `memory` in bytes).
    fn of_pod(&self, pod: &Key) -> Option<UsageOf>;
}

/// Container name -> resource name -> amount (milli cores for `cpu`, bytes for `memory`).
pub type UsageOf = BTreeMap<SmolStr, BTreeMap<SmolStr, i64>>;

impl Default for Config {
    fn default() -> Self {
        Config {
            cluster_cidrs: vec!["10.42.0.0/16".into()],
            node_mask_v4: 24,
            node_mask_v6: 64,
            root_ca: String::new(),
            node_grace: SignedDuration::from_secs(40),
            event_ttl: SignedDuration::from_hours(1),
            terminated_pods_max: 12_500,
            local_path: Some("/var/lib/evenkeel/storage".into()),
            service_load_balancer: true,
        }
    }
}
