//! A program on trial confirms itself once its node and its API are well. Others judge it after that; what it says of
//! itself only ends the time in which it goes back without being told to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::{Gvr, Key};
use base::{Chain, Clock};
use jiff::Timestamp;
use tracing::{error, info};
use view::{Client, Drain};

use super::gates::told;
use super::{Home, Trial};
use crate::layout::Layout;
use crate::wire::SystemClock;

const LOOK: Duration = Duration::from_millis(500);

/// Where the program sees how it is.
pub struct Confirm {
    pub layout: Layout,
    /// The API it serves itself, if it does.
    pub api: Option<Client>,
    /// Its node, seen through the API.
    pub node: Option<(Client, String)>,
}

// === impl Confirm ===

impl Confirm {
    pub async fn run(self, drain: Drain) {
        if let Some(Err(failure)) = drain.run_until_cancelled(self.confirm()).await {
            error!(error = %Chain(failure.as_ref()), "the program on trial is not confirmed");
        }
    }

    async fn confirm(&self) -> Result<()> {
        let (home, started) = (Home::new(&self.layout), SystemClock.now());
        let Some(trial) = home.trial()?.filter(Trial::is_this) else { return Ok(()) };
        while let Err(failure) = self.well(started).await {
            tracing::debug!(error = %Chain(failure.as_ref()), "not well yet");
            tokio::time::sleep(LOOK).await;
        }
        // What was given up meanwhile is not confirmed any more: it will be ended.
        ensure!(home.trial()?.as_ref() == Some(&trial), "the trial was ended by another");
        trial.settle(&home)?;
        info!(to = %told(&trial.to), "confirmed");
        Ok(())
    }

    async fn well(&self, started: Timestamp) -> Result<()> {
        if let Some(api) = &self.api {
            api.raw("/readyz").await.context("the API")?;
        }
        let Some((client, name)) = &self.node else { return Ok(()) };
        let node = client.get(&Gvr::new("", "v1", "nodes"), &Key::new("", name)).await.context("its node")?;
        ensure!(super::survey::is_ready(&node), "its node is not ready");
        let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
        let lease = client.get(&leases, &Key::new("kube-node-lease", name)).await.context("its node's lease")?;
        let renewed: Timestamp = lease["spec"]["renewTime"].as_str().context("no renewal")?.parse()?;
        ensure!(started <= renewed, "its node has not spoken since it started");
        Ok(())
    }
}
