//! What stands in a change's way on the machines of the cluster: the same facts that `evenkeel wrong` judges.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use base::Clock;
use keeper::preflight::{self, Finding};

use super::ports::Machines;
use crate::layout::Layout;
use crate::pki::Kubeconfig;
use crate::wire::SystemClock;
use crate::wire::facts::Look;

/// Who was starved of a processor answers again after this; who is broken does not.
const AGAIN: Duration = Duration::from_secs(3);

/// As this machine's own commands look.
pub struct OfFacts {
    pub layout: Layout,
    /// This machine's configuration file.
    pub config: PathBuf,
}

impl OfFacts {
    async fn once(&self) -> Result<Vec<Finding>> {
        let (layout, config) = (self.layout.clone(), self.config.clone());
        let access = Kubeconfig::load(&layout.kubeconfig()).ok();
        let facts = Look { layout, config, access, prober: None }.whole().await?;
        Ok(preflight::of_facts(&facts, SystemClock.now()))
    }
}

#[async_trait]
impl Machines for OfFacts {
    /// What would stand in the way is looked at a second time, and that decides.
    async fn look(&self) -> Result<Vec<Finding>> {
        let found = self.once().await?;
        if !found.iter().any(|finding| finding.blocks) {
            return Ok(found);
        }
        tokio::time::sleep(AGAIN).await;
        self.once().await
    }
}
