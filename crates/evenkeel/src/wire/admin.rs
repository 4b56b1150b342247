//! The administrator's way in, for the command line: a kubeconfig's identity over HTTPS.

use std::sync::Arc;

use anyhow::{Context, Result};
use view::{Client, Endpoint, Https, Transport};

use super::etcd::Datastore;
use super::join::messages::Leaving;
use crate::cli::backup::Snapshot;
use crate::layout::Layout;
use crate::pki::{Kubeconfig, Leaf, client_config};

const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The largest snapshot that is read into memory.
const SNAPSHOT_BYTES_MAX: usize = 8 << 30;

pub fn client(config: &Kubeconfig) -> Result<Client> {
    Ok(Client::new(Arc::new(transport(config)?), concat!("evenkeel-cli/", env!("CARGO_PKG_VERSION"))))
}

fn transport(config: &Kubeconfig) -> Result<Https> {
    let leaf = Leaf::of_pem(&config.user.certificate_pem, &config.user.key_pem)?;
    let tls = client_config(&config.ca_pem, Some(&leaf), true)?;
    let endpoint = Endpoint::parse(&config.server)?;
    Ok(Https::new(endpoint, Arc::new(move || tls.clone())))
}

/// One step of a node's way out. A server that cannot go on just now, its etcd choosing a leader, is waited for.
pub async fn remove_node(layout: &Layout, node: &str, now: bool) -> Result<Leaving> {
    let path = format!("{}?node={node}&now={now}", super::join::REMOVE_PATH);
    let request = http::Request::post(path).body(bytes::Bytes::new()).context("a node's name")?;
    let config = Kubeconfig::load(&layout.kubeconfig())?;
    let response = transport(&config)?.call(request).await.context("ask the running server")?;
    let status = response.status();
    let body = view::read_body(response.into_body(), ANSWER_BYTES_MAX).await.context("read the answer")?;
    let text = String::from_utf8_lossy(&body);
    if status == http::StatusCode::SERVICE_UNAVAILABLE {
        return Ok(Leaving { gone: false, waiting: vec![format!("the server: {text}")] });
    }
    anyhow::ensure!(status.is_success(), "{text}");
    Ok(serde_json::from_slice(&body)?)
}

/// Where the running server's state is.
pub async fn datastore(layout: &Layout) -> Result<Datastore> {
    let request = http::Request::get(super::etcd::PATH).body(bytes::Bytes::new())?;
    Ok(serde_json::from_slice(&ask(layout, request).await?)?)
}

/// Asks the running server to move its state into a managed etcd.
pub async fn convert_datastore(layout: &Layout) -> Result<()> {
    let request = http::Request::post(super::etcd::PATH).body(bytes::Bytes::new())?;
    ask(layout, request).await.map(drop)
}

/// A short answer of the running server; a refusal is an error with the server's words.
async fn ask(layout: &Layout, request: http::Request<bytes::Bytes>) -> Result<bytes::Bytes> {
    let config = Kubeconfig::load(&layout.kubeconfig())?;
    let response = transport(&config)?.call(request).await.context("ask the running server")?;
    let status = response.status();
    let body = view::read_body(response.into_body(), ANSWER_BYTES_MAX).await.context("read the answer")?;
    anyhow::ensure!(status.is_success(), "the server answered {status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// A consistent snapshot from the running server.
pub async fn snapshot(layout: &Layout) -> Result<Snapshot> {
    let config = Kubeconfig::load(&layout.kubeconfig())?;
    let request = http::Request::get(super::join::SNAPSHOT_PATH).body(bytes::Bytes::new())?;
    let response = transport(&config)?.call(request).await?;
    anyhow::ensure!(response.status().is_success(), "the server answered {}", response.status());
    let number = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.parse().ok()).with_context(|| format!("the answer lacks {name}"))
    };
    let (revision, objects) = (number("x-evenkeel-revision")?, number("x-evenkeel-objects")?);
    let bytes = view::read_body(response.into_body(), SNAPSHOT_BYTES_MAX).await.context("read the snapshot")?.to_vec();
    Ok(Snapshot { revision, objects, bytes })
}
