//! The administrator's way in, for the command line: a kubeconfig's identity over HTTPS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{Method, StatusCode};
use view::{Client, Endpoint, Https, Transport};

use super::etcd::Datastore;
use super::join::messages::Leaving;
use crate::layout::Layout;
use crate::pki::{Kubeconfig, Leaf, MachineId, client_config};

/// The largest snapshot that is read into memory.
const SNAPSHOT_BYTES_MAX: usize = 8 << 30;

/// A long journal, many times over.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Taking a whole program in includes reading and running it.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);

pub fn client(config: &Kubeconfig) -> Result<Client> {
    Ok(Client::new(Arc::new(transport(config)?), concat!("evenkeel-cli/", env!("CARGO_PKG_VERSION"))))
}

fn transport(config: &Kubeconfig) -> Result<Https> {
    among(config, &[])
}

fn among(config: &Kubeconfig, others: &[Endpoint]) -> Result<Https> {
    let leaf = Leaf::of_pem(&config.user.certificate_pem, &config.user.key_pem)?;
    let tls = client_config(&config.ca_pem, Some(&leaf), true)?;
    let own = Endpoint::parse(&config.server)?;
    let all: Vec<Endpoint> = [&own].into_iter().chain(others.iter().filter(|other| **other != own)).cloned().collect();
    Ok(Https::among(Arc::new(move || all.clone()), Arc::new(move || tls.clone())))
}

/// One step of a node's way out. A server that cannot go on just now, its etcd choosing a leader, is waited for.
pub async fn remove_node(layout: &Layout, node: &str, now: bool) -> Result<Leaving> {
    remove(layout, &format!("node={node}&now={now}")).await
}

/// The same at once, if the node still has the machine that was recorded, or none as it had then.
pub async fn remove_machine(layout: &Layout, node: &str, recorded: Option<&MachineId>) -> Result<Leaving> {
    let machine = recorded.map(MachineId::to_string).unwrap_or_default();
    remove(layout, &format!("node={node}&now=true&machine={machine}")).await
}

async fn remove(layout: &Layout, query: &str) -> Result<Leaving> {
    let path = format!("{}?{query}", super::join::REMOVE_PATH);
    let answer = ask(layout, Method::POST, &path).await.context("ask the running server")?;
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        return Ok(Leaving { gone: false, waiting: vec![format!("the server: {text}")] });
    }
    anyhow::ensure!(answer.status.is_success(), "{text}");
    Ok(serde_json::from_slice(&answer.body)?)
}

/// Where the running server's state is.
pub async fn datastore(layout: &Layout) -> Result<Datastore> {
    let answer = ask(layout, Method::GET, super::etcd::PATH).await.context("ask the running server")?;
    Ok(serde_json::from_slice(&answer.done()?.unwrap_or_default())?)
}

/// Asks the running server to move its state into a managed etcd.
pub async fn convert_datastore(layout: &Layout) -> Result<()> {
    ask(layout, Method::POST, super::etcd::PATH).await.context("ask the running server")?.done().map(drop)
}

/// A client with the administrator's kubeconfig of this data folder.
pub fn own_client(layout: &Layout) -> Result<Client> {
    client(&Kubeconfig::load(&layout.kubeconfig())?)
}

/// A consistent snapshot from the running server.
pub async fn snapshot(layout: &Layout) -> Result<Vec<u8>> {
    let answer = ask(layout, Method::GET, super::join::SNAPSHOT_PATH).await?;
    answer.done()?.context("the server gave no snapshot")
}

/// What the server said on a path of this program's own.
pub struct Answer {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

// === impl Answer ===

impl Answer {
    /// The body; None where the server goes on with the work by itself. What was refused is an error.
    pub fn done(self) -> Result<Option<Vec<u8>>> {
        match self.status {
            StatusCode::ACCEPTED => Ok(None),
            status if status.is_success() => Ok(Some(self.body)),
            status => bail!("the server answered {status}: {}", String::from_utf8_lossy(&self.body)),
        }
    }
}

/// Asks the running server of this data folder on a path of this program's own.
pub async fn ask(layout: &Layout, method: Method, path: &str) -> Result<Answer> {
    let config = Kubeconfig::load(&layout.kubeconfig())?;
    let request = http::Request::builder().method(method).uri(path).body(bytes::Bytes::new())?;
    let response = transport(&config)?.call(request).await?;
    let status = response.status();
    let body = view::read_body(response.into_body(), SNAPSHOT_BYTES_MAX).await.context("read the answer")?.to_vec();
    Ok(Answer { status, body })
}

/// Asks a path of this program's own, of the kubeconfig's server or, where that takes no connection, of others; answers
/// the code and the body, whatever they are.
pub async fn exchange(
    config: &Kubeconfig,
    others: &[Endpoint],
    request: http::Request<bytes::Bytes>,
) -> Result<(u16, bytes::Bytes)> {
    let exchange = async {
        let response = among(config, others)?.call(request).await?;
        let code = response.status().as_u16();
        Ok::<_, anyhow::Error>((code, view::read_body(response.into_body(), ANSWER_BYTES_MAX).await?))
    };
    tokio::time::timeout(ASK_TIMEOUT, exchange).await.context("no answer in time")?
}
