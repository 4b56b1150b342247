//! Whom a machine that joined trusts: what it has been given, what the cluster has now, and what it says of itself.

use anyhow::{Context, Result};
use api::{Gvr, Key, PatchType};
use serde_json::json;
use view::{Client, PatchRequest};

use crate::layout::Layout;
use crate::pki::{self, trust_of};
use crate::wire::join::CA_PATH;
use crate::wire::rotation::TRUST;

/// Through the node's own way to the API: what answers there is trusted already.
pub struct Trust {
    api: Client,
    node: String,
    layout: Layout,
    told: String,
}

// === impl Trust ===

impl Trust {
    pub fn new(api: Client, node: &str, layout: &Layout) -> Trust {
        Trust { api, node: node.to_owned(), layout: layout.clone(), told: String::new() }
    }

    /// True where the cluster has other authorities than this machine knows, or another of them signs. A server that
    /// does not answer says nothing.
    pub async fn is_other(&self) -> bool {
        let Ok(theirs) = self.api.raw(CA_PATH).await else { return false };
        self.own().is_ok_and(|own| own.is_some_and(|own| own.as_bytes() != theirs.as_ref()))
    }

    /// On the node's own object, where it is not said yet.
    pub async fn tell(&mut self) -> Result<()> {
        let trust = self.own()?.map(|pem| trust_of(&pem)).unwrap_or_default();
        if trust == self.told {
            return Ok(());
        }
        let (gvr, key) = (Gvr::new("", "v1", "nodes"), Key::cluster(&self.node));
        let body = json!({"metadata": {"annotations": {TRUST: trust}}});
        let patch = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
        match self.api.patch(&patch).await {
            // It registers in a moment.
            Err(error) if error.is_not_found() => return Ok(()),
            patched => patched.context("say whom this machine trusts")?,
        };
        self.told = trust;
        Ok(())
    }

    fn own(&self) -> Result<Option<String>> {
        Ok(pki::read(&self.layout.agent_tls().join("server-ca.crt"))?)
    }
}
