//! What machines say of whom they trust, and whether they are there.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use api::{Gvr, Key, PatchType, Tree};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use view::{Client, ListOptions, PatchRequest};

use super::TRUST;
use super::judge::Machine;
use crate::pki::{Phase, Role, Succession, trust_of};
use crate::wire::Records;
use crate::wire::join::is_ready;
use crate::wire::presence;

/// A server that renewed its lease within this time is there.
const FRESH: SignedDuration = SignedDuration::from_secs(30);
const PHASES: [Phase; 3] = [Phase::Finish, Phase::Issue, Phase::Distribute];

/// Every machine that belongs to the cluster, and how far it is with a succession.
pub async fn machines(client: &Client, succession: Option<&Succession>, now: Timestamp) -> Result<Vec<Machine>> {
    all(client, now, |object| reached(object, succession?)).await
}

/// Every machine that belongs to the cluster, and how far it is by what its node or its lease says.
pub async fn all(client: &Client, now: Timestamp, reached: impl Fn(&Tree) -> Option<Phase>) -> Result<Vec<Machine>> {
    let nodes = list(client, &Gvr::new("", "v1", "nodes"), None).await?;
    let leases = list(client, &presence::leases(), Some("kube-system")).await?;
    let records = Records::new(client.clone()).machines().await?;
    let joined = records.into_iter().map(|recorded| recorded.machine).filter(|machine| machine.machine.is_some());
    let machine = |known: crate::wire::join::judge::Machine| {
        let server = known.role == Role::Server;
        let found =
            if server { leases.get(&presence::lease_of(&known.node)) } else { nodes.get(&Key::cluster(&known.node)) };
        let live = found.is_some_and(|object| if server { is_fresh(object, now) } else { is_ready(object) });
        let reached = found.and_then(&reached);
        Machine { name: known.node, role: known.role, reached, live }
    };
    Ok(joined.map(machine).collect())
}

/// By the bundle that a machine has.
fn reached(object: &Tree, succession: &Succession) -> Option<Phase> {
    let trust = told(object, TRUST)?;
    PHASES.into_iter().find(|phase| trust_of(&succession.server_bundle(*phase)) == trust)
}

/// What a machine says of itself.
pub fn told<'a>(object: &'a Tree, what: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][what].as_str()
}

/// Says it on a server's lease.
pub async fn tell(client: &Client, server: &str, what: &str, text: &str) -> Result<()> {
    let (gvr, key) = (presence::leases(), presence::lease_of(server));
    let lease: Tree = client.get(&gvr, &key).await.context("read this server's lease")?;
    if told(&lease, what) == Some(text) {
        return Ok(());
    }
    let body = json!({"metadata": {"annotations": {what: text}}});
    let patch = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
    client.patch(&patch).await.map(drop).context("say how far this server is")
}

fn is_fresh(lease: &Tree, now: Timestamp) -> bool {
    let renewed = lease["spec"]["renewTime"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    renewed.is_some_and(|at| now.duration_since(at).abs() <= FRESH)
}

async fn list(client: &Client, gvr: &Gvr, namespace: Option<&str>) -> Result<BTreeMap<Key, Tree>> {
    let options = ListOptions { namespace, ..ListOptions::default() };
    let page = client.list(gvr, &options).await.with_context(|| format!("list {}", gvr.resource))?;
    Ok(page.items.iter().map(|object| (object.key.clone(), object.tree())).collect())
}
