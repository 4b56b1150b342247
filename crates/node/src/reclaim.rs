//! Removes the folders of `local-path` volumes that the control plane has done with, and says so. What is asked while
//! this node is down waits on its Node object until it is back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::local_path::{RECLAIM, RECLAIMED, annotation, folders};
use api::{Key, Object, PatchType};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use view::{ClientError, PatchRequest};

use crate::context::Context;
use crate::register::nodes;
use crate::volumes::local_path;

/// Between tries of a folder that could not be removed.
const AGAIN: Duration = Duration::from_secs(30);

/// The one who removes.
pub struct Reclaimer {
    context: Arc<Context>,
    root: PathBuf,
}

impl Reclaimer {
    /// None where this node keeps no such volumes.
    pub fn new(context: &Arc<Context>) -> Option<Reclaimer> {
        Some(Reclaimer { context: context.clone(), root: context.config.local_path.clone()? })
    }

    pub async fn run(self, drain: CancellationToken) {
        let mut news = self.context.view.subscribe();
        let (mut seen, mut again) = (None, None);
        loop {
            let due = again.is_some_and(|at| at <= Instant::now());
            if let Some(node) = self.context.node().filter(|node| due || Some(node.revision) != seen) {
                seen = Some(node.revision);
                again = if self.look(&node).await { None } else { Some(Instant::now() + AGAIN) };
            }
            let wait = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = drain.cancelled() => return,
                changed = news.changed() => if changed.is_err() { return },
                () = wait => {}
            }
        }
    }

    /// Whether everything that was asked for is done and said.
    async fn look(&self, node: &Object) -> bool {
        let tree = node.tree();
        let said = |name: &str| folders(tree["metadata"]["annotations"][name].as_str());
        let (wanted, known) = (said(RECLAIM), said(RECLAIMED));
        let mut gone: BTreeSet<String> = &wanted & &known;
        for name in &wanted - &known {
            let (root, folder) = (self.root.clone(), name.clone());
            let removed = tokio::task::spawn_blocking(move || local_path::remove(&root, &folder)).await;
            match removed.expect("the removal does not panic") {
                Ok(()) => drop(gone.insert(name)),
                Err(error) => tracing::warn!(folder = name, %error, "the folder of a volume was not removed"),
            }
        }
        let complete = gone == wanted;
        if gone == known {
            return complete;
        }
        match self.say(&gone).await {
            Ok(()) => complete,
            Err(error) => {
                tracing::warn!(%error, "removed folders were not reported");
                false
            }
        }
    }

    async fn say(&self, gone: &BTreeSet<String>) -> Result<(), ClientError> {
        let body = json!({"metadata": {"annotations": {RECLAIMED: annotation(gone)}}});
        let (gvr, key) = (nodes(), Key::cluster(&self.context.config.node_name));
        let request = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
        self.context.client.patch(&request).await.map(drop)
    }
}
