//! What stands in a change's way on the machines of the cluster: the same facts that `evenkeel wrong` judges.

use std::path::PathBuf;

use anyhow::Result;
use async_trait::async_trait;
use base::Clock;
use keeper::preflight::{self, Finding};

use super::ports::Machines;
use crate::layout::Layout;
use crate::pki::Kubeconfig;
use crate::wire::SystemClock;
use crate::wire::facts::Look;

/// As this machine's own commands look.
pub struct OfFacts {
    pub layout: Layout,
    /// This machine's configuration file.
    pub config: PathBuf,
}

#[async_trait]
impl Machines for OfFacts {
    async fn look(&self) -> Result<Vec<Finding>> {
        let (layout, config) = (self.layout.clone(), self.config.clone());
        let access = Kubeconfig::load(&layout.kubeconfig()).ok();
        let facts = Look { layout, config, access, prober: None }.whole().await?;
        Ok(preflight::of_facts(&facts, SystemClock.now()))
    }
}
