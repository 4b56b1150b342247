//! Whether a pod tolerates a node's taints. For pods that are made for one node.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::node::eviction::tolerates;

pub fn tolerates_all<'t>(tolerations: &[Toleration], mut taints: impl Iterator<Item = &'t Taint>) -> bool {
    taints.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}
