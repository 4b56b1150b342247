//! What applications keep in their volumes, by hooks of their own: annotations on their pods.
//!
//! ```text
//! backup.evenkeel.io/take       a script for /bin/sh whose output is the backup, as pg_basebackup's
//! backup.evenkeel.io/measure    one that prints a number before it is taken, as a count of rows
//! backup.evenkeel.io/prove      one that reads the backup, brings it to life below /restore and prints that number again
//! backup.evenkeel.io/container  the container they run in; else the first
//! backup.evenkeel.io/name       how it is called; else as the pod's controller
//! ```
//! Of several pods with one name one that is ready is asked. A backup lies beside the cluster's bundle of that time and
//! goes with it: in sealed pieces, because it may be larger than memory, under an index that holds their hashes.

mod exec;
mod hook;
mod index;
mod prove;
mod take;

use std::sync::Arc;

use anyhow::{Context, Result};
use api::{Gvr, Tree};
use keeper::backup::{BundleName, Check};
use serde::{Deserialize, Serialize};
use view::{Client, ListOptions};

use super::make::Openers;
use super::signed::Key;
use super::targets::Target;
use crate::layout::Layout;
use exec::Exec;
use hook::Hook;

pub use hook::App;
pub use index::{Index, bundle_of, files_of};

/// How the last backup of one application went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// `namespace/name`.
    pub name: String,
    pub bytes: u64,
    /// What its script measured; None where there is no script.
    pub measured: Option<u64>,
    pub error: Option<String>,
}

/// Takes and proves them.
pub struct Apps {
    client: Client,
    exec: Exec,
    layout: Layout,
}

// === impl Apps ===

impl Apps {
    pub fn new(client: Client, layout: &Layout) -> Apps {
        Apps { client, exec: Exec::new(layout), layout: layout.clone() }
    }

    /// One backup of each application, beside this bundle. One that fails keeps no other from its own.
    pub async fn take(
        &self,
        bundle: &BundleName,
        openers: &Openers,
        targets: &[Arc<dyn Target>],
    ) -> Result<Vec<AppStatus>> {
        let mut taken = Vec::new();
        for found in hook::hooks(&self.pods().await?) {
            let name = found.app.to_string();
            let outcome = match found.hook {
                Ok(hook) => take::take(self, &hook, bundle, openers, targets).await,
                Err(why) => Err(anyhow::anyhow!(why)),
            };
            taken.push(match outcome {
                Ok(index) => AppStatus { name, bytes: index.bytes, measured: index.measured, error: None },
                Err(failure) => AppStatus { name, bytes: 0, measured: None, error: Some(format!("{failure:#}")) },
            });
        }
        Ok(taken)
    }

    /// Brings each application's backup beside a bundle to life; a check for each.
    pub async fn prove(&self, bundle: &BundleName, target: &dyn Target) -> Result<Vec<Check>> {
        let key = Key::of(&self.layout)?;
        let mut checks = Vec::new();
        for file in files_of(bundle, &target.list().await?).filter(|file| Index::is_one(file)) {
            checks.push(prove::prove(self, &key, target, &file).await);
        }
        Ok(checks)
    }

    async fn pods(&self) -> Result<Vec<Tree>> {
        let gvr = Gvr::new("", "v1", "pods");
        let page = self.client.list(&gvr, &ListOptions::default()).await.context("list pods for their hooks")?;
        Ok(page.items.iter().map(|object| object.tree()).collect())
    }

    async fn hook(&self, index: &Index) -> Result<Hook> {
        let found = hook::hooks(&self.pods().await?).into_iter().find(|found| found.app == index.app);
        let found = found.context("no pod of it has a hook any more")?;
        found.hook.map_err(anyhow::Error::msg)
    }
}
