//! The node's Lease: that this machine lives, whatever else here waits.

use std::sync::Arc;

use api::{Gvr, Key, Tree};
use base::Chain;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use view::{Client, ClientError};

use crate::context::Context;
use crate::limits;
use crate::pod::slot::retry_delay;
use crate::register::nodes;

pub struct Heartbeat {
    context: Arc<Context>,
    client: Client,
    /// The lease as it was last seen.
    lease: Option<Tree>,
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

impl Heartbeat {
    pub fn new(context: Arc<Context>) -> Heartbeat {
        // An answer that takes longer than to the next renewal is worth less than asking again.
        let client = context.client.clone().with_timeout(limits::LEASE_EVERY);
        Heartbeat { context, client, lease: None }
    }

    /// Renews until drained.
    pub async fn run(mut self, drain: CancellationToken) {
        let mut failures = 0;
        loop {
            let Some(renewed) = drain.run_until_cancelled(self.renew()).await else { return };
            let pause = match renewed {
                Ok(()) => {
                    failures = 0;
                    limits::LEASE_EVERY
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "node lease was not renewed");
                    failures += 1;
                    retry_delay(failures).min(limits::LEASE_EVERY)
                }
            };
            if drain.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn renew(&mut self) -> Result<(), ClientError> {
        let name = &self.context.config.node_name;
        let now = self.context.ports.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let key = Key::new("kube-node-lease", name);
        if let Some(mut lease) = self.lease.take() {
            lease["spec"]["renewTime"] = json!(now);
            match self.client.update(&leases(), &key, None, &lease).await {
                Ok(lease) => {
                    self.lease = Some(lease);
                    return Ok(());
                }
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => {
                    self.lease = Some(lease);
                    return Err(error);
                }
            }
        }
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": limits::LEASE_SECONDS, "renewTime": now});
        match self.client.get(&leases(), &key).await {
            Ok(mut lease) => {
                lease["spec"] = spec;
                self.lease = Some(self.client.update(&leases(), &key, None, &lease).await?);
            }
            Err(error) if error.is_not_found() => {
                let node = self.client.get(&nodes(), &Key::cluster(name)).await?;
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"],
                    }]},
                    "spec": spec,
                });
                self.lease = Some(self.client.create(&leases(), "kube-node-lease", &lease).await?);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
