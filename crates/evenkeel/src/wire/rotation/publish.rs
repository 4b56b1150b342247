//! What the cluster's own objects say of its authorities: to pods, and to servers that extend the API. Every namespace's
//! copy follows that of `kube-system`.

use anyhow::{Context, Result};
use api::{Gvr, Key, PatchType, Tree};
use serde_json::json;
use view::{Client, PatchRequest};

use crate::pki::Authorities;

/// Writes what is not as it should be.
pub async fn publish(client: &Client, authorities: &Authorities) -> Result<()> {
    let front_proxies = &authorities.request_header.pem;
    let wanted = [
        ("kube-root-ca.crt", json!({"ca.crt": authorities.server.pem})),
        (
            "extension-apiserver-authentication",
            json!({"client-ca-file": authorities.client.pem, "requestheader-client-ca-file": front_proxies}),
        ),
    ];
    for (name, data) in wanted {
        let (gvr, key) = (Gvr::new("", "v1", "configmaps"), Key::new("kube-system", name));
        let found = client.get(&gvr, &key).await.with_context(|| format!("read ConfigMap {key}"))?;
        if says(&found["data"], &data) {
            continue;
        }
        let body = json!({ "data": data });
        let patch = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
        client.patch(&patch).await.with_context(|| format!("write ConfigMap {key}"))?;
    }
    Ok(())
}

fn says(found: &Tree, wanted: &Tree) -> bool {
    wanted.as_object().into_iter().flatten().all(|(name, value)| found[name] == *value)
}
